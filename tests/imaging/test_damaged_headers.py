"""Whatever bytes a header has, the answer is a scan or one sentence, never a crash."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.readers import read_scan
from napari_fedsam.imaging.scan import Scan

VALUES = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16)
damage = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("intact")
    for suffix in ("nii", "nii.gz", "mha"):
        sitk.WriteImage(sitk.GetImageFromArray(VALUES[None]), str(folder / f"a.{suffix}"))
    for suffix in ("png", "tif", "bmp", "jpg"):
        Image.fromarray(VALUES.astype(np.uint8)).save(folder / f"a.{suffix}")
    return {file.name[2:]: file.read_bytes() for file in folder.iterdir()}


def read_damaged(path: Path, content: bytes, changes: list[tuple[float, int]]) -> None:
    damaged = bytearray(content)
    header = min(len(damaged), 400)
    for place, value in changes:
        damaged[int(place * header)] = value
    path.write_bytes(damaged)
    try:
        assert isinstance(read_scan(path), Scan)
    except ImagingError as error:
        assert path.name in str(error)  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mha", "png", "tif", "bmp", "jpg"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=damage)
def test_files(
    tmp_path: Path, intact: dict[str, bytes], suffix: str, changes: list[tuple[float, int]]
) -> None:
    read_damaged(tmp_path / f"d.{suffix}", intact[suffix], changes)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=damage, enhanced=st.booleans())
def test_dicom(dicom: Any, changes: list[tuple[float, int]], enhanced: bool) -> None:
    if enhanced:
        rescale = [(1.0, 0.0), (2.0, 0.0)]
        places = [(0.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
        path = dicom.enhanced("e.dcm", np.stack([VALUES] * 2), places, rescale=rescale)
    else:
        path = dicom.slice("s.dcm", VALUES)
    content = path.read_bytes()
    # The preamble and the mark are not what this is about.
    shifted = [(0.35 + 0.65 * place, value) for place, value in changes]
    read_damaged(path, content, shifted)
    header = content[:132] + bytes(len(content) - 132)
    read_damaged(path, header, [])


@pytest.mark.parametrize("part", [0.5, 0.9, 0.99])
def test_an_enhanced_object_without_its_last_pixels(dicom: Any, part: float) -> None:
    values = np.random.default_rng(6).integers(0, 4096, (3, 64, 64)).astype(np.uint16)
    places = [(0.0, 0.0, float(z)) for z in range(3)]
    rescale = [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0)]
    path = dicom.enhanced("cut.dcm", values, places, rescale=rescale)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ImagingError, match=r"cut\.dcm cannot be decoded"):
        read_scan(path)
