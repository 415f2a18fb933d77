"""The three external scans, as a user would open and annotate them."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.orientation import EdgeLetters
from napari_fedsam.imaging.readers import list_series, read_mask, read_scan, read_segmentation
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure
from napari_fedsam.imaging.window import CT_PRESETS, default_window
from napari_fedsam.imaging.writers import write_mask

pytestmark = pytest.mark.data

SPLEEN = "scans/spleen_ct/ct.nii.gz"
BRAIN = "scans/brain1_mr/brain1_image.nrrd"
THORAX = "scans/totalseg_dicom/series"


@pytest.mark.parametrize("where", [SPLEEN, BRAIN, THORAX])
@pytest.mark.parametrize("suffix", ["nii.gz", "nii", "nrrd", "mha", "seg.nrrd"])
def test_masks_keep_the_geometry(
    data_folder: Path, tmp_path: Path, where: str, suffix: str
) -> None:
    scan = read_scan(data_folder / where)
    mask = scan.pixels > np.float32(50)
    path = tmp_path / f"mask.{suffix}"
    write_mask(mask, scan, path)
    found = Geometry.from_image(sitk.ReadImage(str(path)))
    assert found.matches(scan.geometry)
    assert np.array_equal(read_mask(path, scan), mask)


def with_identifiers(folder: Path, copy: Path) -> Scan:
    """Open a copy of the thorax whose emptied identifiers are filled in."""
    copy.mkdir()
    study, series = generate_uid(), generate_uid()
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.save_as(copy / file.name)
    return read_scan(copy)


@pytest.mark.parametrize("suffix", ["seg.nrrd", "dcm"])
def test_many_organs_come_back_from_files_with_names(
    data_folder: Path, tmp_path: Path, suffix: str
) -> None:
    scan = with_identifiers(data_folder / THORAX, tmp_path / "series")
    labels = read_mask(data_folder / "scans/totalseg_dicom/seg_multilabel.nii.gz", scan)
    path = tmp_path / f"organs.{suffix}"
    write_mask(labels, scan, path, [MaskStructure(1, "spleen", "#56b4e9")])
    back = read_segmentation(path, scan)
    assert np.array_equal(back.labels, labels)
    assert [each.value for each in back.structures] == np.unique(labels)[1:].tolist()
    assert back.structures[0] == MaskStructure(1, "spleen", "#56b4e9")


def test_a_series_without_identifiers_is_refused_as_a_source(
    data_folder: Path, tmp_path: Path
) -> None:
    scan = read_scan(data_folder / THORAX)
    with pytest.raises(ImagingError, match=r"lack identifiers .*: save the mask as \.seg\.nrrd"):
        write_mask(scan.pixels > 100, scan, tmp_path / "m.dcm")


@pytest.mark.parametrize("where", [SPLEEN, BRAIN, THORAX])
def test_are_shown_in_radiological_convention(data_folder: Path, where: str) -> None:
    scan = read_scan(data_folder / where)
    assert scan.slice_axis == 0
    assert scan.orientation.edge_letters(0) == EdgeLetters("R", "L", "A", "P")
    assert scan.orientation.display_spacing == scan.spacing


def test_the_jpeg_2000_series_holds_hounsfield_units(data_folder: Path) -> None:
    (series,) = list_series(data_folder / THORAX)
    assert (series.modality, series.n_slices, series.name) == ("CT", 20, "CT series")
    scan = read_scan(data_folder / THORAX)
    assert scan.pixels.shape == (20, 512, 512)
    assert scan.geometry.spacing == (0.9765625, 0.9765625, 2.0)
    assert scan.geometry.origin == (-249.51171875, -437.51171875, -804.5)
    assert scan.pixels.min() == -1024
    assert scan.patient_key is None
    assert default_window(scan) == CT_PRESETS["soft tissue"]


def test_a_flipped_mask_falls_on_the_organs_of_the_dicom_series(data_folder: Path) -> None:
    scan = read_scan(data_folder / THORAX)
    labels = read_mask(data_folder / "scans/totalseg_dicom/seg_multilabel.nii.gz", scan)
    # TotalSegmentator: 1 spleen, 5 liver (enhanced tissue); 69 and 70 are bone.
    assert 60 < scan.pixels[labels == 1].mean() < 120
    assert 60 < scan.pixels[labels == 5].mean() < 120
    assert scan.pixels[labels == 69].mean() > 300


def test_the_spleen_mask_falls_on_the_spleen_at_the_patients_left(data_folder: Path) -> None:
    scan = read_scan(data_folder / SPLEEN)
    mask = read_mask(data_folder / "scans/spleen_ct/spleen_seg_manual.nii.gz", scan)
    assert 60 < scan.pixels[mask > 0].mean() < 150
    shown = scan.orientation.to_display(mask)
    # The patient's left is at the right of the screen.
    assert np.nonzero(shown)[2].mean() > shown.shape[2] / 2
    assert default_window(scan) == CT_PRESETS["soft tissue"]


def test_the_brain_opens_between_its_percentiles(data_folder: Path) -> None:
    scan = read_scan(data_folder / BRAIN)
    window = default_window(scan)
    assert 0 < window.low < window.high < scan.pixels.max()
    labels = read_mask(data_folder / "scans/brain1_mr/brain1_label.nrrd", scan)
    assert labels.any()


def test_a_fingerprint_tells_the_scans_apart(data_folder: Path) -> None:
    found = {read_scan(data_folder / where).fingerprint for where in (SPLEEN, BRAIN, THORAX)}
    assert len(found) == 3
