"""Folders and files of single-frame DICOM slices."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    EncapsulatedPDFStorage,
    SegmentationStorage,
    generate_uid,
)
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.errors import ImagingError, MultipleSeriesError
from napari_fedsam.imaging.readers import is_supported, list_series, read_scan
from napari_fedsam.imaging.window import CT_PRESETS, default_window

STORED = np.random.default_rng(3).integers(0, 4096, (5, 6, 8)).astype(np.uint16)


def oblique() -> list[float]:
    matrix = Rotation.from_euler("xyz", (25, -15, 40), degrees=True).as_matrix()
    return [*matrix[:, 0], *matrix[:, 1]]


def message_of(path: Path, **options: Any) -> str:
    with pytest.raises(ImagingError) as caught:
        read_scan(path, **options)
    message = str(caught.value)
    assert "PLANTED" not in message
    assert message.endswith(".")
    return message


def test_sorts_slices_by_position_and_rescales(dicom: Any) -> None:
    dicom.series(STORED, BitsStored=12, HighBit=11)
    scan = read_scan(dicom.folder)
    assert scan.pixels.dtype == np.int16
    assert np.array_equal(scan.pixels, STORED.astype(int) - 1024)
    assert scan.geometry.size == (8, 6, 5)
    assert scan.geometry.spacing == (0.5, 0.7, 2.0)
    assert scan.geometry.origin == (-10, -20, 30)
    assert scan.spacing == (2.0, 0.7, 0.5)
    assert scan.modality == "CT"
    assert default_window(scan) == CT_PRESETS["soft tissue"]


def test_places_every_voxel_of_an_oblique_series(dicom: Any) -> None:
    orientation = np.array(oblique())
    dicom.series(STORED, orientation=orientation)
    scan = read_scan(dicom.folder)
    row, column = orientation[:3], orientation[3:]
    # PS3.3 C.7.6.2.1.1: a column index moves along the row direction, and the reverse.
    for i, j, k in ((0, 0, 0), (7, 5, 4), (3, 1, 2)):
        expected = np.array([-10, -20, 30.0]) + k * 2 * np.cross(row, column)
        expected += i * 0.5 * row + j * 0.7 * column
        np.testing.assert_allclose(scan.geometry.index_to_world((i, j, k)), expected, atol=1e-6)
    assert scan.orientation.is_anatomical


def test_names_have_no_patient_data_and_the_patient_key_stays_hidden(
    dicom: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    dicom.series(STORED)
    scan = read_scan(dicom.folder)
    assert scan.name == "CT series 3"
    assert scan.patient_key == "PLANTED-4711"
    assert "PLANTED" not in repr(scan)
    assert "PLANTED" not in repr(list_series(dicom.folder))
    assert "PLANTED" not in caplog.text


def test_rescales_by_fractions_and_by_slice(dicom: Any) -> None:
    uid = generate_uid()
    for i, slope in enumerate((0.5, 2.5)):
        dicom.slice(
            f"PT{i}",
            STORED[i],
            position=(0, 0, 2 * i),
            SeriesInstanceUID=uid,
            Modality="PT",
            RescaleSlope=slope,
            RescaleIntercept=0.25,
        )
    scan = read_scan(dicom.folder)
    assert scan.pixels.dtype == np.float32
    expected = STORED[:2] * np.array([0.5, 2.5])[:, None, None] + 0.25
    np.testing.assert_allclose(scan.pixels, expected)


def test_ignores_what_is_no_scan(dicom: Any) -> None:
    dicom.series(STORED, prefix="deep/er/IM")
    (dicom.folder / "README.txt").write_text("hello")
    (dicom.folder / "deep" / "thumb.png").write_bytes(b"\x89PNG")
    (dicom.folder / "deep" / "._IM001.dcm").write_bytes(b"a macOS shadow file")
    dicom.write(
        "report", STORED[0], EncapsulatedPDFStorage, Rows=None, Columns=None, PixelData=None
    )
    dicom.write("seg", STORED[:2], SegmentationStorage, Modality="SEG")
    assert [s.n_slices for s in list_series(dicom.folder)] == [5]
    assert read_scan(dicom.folder).shape == (5, 6, 8)
    assert is_supported(dicom.folder)


def test_several_series_are_for_the_caller_to_pick(dicom: Any) -> None:
    first = generate_uid()
    dicom.series(STORED, SeriesInstanceUID=first, prefix="A")
    dicom.series(STORED[:2], SeriesNumber=4, Modality="MR", prefix="B")
    with pytest.raises(MultipleSeriesError) as caught:
        read_scan(dicom.folder)
    message = str(caught.value)
    assert "CT series 3 (5 slices), MR series 4 (2 slices)" in message
    assert "PLANTED" not in message
    series = caught.value.series
    assert [(s.modality, s.n_slices, s.number) for s in series] == [("CT", 5, 3), ("MR", 2, 4)]
    assert series[0].uid == first
    assert "free text" in series[0].description
    assert tuple(list_series(dicom.folder)) == series
    assert read_scan(dicom.folder, series=first).shape == (5, 6, 8)
    assert read_scan(dicom.folder, series=series[1].uid).modality == "MR"
    assert "list its series" in message_of(dicom.folder, series="1.2.3")


def test_emptied_uids_still_make_one_series_each(dicom: Any) -> None:
    emptied = {"SeriesInstanceUID": "", "StudyInstanceUID": "", "SOPInstanceUID": ""}
    dicom.series(STORED, prefix="A", SeriesNumber=None, PatientID="", **emptied)
    scan = read_scan(dicom.folder)
    assert scan.shape == (5, 6, 8)
    assert scan.name == "CT series"
    assert scan.patient_key is None
    dicom.series(STORED[:3], prefix="B", SeriesNumber=9, **emptied)
    listed = list_series(dicom.folder)
    assert [s.n_slices for s in listed] == [5, 3]
    assert len({s.uid for s in listed}) == 2
    assert read_scan(dicom.folder, series=listed[1].uid).shape == (3, 6, 8)


def test_patients_under_one_uid_are_kept_apart(dicom: Any) -> None:
    uid = generate_uid()
    dicom.series(STORED, SeriesInstanceUID=uid, prefix="A")
    dicom.series(STORED[:2], SeriesInstanceUID=uid, prefix="B", PatientID="PLANTED-OTHER")
    listed = list_series(dicom.folder)
    assert [s.n_slices for s in listed] == [5, 2]
    assert len({s.uid for s in listed}) == 2


def test_a_single_file_is_one_slice_in_its_place(dicom: Any) -> None:
    path = dicom.slice("one.dcm", STORED[0], position=(1, 2, 3), orientation=oblique())
    scan = read_scan(path)
    assert scan.shape == (1, 6, 8)
    assert scan.geometry.dimension == 3
    assert scan.geometry.spacing == (0.5, 0.7, 2.0)
    assert scan.geometry.origin == (1, 2, 3)
    assert is_supported(path)


def test_a_file_needs_no_suffix(dicom: Any) -> None:
    path = dicom.slice("1.2.840.113619.2", STORED[0])
    assert is_supported(path)
    assert read_scan(path).modality == "CT"


def test_rounded_positions_are_even_enough(dicom: Any) -> None:
    uid = generate_uid()
    for i in range(5):
        position = (0.0, 0.0, round(i * 0.625, 1))
        dicom.slice(f"I{i}", STORED[i], position=position, SeriesInstanceUID=uid)
    assert read_scan(dicom.folder).geometry.spacing[2] == pytest.approx(0.625)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_slice_is_told_with_its_place(dicom: Any, missing: int) -> None:
    paths = dicom.series(STORED)
    paths[missing].unlink()
    message = message_of(dicom.folder)
    below, above = 28.0 + 2 * missing, 32.0 + 2 * missing
    assert "study" in message
    assert f"missing between {below:.1f} and {above:.1f} mm" in message


def test_uneven_slices_are_refused(dicom: Any) -> None:
    uid = generate_uid()
    for i, z in enumerate((0.0, 2.0, 4.6, 6.0, 8.7)):
        dicom.slice(f"I{i}", STORED[i], position=(0, 0, z), SeriesInstanceUID=uid)
    assert "unevenly spaced slices (1.40 to 2.70 mm)" in message_of(dicom.folder)


def test_copies_at_one_place_are_refused(dicom: Any) -> None:
    uid = generate_uid()
    dicom.series(STORED, SeriesInstanceUID=uid, prefix="A")
    dicom.series(STORED[:1], SeriesInstanceUID=uid, prefix="B")
    assert "several slices at the same place (30.0 mm)" in message_of(dicom.folder)


def test_mixed_sizes_are_refused(dicom: Any) -> None:
    uid = generate_uid()
    dicom.series(STORED[:3], SeriesInstanceUID=uid, prefix="A")
    dicom.series(STORED[3:, :4], SeriesInstanceUID=uid, origin=(0, 0, 60), prefix="B")
    assert "different sizes" in message_of(dicom.folder)


def test_mixed_orientations_are_refused(dicom: Any) -> None:
    uid = generate_uid()
    dicom.series(STORED[:3], SeriesInstanceUID=uid, prefix="A")
    dicom.series(STORED[3:], SeriesInstanceUID=uid, orientation=oblique(), prefix="B")
    assert "different orientations" in message_of(dicom.folder)


def test_mixed_pixel_spacings_are_refused(dicom: Any) -> None:
    uid = generate_uid()
    dicom.series(STORED[:3], SeriesInstanceUID=uid, prefix="A")
    dicom.series(
        STORED[3:], SeriesInstanceUID=uid, origin=(-10, -20, 36), PixelSpacing=[1, 1], prefix="B"
    )
    assert "different pixel spacing" in message_of(dicom.folder)


def test_a_tilted_gantry_is_refused(dicom: Any) -> None:
    uid = generate_uid()
    for i in range(5):
        dicom.slice(f"I{i}", STORED[i], position=(0, 0.5 * i, 2.0 * i), SeriesInstanceUID=uid)
    assert "shifted sideways" in message_of(dicom.folder)


def test_directions_off_the_right_angle_are_refused(dicom: Any) -> None:
    path = dicom.slice("skew.dcm", STORED[0], orientation=(1, 0, 0, 0.1, 1, 0))
    assert "right angles" in message_of(path)


def test_a_missing_pixel_spacing_is_refused(dicom: Any) -> None:
    path = dicom.slice("bare.dcm", STORED[0], PixelSpacing=None)
    assert "no PixelSpacing" in message_of(path)


def test_rounded_directions_become_orthonormal(dicom: Any) -> None:
    rounded = [round(v, 4) for v in oblique()]
    scan = read_scan(dicom.slice("a.dcm", STORED[0], orientation=rounded))
    matrix = scan.geometry.matrix
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix[:, 0], rounded[:3], atol=1e-3)


@pytest.mark.parametrize("part", [0.97, 0.6, 0.1, 0.05, 0.02])
def test_a_truncated_slice_is_told_by_name(dicom: Any, capfd: Any, part: float) -> None:
    path = dicom.series(np.tile(STORED, (1, 9, 9)))[2]
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    message = message_of(dicom.folder)
    assert path.name in message
    assert "truncated" in message
    assert message_of(path)
    assert capfd.readouterr().err == ""


def test_an_empty_slice_is_not_silently_left_out(dicom: Any) -> None:
    path = dicom.series(STORED, prefix="IM")[4].rename(dicom.folder / "last.dcm")
    path.write_bytes(b"")
    assert "last.dcm is empty" in message_of(dicom.folder)


@pytest.mark.parametrize(
    "broken",
    [
        {"PixelSpacing": [0.5, float("nan")]},
        {"ImagePositionPatient": [1, 2]},
        {"ImageOrientationPatient": [1, 0, 0]},
    ],
)
def test_senseless_numbers_in_the_header_are_told(dicom: Any, broken: dict[str, Any]) -> None:
    assert "damaged DICOM file" in message_of(dicom.slice("odd.dcm", STORED[0], **broken))


def test_objects_that_are_no_scans_are_refused_by_name(dicom: Any) -> None:
    path = dicom.write(
        "report.dcm", STORED[0], EncapsulatedPDFStorage, Rows=None, Columns=None, PixelData=None
    )
    assert "report.dcm is a DICOM file without an image" in message_of(path)
    path = dicom.write("seg.dcm", STORED[:2], SegmentationStorage, Modality="SEG")
    assert "seg.dcm is a segmentation" in message_of(path)


def test_slices_without_a_place_are_pictures_of_their_own(dicom: Any) -> None:
    uid = generate_uid()
    for i in range(2):
        dicom.write(
            f"CR{i}",
            STORED[i],
            ComputedRadiographyImageStorage,
            Modality="CR",
            SeriesInstanceUID=uid,
            PixelSpacing=[0.2, 0.1],
        )
    listed = list_series(dicom.folder)
    assert [s.n_slices for s in listed] == [1, 1]
    scan = read_scan(dicom.folder, series=listed[1].uid)
    assert np.array_equal(scan.pixels[0], STORED[1])
    assert scan.is_picture
    assert scan.spacing_known
    assert scan.geometry.spacing == (0.1, 0.2)
    assert not scan.is_anatomical


def test_inverted_radiographs_are_turned_but_not_measured_values(dicom: Any) -> None:
    inverted = {"PhotometricInterpretation": "MONOCHROME1"}
    path = dicom.write(
        "CR",
        STORED[0],
        ComputedRadiographyImageStorage,
        Modality="CR",
        BitsStored=12,
        HighBit=11,
        **inverted,
    )
    assert np.array_equal(read_scan(path).pixels[0], 4095 - STORED[0])
    path = dicom.slice("CT", STORED[0], **inverted)
    assert np.array_equal(read_scan(path).pixels[0], STORED[0].astype(int) - 1024)


def test_the_padding_of_twelve_bit_pixels_is_ignored(dicom: Any) -> None:
    bits = {"BitsStored": 12, "HighBit": 11}
    path = dicom.slice("a", STORED[0] | 0x8000, **bits)
    assert np.array_equal(read_scan(path).pixels[0], STORED[0].astype(int) - 1024)
    signed = STORED[0].astype(np.int16) - 2048
    path = dicom.slice("b", signed & 0xFFF, RescaleIntercept=0, **bits)
    assert np.array_equal(read_scan(path).pixels[0], signed)


def test_run_length_encoding_is_decoded(dicom: Any) -> None:
    stored = np.tile(STORED[0], (4, 4))
    path = dicom.slice("rle", stored, rle=True)
    assert np.array_equal(read_scan(path).pixels[0], stored.astype(int) - 1024)


def test_no_permission_to_one_slice(dicom: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicom.series(STORED)[2]
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert f"{path.name} cannot be opened: permission denied" in message_of(dicom.folder)
