"""DICOM segmentations: exact round trips, read by others, put in place by coordinates."""

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation

from napari_fedsam import __version__
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.mask_formats import is_segmentation
from napari_fedsam.imaging.readers import read_mask, read_scan, read_segmentation
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure
from napari_fedsam.imaging.writers import write_mask

SHAPE = (4, 5, 7)
LABELS = np.random.default_rng(2).choice([0, 2, 9], SHAPE).astype(np.uint8)
STRUCTURES = (
    MaskStructure(2, "Spleen", "#56b4e9"),
    MaskStructure(5, "not drawn", "#ffffff"),
    MaskStructure(9, "Größe 脾 " + "x" * 60, "#0102fe"),
)
OBLIQUE = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
SAGITTAL = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], float)
FRAME = generate_uid()


def series(dicom: Any, matrix: np.ndarray | None = None, **attributes: Any) -> Scan:
    """Write a series, in oblique orientation by default, and open it."""
    matrix = OBLIQUE if matrix is None else matrix
    shared = {"FrameOfReferenceUID": FRAME, "SpecificCharacterSet": "ISO_IR 100"}
    dicom.series(
        np.zeros(SHAPE, np.uint16),
        orientation=[*matrix[:, 0], *matrix[:, 1]],
        spacing=3.0,
        **(shared | attributes),
    )
    return read_scan(dicom.folder)


@pytest.mark.parametrize("matrix", [OBLIQUE, SAGITTAL, np.eye(3)])
def test_labels_names_and_colours_come_back(dicom: Any, tmp_path: Path, matrix: np.ndarray) -> None:
    scan = series(dicom, matrix)
    write_mask(LABELS, scan, tmp_path / "m.dcm", STRUCTURES)
    back = read_segmentation(tmp_path / "m.dcm", scan)
    assert np.array_equal(back.labels, LABELS)
    assert back.structures == (STRUCTURES[0], STRUCTURES[2])


def test_it_refers_to_the_series(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom, PatientName="Müller^Änne")
    write_mask(LABELS, scan, tmp_path / "m.dcm", STRUCTURES)
    found = pydicom.dcmread(tmp_path / "m.dcm")
    source = pydicom.dcmread(scan.dicom_files[0])
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert found[keyword].value == source[keyword].value
    (referred,) = found.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == source.SeriesInstanceUID != found.SeriesInstanceUID
    uids = {pydicom.dcmread(file).SOPInstanceUID for file in scan.dicom_files}
    assert {each.ReferencedSOPInstanceUID for each in referred.ReferencedInstanceSequence} == uids
    first = found.SegmentSequence[0]
    assert first.SegmentAlgorithmType == "SEMIAUTOMATIC"
    (algorithm,) = first.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "napari-fedsam"
    assert algorithm.AlgorithmVersion == __version__
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "78961009"
    assert found.SegmentSequence[1].SegmentLabel == ("Größe 脾 " + "x" * 60)[:64]
    assert (found.Modality, found.SegmentationType) == ("SEG", "BINARY")


def test_highdicom_puts_it_where_the_scan_is(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom)
    write_mask(LABELS, scan, tmp_path / "m.dcm", STRUCTURES)
    volume = highdicom.seg.segread(tmp_path / "m.dcm").get_volume(combine_segments=True)
    for segment, value in ((1, 2), (2, 9)):
        where = volume.map_indices_to_reference(np.argwhere(volume.array == segment))
        indices = scan.geometry.world_to_index(where)
        np.testing.assert_allclose(indices, np.rint(indices), atol=1e-5)
        found = np.zeros(SHAPE, np.bool_)
        found[tuple(np.rint(indices).astype(int).T[::-1])] = True
        assert np.array_equal(found, value == LABELS)


def test_frames_lie_where_the_source_slices_do(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom)
    write_mask(np.ones(SHAPE, np.uint8), scan, tmp_path / "m.dcm")
    found = pydicom.dcmread(tmp_path / "m.dcm")
    by_uid = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, scan.dicom_files)}
    for group in found.PerFrameFunctionalGroupsSequence:
        referred = group.DerivationImageSequence[0].SourceImageSequence[0]
        source = by_uid[referred.ReferencedSOPInstanceUID]
        assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient


def test_another_scan_in_the_same_frame_gets_it_by_coordinates(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom)
    write_mask(LABELS, scan, tmp_path / "m.dcm")
    axes, flipped = (2, 0, 1), (True, False, True)
    turned = Scan(
        np.zeros(scan.geometry.reindexed(axes, flipped).array_shape, np.int16),
        scan.geometry.reindexed(axes, flipped),
        "turned",
        Path("turned.nii"),
        frame_of_reference=FRAME,
    )
    by_x_y_z = LABELS.transpose(2, 1, 0).transpose(axes)
    expected = by_x_y_z[tuple(slice(None, None, -1 if f else 1) for f in flipped)]
    assert np.array_equal(read_mask(tmp_path / "m.dcm", turned), expected.transpose(2, 1, 0))


def _part(scan: Scan) -> Scan:
    geometry = scan.geometry
    origin = tuple(float(v) for v in geometry.index_to_world((0, 1, 0)))
    size = (geometry.size[0], 3, geometry.size[2])
    part = Geometry(size, geometry.spacing, origin, geometry.direction)
    return Scan(np.zeros(part.array_shape, np.int16), part, "part", Path("part.nii"))


def test_a_nifti_copy_of_the_scan_gets_it_too(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom)
    write_mask(LABELS, scan, tmp_path / "m.dcm")
    copy = Scan(scan.pixels, scan.geometry, "copy", Path("copy.nii"))
    assert np.array_equal(read_mask(tmp_path / "m.dcm", copy), LABELS)
    with pytest.raises(ImagingError, match=r"m\.dcm has another size or position than part"):
        read_mask(tmp_path / "m.dcm", _part(scan))


def test_another_frame_of_reference_is_refused(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom)
    write_mask(LABELS, scan, tmp_path / "m.dcm")
    other = Scan(
        scan.pixels, scan.geometry, "CT series 4", Path("x"), frame_of_reference=generate_uid()
    )
    with pytest.raises(ImagingError, match=r"m\.dcm refers to another frame of ref.* CT series 4"):
        read_mask(tmp_path / "m.dcm", other)


def test_an_enhanced_multi_frame_object_is_a_source(dicom: Any, tmp_path: Path) -> None:
    # Frames in another order than their places.
    heights = (8.0, 0.0, 12.0, 4.0)
    path = dicom.enhanced(
        "mr.dcm",
        np.zeros(SHAPE, np.uint16),
        [(0, 0, z) for z in heights],
        FrameOfReferenceUID=FRAME,
    )
    scan = read_scan(path)
    write_mask(LABELS, scan, tmp_path / "m.dcm", STRUCTURES)
    assert np.array_equal(read_mask(tmp_path / "m.dcm", scan), LABELS)
    found = pydicom.dcmread(tmp_path / "m.dcm")
    for group in found.PerFrameFunctionalGroupsSequence:
        frame = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert heights[int(frame) - 1] == group.PlanePositionSequence[0].ImagePositionPatient[2]


def test_a_single_slice_is_a_source(dicom: Any, tmp_path: Path) -> None:
    path = dicom.slice("one.dcm", np.zeros((5, 7), np.uint16), FrameOfReferenceUID=FRAME)
    scan = read_scan(path)
    write_mask(LABELS[:1], scan, tmp_path / "m.dcm")
    assert np.array_equal(read_mask(tmp_path / "m.dcm", scan), LABELS[:1])


def test_slightly_uneven_slices_find_their_places(dicom: Any, tmp_path: Path) -> None:
    series_uid = generate_uid()
    for index, z in enumerate((0.0, 2.05, 3.95, 6.0)):
        dicom.slice(
            f"s{index}",
            np.zeros((5, 7), np.uint16),
            position=(0, 0, z),
            FrameOfReferenceUID=FRAME,
            SeriesInstanceUID=series_uid,
        )
    scan = read_scan(dicom.folder)
    write_mask(LABELS, scan, tmp_path / "m.dcm")
    assert np.array_equal(read_mask(tmp_path / "m.dcm", scan), LABELS)


@pytest.mark.parametrize("overlap", [False, True])
def test_segmentations_of_others_are_read(dicom: Any, tmp_path: Path, overlap: bool) -> None:
    scan = series(dicom)
    planes = np.stack([LABELS == 2, (LABELS == 9) | overlap], axis=-1).astype(np.uint8)
    _write_other(scan, planes, "BINARY", tmp_path / "other")
    if overlap:
        with pytest.raises(ImagingError, match=r"other holds .* overlap \('a' and 'b'\)"):
            read_mask(tmp_path / "other", scan)
        alone = read_segmentation(tmp_path / "other", scan, wanted="A")
        assert np.array_equal(alone.labels, LABELS == 2)
        return
    back = read_segmentation(tmp_path / "other", scan)
    assert np.array_equal(back.labels, np.where(LABELS == 9, 2, LABELS // 2))
    assert [(each.value, each.name) for each in back.structures] == [(1, "a"), (2, "b")]


def test_label_maps_are_read(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom)
    numbers = np.where(LABELS == 9, 2, LABELS // 2).astype(np.uint8)
    _write_other(scan, numbers, "LABELMAP", tmp_path / "map.dcm")
    assert np.array_equal(read_mask(tmp_path / "map.dcm", scan), numbers)


def test_fractions_are_refused(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom)
    planes = np.stack([LABELS == 2, LABELS == 9], axis=-1) * 0.4
    _write_other(scan, planes, "FRACTIONAL", tmp_path / "soft.dcm")
    with pytest.raises(ImagingError, match=r"soft\.dcm holds fractions"):
        read_mask(tmp_path / "soft.dcm", scan)


def _write_other(scan: Scan, planes: np.ndarray, kind: str, path: Path) -> None:
    """Write what another program would: no notes of ours, no colours."""
    sources = [pydicom.dcmread(file) for file in scan.dicom_files]
    sources.sort(key=lambda each: np.dot(each.ImagePositionPatient, scan.geometry.matrix[:, 2]))
    for source in sources:
        for keyword in (
            "PatientBirthDate",
            "PatientSex",
            "AccessionNumber",
            "StudyID",
            "StudyDate",
            "StudyTime",
        ):
            setattr(source, keyword, "")
    tissue = pydicom.sr.codedict.codes.SCT.Tissue
    highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=planes,
        segmentation_type=kind,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(number, label, tissue, tissue, "MANUAL")
            for number, label in ((1, "a"), (2, "b"))
        ],
        series_instance_uid=generate_uid(),
        series_number=7,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="other",
        manufacturer_model_name="other",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)


def test_a_scan_that_is_not_dicom_is_refused(tmp_path: Path) -> None:
    scan = Scan(np.zeros(SHAPE, np.int16), Geometry.identity((7, 5, 4)), "ct", Path("ct.nii"))
    with pytest.raises(ImagingError, match=r"^m\.dcm .* ct was not .* \.seg\.nrrd, \.nii\.gz or"):
        write_mask(LABELS, scan, tmp_path / "m.dcm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("attributes", [{"FrameOfReferenceUID": None}])
def test_a_series_without_a_frame_of_reference_is_refused(
    dicom: Any, tmp_path: Path, attributes: dict[str, Any]
) -> None:
    scan = series(dicom, **attributes)
    with pytest.raises(ImagingError, match=r"no frame of reference\): save the mask as"):
        write_mask(LABELS, scan, tmp_path / "m.dcm")


def test_an_ultrasound_picture_is_refused(dicom: Any, tmp_path: Path) -> None:
    scan = read_scan(dicom.picture("us.dcm", np.zeros((5, 7), np.uint8)))
    with pytest.raises(ImagingError, match=r"\.png for a picture"):
        write_mask(LABELS[:1], scan, tmp_path / "m.dcm")


def test_an_empty_mask_is_refused(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom)
    with pytest.raises(ImagingError, match=r"m\.dcm would be empty"):
        write_mask(LABELS * 0, scan, tmp_path / "m.dcm")


@pytest.mark.parametrize("change", ["gone", "moved"])
def test_a_series_that_changed_meanwhile_is_refused(
    dicom: Any, tmp_path: Path, change: str
) -> None:
    scan = series(dicom)
    if change == "gone":
        scan.dicom_files[0].unlink()
    else:
        dataset = pydicom.dcmread(scan.dicom_files[0])
        dataset.ImagePositionPatient = [v + 0.05 for v in dataset.ImagePositionPatient]
        dataset.save_as(scan.dicom_files[0])
    with pytest.raises(ImagingError, match=r"does not exist|have changed since"):
        write_mask(LABELS, scan, tmp_path / "m.dcm")


@pytest.mark.parametrize("attributes", [{"StudyInstanceUID": None}, {"SeriesInstanceUID": ""}])
def test_a_series_without_identifiers_is_refused(
    dicom: Any, tmp_path: Path, attributes: dict[str, Any]
) -> None:
    scan = series(dicom, **attributes)
    with pytest.raises(ImagingError, match="the files of CT series 3 lack identifiers"):
        write_mask(LABELS, scan, tmp_path / "m.dcm")


def test_headers_that_do_not_do_are_told_without_quoting_them(
    dicom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = series(dicom)

    def refuse(**arguments: Any) -> None:
        raise ValueError(str(arguments["source_images"][0].PatientName))

    monkeypatch.setattr(highdicom.seg, "Segmentation", refuse)
    with pytest.raises(ImagingError, match="the headers of CT series 3 lack what") as caught:
        write_mask(LABELS, scan, tmp_path / "m.dcm")
    assert "PLANTED" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_instances_are_known_from_the_file_where_an_anonymiser_emptied_them(
    dicom: Any, tmp_path: Path
) -> None:
    series(dicom)
    for file in dicom.folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SOPClassUID = dataset.SOPInstanceUID = ""
        dataset.save_as(file)
    scan = read_scan(dicom.folder)
    write_mask(LABELS, scan, tmp_path / "m.dcm")
    referred = pydicom.dcmread(tmp_path / "m.dcm").ReferencedSeriesSequence[0]
    assert all(each.ReferencedSOPInstanceUID for each in referred.ReferencedInstanceSequence)
    assert np.array_equal(read_mask(tmp_path / "m.dcm", scan), LABELS)


@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.6, 0.999])
def test_a_truncated_file_is_told(dicom: Any, tmp_path: Path, part: float, capfd: Any) -> None:
    scan = series(dicom)
    path = tmp_path / "cut.dcm"
    write_mask(LABELS, scan, path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ImagingError, match=r"^cut\.dcm .*(damaged|no segmentation).*\.$"):
        read_mask(path, scan)
    assert capfd.readouterr() == ("", "")


def test_a_segmentation_is_known_by_its_first_bytes(dicom: Any, tmp_path: Path) -> None:
    scan = series(dicom)
    write_mask(LABELS, scan, tmp_path / "m.dcm")
    without_suffix = (tmp_path / "m.dcm").rename(tmp_path / "IM0001")
    assert is_segmentation(without_suffix)
    assert is_segmentation(tmp_path / "any.seg.nrrd")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "odd.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    for path in (scan.dicom_files[0], tmp_path / "gone", tmp_path, *tmp_path.glob("*.dcm")):
        assert not is_segmentation(path)


def test_an_image_is_no_segmentation(dicom: Any) -> None:
    scan = series(dicom)
    with pytest.raises(ImagingError, match=r"is a DICOM file but no segmentation"):
        read_mask(scan.dicom_files[0], scan)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("SegmentSequence", []),
        ("NumberOfFrames", 3),
        ("PerFrameFunctionalGroupsSequence", []),
        ("SegmentSequence", None),
        ("SharedFunctionalGroupsSequence", []),
        ("Rows", 500),
    ],
)
def test_a_contradictory_header_is_told(
    dicom: Any, tmp_path: Path, keyword: str, value: Any
) -> None:
    scan = series(dicom)
    path = tmp_path / "odd.dcm"
    write_mask(LABELS, scan, path)
    dataset = pydicom.dcmread(path)
    if value is None:
        del dataset[keyword]
    else:
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    with pytest.raises(ImagingError, match=r"^odd\.dcm .*(damaged|position).*\.$"):
        read_mask(path, scan)
