"""Masks keep the scan's geometry exactly, whatever the format."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.mask_formats import open_filter, save_filter
from napari_fedsam.imaging.readers import read_mask, read_scan
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure
from napari_fedsam.imaging.writers import write_mask

VOLUME_FORMATS = ["nii", "nii.gz", "nrrd", "mha", "mhd"]
SIZE = (5, 4, 3)
MASK = np.random.default_rng(5).integers(0, 4, SIZE[::-1]).astype(np.uint8)


def scan_at(geometry: Geometry, **options: Any) -> Scan:
    pixels = np.zeros(geometry.array_shape, np.int16)
    return Scan(pixels, geometry, "scan", Path("scan"), **options)


def oblique(spacing: tuple[float, ...] = (0.5, 0.7, 3.0)) -> Geometry:
    matrix = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
    return Geometry(SIZE, spacing, (-12.5, 40.25, 7.125), tuple(map(float, matrix.ravel())))


def picture() -> Scan:
    return scan_at(Geometry.identity((5, 4)), spacing_known=False, is_anatomical=False)


@pytest.mark.parametrize("suffix", VOLUME_FORMATS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    quaternion=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
    mirrored=st.booleans(),
    lengths=st.tuples(*[st.floats(0.05, 8)] * 3, *[st.floats(-100, 100)] * 3),
)
def test_geometry_is_kept_for_any_oblique_anisotropic_scan(
    tmp_path: Path,
    suffix: str,
    quaternion: tuple[float, ...],
    mirrored: bool,
    lengths: tuple[float, ...],
) -> None:
    spacing, origin = lengths[:3], lengths[3:]
    matrix = Rotation.from_quat(quaternion).as_matrix() @ np.diag([1, 1, -1 if mirrored else 1])
    geometry = Geometry(SIZE, spacing, origin, tuple(map(float, matrix.ravel())))
    path = tmp_path / f"mask.{suffix}"
    write_mask(MASK, scan_at(geometry), path)
    image = sitk.ReadImage(str(path))
    assert image.GetSize() == SIZE
    np.testing.assert_allclose(image.GetSpacing(), spacing, rtol=0, atol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), origin, rtol=0, atol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), matrix.ravel(), rtol=0, atol=1e-6)
    assert np.array_equal(sitk.GetArrayFromImage(image), MASK)
    if suffix in ("mha", "mhd"):
        assert geometry.matches(Geometry.from_image(image), length=1e-12, direction=1e-12)


@pytest.mark.parametrize("suffix", VOLUME_FORMATS)
def test_a_scan_far_from_the_origin_can_be_saved(tmp_path: Path, suffix: str) -> None:
    near = oblique()
    far = Geometry(near.size, near.spacing, (-1024.3, 903.7, -1755.1), near.direction)
    path = tmp_path / f"mask.{suffix}"
    write_mask(MASK, scan_at(far), path)
    found = sitk.ReadImage(str(path)).GetOrigin()
    tolerance = 1e-4 if suffix.startswith("nii") else 1e-9
    np.testing.assert_allclose(found, far.origin, rtol=0, atol=tolerance)


@pytest.mark.parametrize("suffix", VOLUME_FORMATS)
def test_what_was_written_reads_back(tmp_path: Path, suffix: str) -> None:
    scan = scan_at(oblique())
    write_mask(MASK, scan, tmp_path / f"m.{suffix}")
    back = read_mask(tmp_path / f"m.{suffix}", scan)
    assert back.dtype == np.uint16
    assert np.array_equal(back, MASK)


def test_a_mask_of_an_oblique_dicom_series_is_exact(dicom: Any, tmp_path: Path) -> None:
    matrix = oblique().matrix
    dicom.series(
        np.zeros((3, 4, 5), np.uint16), orientation=[*matrix[:, 0], *matrix[:, 1]], spacing=3.0
    )
    scan = read_scan(dicom.folder)
    for suffix in VOLUME_FORMATS:
        write_mask(MASK, scan, tmp_path / f"m.{suffix}")
        found = Geometry.from_image(sitk.ReadImage(str(tmp_path / f"m.{suffix}")))
        assert found.matches(scan.geometry)


@pytest.mark.parametrize(
    ("mask", "stored"),
    [
        (MASK > 1, sitk.sitkUInt8),
        (MASK.astype(np.int64), sitk.sitkUInt8),
        (MASK.astype(np.uint16) + 252, sitk.sitkUInt8),
        (MASK.astype(np.uint16) + 253, sitk.sitkUInt16),
        (MASK.astype(np.int32) + 65532, sitk.sitkUInt16),
    ],
)
def test_is_stored_as_small_as_it_fits(tmp_path: Path, mask: np.ndarray, stored: int) -> None:
    scan = scan_at(oblique())
    write_mask(mask, scan, tmp_path / "m.nii.gz")
    assert sitk.ReadImage(str(tmp_path / "m.nii.gz")).GetPixelID() == stored
    assert np.array_equal(read_mask(tmp_path / "m.nii.gz", scan), mask)


@pytest.mark.parametrize("suffix", ["png", "nrrd", "nii.gz", "mha"])
def test_a_mask_of_a_picture_is_flat(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    write_mask(MASK[:1], picture(), path)
    assert sitk.ReadImage(str(path)).GetSize() == (5, 4)
    assert np.array_equal(read_mask(path, picture()), MASK[:1])


@pytest.mark.parametrize("values", [[0, 1, 3], [0, 255], [0]])
def test_a_png_shows_the_structures_colours(tmp_path: Path, values: list[int]) -> None:
    mask = np.random.default_rng(1).choice(values, (1, 4, 5)).astype(np.uint8)
    structures = [MaskStructure(3, "a", "#0102fe"), MaskStructure(255, "b", "#ffffff")]
    write_mask(mask, picture(), tmp_path / "m.png", structures)
    assert np.array_equal(read_mask(tmp_path / "m.png", picture()), mask)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        shown = np.asarray(image.convert("RGB"))
    colours = {0: (0, 0, 0), 1: (0x56, 0xB4, 0xE9), 3: (1, 2, 254), 255: (255, 255, 255)}
    for value in values:
        assert (shown[mask[0] == value] == colours[value]).all()


def test_a_single_slice_goes_into_a_png(tmp_path: Path) -> None:
    slice_of_ct = scan_at(Geometry.identity((5, 4, 1)))
    write_mask(MASK[:1], slice_of_ct, tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", slice_of_ct), MASK[:1])


@pytest.mark.parametrize("filter_of", [save_filter, open_filter])
def test_dialogs_offer_every_format(filter_of: Any) -> None:
    offered = filter_of()
    for suffix in (".nii.gz", ".nii", ".nrrd", ".mha", ".seg.nrrd", ".dcm", ".png", ".json"):
        assert f"*{suffix}" in offered


def test_a_sixteen_bit_png_keeps_its_numbers(tmp_path: Path) -> None:
    mask = MASK[:1].astype(np.uint16) * 300
    write_mask(mask, picture(), tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", picture()), mask)


def test_a_palette_mask_is_read_by_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray(MASK[0])
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", picture()), MASK[:1])


def test_black_and_white_is_read_as_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(MASK[0] > 1).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", picture()), MASK[:1] > 1)


def test_gray_saved_as_colour_is_still_a_mask_but_colour_is_not(tmp_path: Path) -> None:
    Image.fromarray(np.stack([MASK[0]] * 3, -1)).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", picture()), MASK[:1])
    Image.fromarray(np.stack([MASK[0], MASK[0], MASK[0] * 2], -1)).save(tmp_path / "c.png")
    with pytest.raises(ImagingError, match=r"c\.png is in colour"):
        read_mask(tmp_path / "c.png", picture())


def test_a_mask_with_turned_axes_is_put_right_by_its_geometry(tmp_path: Path) -> None:
    scan = scan_at(oblique())
    axes, flipped = (2, 0, 1), (True, False, True)
    turned = scan.geometry.reindexed(axes, flipped)
    # Labels say where they are, so that a wrong turn would show.
    labels = np.arange(60, dtype=np.uint8).reshape(scan.shape)
    by_x_y_z = labels.transpose(2, 1, 0).transpose(axes)
    by_x_y_z = by_x_y_z[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]
    image = sitk.GetImageFromArray(np.ascontiguousarray(by_x_y_z.transpose(2, 1, 0)))
    turned.stamp(image)
    sitk.WriteImage(image, str(tmp_path / "m.nii.gz"))
    assert np.array_equal(read_mask(tmp_path / "m.nii.gz", scan), labels)


def test_a_mask_with_a_rounded_header_is_accepted(tmp_path: Path) -> None:
    scan = scan_at(oblique())
    image = sitk.GetImageFromArray(MASK)
    scan.geometry.stamp(image)
    image.SetOrigin([v + 2e-4 for v in scan.geometry.origin])
    sitk.WriteImage(image, str(tmp_path / "m.nrrd"))
    assert np.array_equal(read_mask(tmp_path / "m.nrrd", scan), MASK)


@pytest.mark.parametrize("change", ["size", "origin", "spacing"])
def test_a_mask_of_another_place_is_refused(tmp_path: Path, change: str) -> None:
    scan = scan_at(oblique())
    image = sitk.GetImageFromArray(MASK[:2] if change == "size" else MASK)
    image.SetDirection(scan.geometry.direction)
    image.SetOrigin([v + 0.1 * (change == "origin") for v in scan.geometry.origin])
    image.SetSpacing([v * (1.01 if change == "spacing" else 1) for v in scan.geometry.spacing])
    sitk.WriteImage(image, str(tmp_path / "m.nii.gz"))
    with pytest.raises(ImagingError, match=r"m\.nii\.gz has another size or position than scan"):
        read_mask(tmp_path / "m.nii.gz", scan)


def test_a_picture_of_another_size_is_no_mask(tmp_path: Path) -> None:
    Image.fromarray(MASK[0].T).save(tmp_path / "m.png")
    with pytest.raises(ImagingError, match=r"m\.png has another size"):
        read_mask(tmp_path / "m.png", picture())


@pytest.mark.parametrize("value", [-1, 70000, 0.5, np.nan])
def test_values_that_are_no_labels_are_refused(tmp_path: Path, value: float) -> None:
    scan = scan_at(Geometry.identity(SIZE))
    sitk.WriteImage(
        sitk.GetImageFromArray(np.full(scan.shape, value, np.float32)), str(tmp_path / "m.mha")
    )
    with pytest.raises(ImagingError, match=r"m\.mha is not a mask"):
        read_mask(tmp_path / "m.mha", scan)


@pytest.mark.parametrize("name", ["m.jpg", "m.txt", "m"])
def test_formats_that_cannot_hold_a_mask_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImagingError, match="cannot hold a mask"):
        read_mask(tmp_path / name, picture())
    with pytest.raises(ImagingError, match="has no mask format"):
        write_mask(MASK[:1], picture(), tmp_path / name)


def test_a_volume_does_not_go_into_a_png(tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match=r"m\.png would hold one picture"):
        write_mask(MASK, scan_at(oblique()), tmp_path / "m.png")


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (MASK[:2], "shape"),
        (MASK.astype(np.float32), "integers"),
        (MASK.astype(np.int16) - 1, "0 to 65535"),
        (MASK.astype(np.int32) + 65533, "0 to 65535"),
    ],
)
def test_callers_mistakes_are_value_errors(tmp_path: Path, mask: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        write_mask(mask, scan_at(oblique()), tmp_path / "m.nii.gz")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match=r"m\.nii\.gz cannot be saved because the folder gone"):
        write_mask(MASK, scan_at(oblique()), tmp_path / "gone" / "m.nii.gz")


def test_a_display_view_of_a_mask_can_be_written(tmp_path: Path) -> None:
    scan = scan_at(oblique())
    shown = scan.orientation.to_display(MASK)
    write_mask(scan.orientation.from_display(shown), scan, tmp_path / "m.nrrd")
    assert np.array_equal(read_mask(tmp_path / "m.nrrd", scan), MASK)


@pytest.mark.parametrize("name", ["M.NII", "M.NII.GZ", "m.Nrrd", "m.MHA"])
def test_suffixes_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    scan = scan_at(oblique())
    write_mask(MASK, scan, tmp_path / name)
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208 - the exact spelling on disk
    assert np.array_equal(read_mask(tmp_path / name, scan), MASK)


@pytest.mark.parametrize("suffix", VOLUME_FORMATS)
def test_a_failed_save_leaves_the_old_mask_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    scan = scan_at(oblique())
    path = tmp_path / f"m.{suffix}"
    write_mask(MASK, scan, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(image: Any, name: str, **options: Any) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(ImagingError, match=rf"m\.{suffix} could not be saved"):
        write_mask(MASK * 0, scan, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_the_disk_swallowed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = sitk.WriteImage

    def lose_voxels(image: Any, name: str, **options: Any) -> None:
        write(image * 0, name, **options)

    monkeypatch.setattr(sitk, "WriteImage", lose_voxels)
    with pytest.raises(ImagingError, match=r"m\.nii could not be saved"):
        write_mask(MASK, scan_at(oblique()), tmp_path / "m.nii")
    assert list(tmp_path.iterdir()) == []


def test_a_position_that_was_not_kept_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = sitk.WriteImage

    def move(image: Any, name: str, **options: Any) -> None:
        moved = sitk.Image(image)
        moved.SetOrigin([v + 0.01 for v in image.GetOrigin()])
        write(moved, name, **options)

    monkeypatch.setattr(sitk, "WriteImage", move)
    with pytest.raises(ImagingError, match=r"m\.nii cannot hold this scan's position exactly"):
        write_mask(MASK, scan_at(oblique()), tmp_path / "m.nii")


def test_no_permission_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(ImagingError, match=r"m\.nii cannot be saved in the folder .* denied"):
        write_mask(MASK, scan_at(oblique()), tmp_path / "m.nii")
