"""A scan that can be looked at while it is being read."""

import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.imaging.arriving_scan import ArrivingScan
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.nifti_header import NiftiHeader
from napari_fedsam.imaging.nifti_slices import NiftiSlices
from napari_fedsam.imaging.readers import read_scan

VALUES = np.arange(6 * 4 * 5, dtype=np.int16).reshape(6, 4, 5) - 7


def compressed(path: Path, values: Any = VALUES, *patches: tuple[int, str, Any]) -> Path:
    """Write a compressed NIfTI with some fields of its header changed."""
    image = sitk.GetImageFromArray(values, isVector=values.ndim == 4)
    image.SetSpacing((0.5, 0.7, 3.0))
    plain = path.with_name("plain.nii")
    sitk.WriteImage(image, str(plain))
    content = bytearray(plain.read_bytes())
    for offset, form, value in patches:
        struct.pack_into(form, content, offset, *np.atleast_1d(value))
    path.write_bytes(gzip.compress(bytes(content)))
    plain.unlink()
    return path


class Watcher:
    def __init__(self) -> None:
        self.told: list[ArrivingScan] = []
        self.there_when_told = -1

    def __call__(self, arriving: ArrivingScan) -> None:
        self.told.append(arriving)
        self.there_when_told = arriving.count

    @property
    def arriving(self) -> ArrivingScan:
        (arriving,) = self.told
        return arriving


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_a_compressed_nifti_arrives_as_it_is_read(tmp_path: Path, dtype: str) -> None:
    values = (VALUES - VALUES.min()).astype(dtype)
    watch = Watcher()
    scan = read_scan(compressed(tmp_path / "knee.nii.gz", values), watch=watch)
    arriving = watch.arriving
    assert np.array_equal(arriving.scan.pixels, scan.pixels)
    assert arriving.count == 6
    assert arriving.has(5)
    assert arriving.scan.geometry == scan.geometry
    assert arriving.scan.is_anatomical == scan.is_anatomical
    assert arriving.scan.name == "knee"


def test_rescaled_values_arrive_rescaled(tmp_path: Path) -> None:
    watch = Watcher()
    path = compressed(tmp_path / "a.nii.gz", VALUES, (112, "<ff", (0.5, -3.0)))
    scan = read_scan(path, watch=watch)
    np.testing.assert_allclose(watch.arriving.scan.pixels, scan.pixels)
    np.testing.assert_allclose(watch.arriving.scan.pixels, VALUES * 0.5 - 3)


def header(**changes: Any) -> NiftiHeader:
    known = {
        "order": ">",
        "shape": (6, 4, 5),
        "type_code": 4,
        "bits": 16,
        "start": 352.0,
        "slope": 0.0,
        "intercept": 0.0,
    }
    return NiftiHeader(**{**known, **changes})


@given(cuts=st.lists(st.integers(0, 352 + VALUES.nbytes), max_size=8))
def test_slices_do_not_depend_on_the_pieces(cuts: list[int]) -> None:
    slices = NiftiSlices(header())
    content = bytes(352) + VALUES.astype(">i2").tobytes()
    edges = [0, *sorted(cuts), len(content)]
    for start, end in itertools.pairwise(edges):
        slices.take(content[start:end])
        whole = max(0, end - 352) // VALUES[0].nbytes
        assert slices.arrived.tolist() == [True] * whole + [False] * (6 - whole)
        assert np.array_equal(slices.pixels[:whole], VALUES[:whole])
        assert not slices.pixels[whole:].any()


def test_one_slice_is_a_scan_of_its_own(tmp_path: Path) -> None:
    watch = Watcher()
    read_scan(compressed(tmp_path / "a.nii.gz"), watch=watch)
    one = watch.arriving.slice_as_scan(2)
    assert np.array_equal(one.pixels, VALUES[2:3])
    assert one.spacing == pytest.approx((3.0, 0.7, 0.5))


NOTHING_TO_WATCH = {
    "a picture": (VALUES[0], ()),
    "colour": (np.zeros((6, 4, 5, 3), np.uint8), ()),
    "a header that promises too much": (
        VALUES,
        [(40, "<8h", (3, 20000, 20000, 20000, 1, 1, 1, 1))],
    ),
    "no start": (VALUES, [(108, "<f", np.nan)]),
}


@pytest.mark.parametrize("name", NOTHING_TO_WATCH)
def test_what_cannot_be_shown_in_parts_is_read_as_ever(tmp_path: Path, name: str) -> None:
    values, patches = NOTHING_TO_WATCH[name]
    path = compressed(tmp_path / "a.nii.gz", values, *patches)
    watch = Watcher()
    outcomes = []
    for options in ({}, {"watch": watch}):
        try:
            outcomes.append(read_scan(path, **options).fingerprint)
        except ImagingError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    assert watch.told == []


def test_a_file_that_was_cut_off_is_shown_and_then_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = compressed(tmp_path / "a.nii.gz", rng.integers(0, 999, (6, 400, 500)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:-4000])
    watch = Watcher()
    with pytest.raises(ImagingError, match="truncated or damaged"):
        read_scan(path, watch=watch)
    assert 0 < watch.arriving.count < 6
    assert not watch.arriving.has(5)


def test_a_file_that_is_no_nifti_is_refused_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"no image")
    with pytest.raises(ImagingError, match=r"a\.nii\.gz"):
        read_scan(path, watch=Watcher())


def test_a_dicom_series_arrives_from_its_middle(dicom: Any) -> None:
    dicom.series(VALUES)
    seen: list[list[bool]] = []
    told: list[ArrivingScan] = []

    def watch(arriving: ArrivingScan) -> None:
        told.append(arriving)
        seen.append([arriving.has(index) for index in range(6)])

    scan = read_scan(dicom.folder, watch=watch)
    (arriving,) = told
    assert seen == [[False] * 6]
    assert arriving.count == 6
    assert np.array_equal(arriving.scan.pixels, scan.pixels)
    assert arriving.scan.geometry == scan.geometry


def test_a_dicom_series_arrives_from_its_middle_on(dicom: Any) -> None:
    paths = dicom.series(VALUES)
    paths[0].write_bytes(paths[0].read_bytes()[:-20])
    watch = Watcher()
    with pytest.raises(ImagingError, match=paths[0].name):
        read_scan(dicom.folder, watch=watch)
    assert [watch.arriving.has(index) for index in range(6)] == [False] + [True] * 5
