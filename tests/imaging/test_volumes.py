"""NIfTI, NRRD and MetaImage as scans."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.readers import is_supported, read_scan

FORMATS = ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd"]
VALUES = np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 7
OBLIQUE = Rotation.from_euler("xyz", (12, 25, -40), degrees=True).as_matrix()


def image_of(values: np.ndarray, *, is_vector: bool = False) -> Any:
    image = sitk.GetImageFromArray(values, isVector=is_vector)
    if image.GetDimension() == 3:
        image.SetSpacing((0.5, 0.7, 3.0))
        image.SetOrigin((10.0, -20.0, 30.0))
        image.SetDirection(OBLIQUE.ravel().tolist())
    return image


def save(values: np.ndarray, path: Path, **options: Any) -> Path:
    sitk.WriteImage(image_of(values, **options), str(path))
    return path


def patch(path: Path, offset: int, form: str, *values: float) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + form, content, offset, *values)
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", FORMATS)
def test_reads_values_and_oblique_geometry(tmp_path: Path, suffix: str) -> None:
    scan = read_scan(save(VALUES, tmp_path / f"knee.left.{suffix}"))
    assert np.array_equal(scan.pixels, VALUES)
    assert scan.geometry.matches(Geometry.from_image(image_of(VALUES)), single_precision=True)
    assert scan.name == "knee.left"
    assert scan.modality == ""
    assert scan.is_anatomical
    assert scan.spacing_known
    assert scan.patient_key is None


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (np.uint8, np.uint8),
        (np.int8, np.int8),
        (np.int16, np.int16),
        (np.uint16, np.uint16),
        (np.int32, np.int32),
        (np.uint32, np.uint32),
        (np.float32, np.float32),
        (np.float64, np.float32),
        (np.int64, np.int32),
        (np.uint64, np.uint32),
    ],
)
def test_keeps_types_up_to_32_bits(tmp_path: Path, dtype: type, kept: type) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    scan = read_scan(save(values, tmp_path / "a.mha"))
    assert scan.pixels.dtype == kept
    assert np.array_equal(scan.pixels, values)


@pytest.mark.parametrize("value", [2**40, -(2**40)])
def test_refuses_integers_that_need_64_bits(tmp_path: Path, value: int) -> None:
    path = save(np.full((2, 3, 4), value, np.int64), tmp_path / "big.mha")
    with pytest.raises(ImagingError, match=r"big\.mha .*64 bits"):
        read_scan(path)


def test_refuses_floats_that_would_become_infinite_but_keeps_infinity(tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match="64 bits"):
        read_scan(save(np.full((2, 3, 4), 1e300), tmp_path / "big.mha"))
    scan = read_scan(save(np.full((2, 3, 4), np.inf), tmp_path / "inf.mha"))
    assert np.isinf(scan.pixels).all()


def test_applies_the_slope_of_nifti(tmp_path: Path) -> None:
    path = save(VALUES, tmp_path / "a.nii")
    patch(path, 112, "ff", 0.5, -3.0)
    np.testing.assert_allclose(read_scan(path).pixels, VALUES * 0.5 - 3)


def test_nifti_without_orientation_codes_shows_no_letters(tmp_path: Path) -> None:
    path = save(VALUES, tmp_path / "a.nii")
    patch(path, 252, "hh", 0, 0)
    scan = read_scan(path)
    assert not scan.is_anatomical
    assert scan.spacing_known
    assert scan.orientation.edge_letters(0).left == ""


def test_nrrd_without_a_space_shows_no_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nspacings: 1 2 3\nendian: little\n"
    path.write_bytes(head.encode() + b"encoding: raw\n\n" + VALUES.tobytes())
    scan = read_scan(path)
    assert np.array_equal(scan.pixels, VALUES)
    assert scan.spacing == (3, 2, 1)
    assert not scan.is_anatomical


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_a_flat_file_is_a_picture(tmp_path: Path, suffix: str) -> None:
    image = image_of(VALUES[0])
    image.SetSpacing((0.5, 0.7))
    path = tmp_path / f"flat.{suffix}"
    sitk.WriteImage(image, str(path))
    scan = read_scan(path)
    assert scan.is_picture
    assert scan.pixels.shape == (1, 4, 5)
    assert scan.geometry.spacing == pytest.approx((0.5, 0.7))
    assert not scan.orientation.is_anatomical


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_a_single_slice_stays_a_volume(tmp_path: Path, suffix: str) -> None:
    scan = read_scan(save(VALUES[:1], tmp_path / f"one.{suffix}"))
    assert scan.shape == (1, 4, 5)
    assert scan.geometry.dimension == 3
    assert scan.is_anatomical


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_reads_eight_bit_colour(tmp_path: Path, suffix: str) -> None:
    colour = np.arange(72, dtype=np.uint8).reshape(2, 3, 4, 3)
    scan = read_scan(save(colour, tmp_path / f"c.{suffix}", is_vector=True))
    assert scan.is_colour
    assert np.array_equal(scan.pixels, colour)


def test_drops_the_alpha_channel(tmp_path: Path) -> None:
    rgba = np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4)
    scan = read_scan(save(rgba, tmp_path / "c.nrrd", is_vector=True))
    assert np.array_equal(scan.pixels, rgba[..., :3])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.zeros((2, 3, 4, 2), np.uint8), "2 values of type uint8"),
        (np.zeros((2, 3, 4, 3), np.float32), "3 values of type float32"),
        (np.zeros((2, 3, 4, 6), np.int16), "6 values of type int16"),
    ],
)
def test_refuses_other_vectors(tmp_path: Path, values: np.ndarray, told: str) -> None:
    path = save(values, tmp_path / "v.nrrd", is_vector=True)
    with pytest.raises(ImagingError, match=rf"v\.nrrd has {told}.*export one channel"):
        read_scan(path)


def test_refuses_complex_numbers(tmp_path: Path) -> None:
    path = save(np.zeros((2, 3, 4), np.complex64), tmp_path / "k.nii")
    with pytest.raises(ImagingError, match=r"k\.nii holds complex numbers"):
        read_scan(path)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_refuses_four_dimensions(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bold.{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.int16), False), str(path))
    with pytest.raises(ImagingError, match=r"bold\..* has 4 dimensions \(5 x 4 x 3 x 2\)"):
        read_scan(path)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_a_single_time_point_is_three_dimensional(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"one.{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(VALUES[None], False), str(path))
    assert np.array_equal(read_scan(path).pixels, VALUES)


def test_explains_a_sheared_nifti(tmp_path: Path) -> None:
    path = save(VALUES, tmp_path / "tilt.nii")
    patch(path, 252, "hh", 0, 1)
    patch(path, 280, "12f", *(1, 0.5, 0, 0), *(0, 1, 0, 0), *(0, 0, 1, 0))
    with pytest.raises(ImagingError, match=r"tilt\.nii has axes that are sheared.*resample"):
        read_scan(path)


@pytest.mark.parametrize("twin", ["a.nii", "a.NII"])
def test_a_compressed_nifti_is_not_confused_with_its_twin(tmp_path: Path, twin: str) -> None:
    save(VALUES, tmp_path / "a.nii.gz")
    save(VALUES + 1, tmp_path / "b.nii").rename(tmp_path / twin)
    assert np.array_equal(read_scan(tmp_path / "a.nii.gz").pixels, VALUES)
    assert np.array_equal(read_scan(tmp_path / twin).pixels, VALUES + 1)


@pytest.mark.parametrize("suffix", ["NII", "Nii", "NII.GZ", "nii.GZ", "NRRD", "MHA"])
def test_suffixes_may_be_in_capitals(tmp_path: Path, suffix: str) -> None:
    path = save(VALUES, tmp_path / f"b.{suffix.lower()}").rename(tmp_path / f"a.{suffix}")
    assert is_supported(path)
    scan = read_scan(path)
    assert np.array_equal(scan.pixels, VALUES)
    assert scan.name == "a"


def test_a_path_may_have_spaces_and_accents(tmp_path: Path) -> None:
    folder = tmp_path / "Médecine nucléaire ß 医"
    folder.mkdir()
    assert np.array_equal(read_scan(save(VALUES, folder / "tête à.nii.gz")).pixels, VALUES)
