"""Whatever happens to a mask file's bytes, it is read or refused in one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.mask_formats import is_segmentation
from napari_fedsam.imaging.readers import read_mask, read_scan
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure
from napari_fedsam.imaging.writers import write_mask

SHAPE = (1, 5, 7)
LABELS = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
NAMED = [MaskStructure(1, "spleen", "#010203"), MaskStructure(2, "liver", "#040506")]


@pytest.fixture
def scan(dicom: Any, suffix: str) -> Scan:
    if suffix == "dcm":
        pixels = np.zeros(SHAPE[1:], np.uint16)
        return read_scan(dicom.slice("one", pixels, FrameOfReferenceUID=generate_uid()))
    return Scan(np.zeros(SHAPE, np.uint8), Geometry.identity((7, 5)), "picture", Path("p.png"))


@pytest.mark.parametrize("suffix", ["dcm", "seg.nrrd", "nii", "json", "png"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_a_damaged_mask_is_read_or_refused(
    scan: Scan, tmp_path: Path, suffix: str, changes: list[tuple[float, int]], kept: float
) -> None:
    path = tmp_path / f"m.{suffix}"
    write_mask(LABELS, scan, path, NAMED)
    content = bytearray(path.read_bytes())
    for where, value in changes:
        content[int(where * len(content))] = value
    path.write_bytes(content[: int(kept * len(content))])
    is_segmentation(path)
    try:
        labels = read_mask(path, scan)
    except ImagingError as error:
        message = str(error)
        assert f"m.{suffix}" in message
        assert message.endswith(".")
        assert str(tmp_path) not in message
    else:
        assert labels.shape == SHAPE
