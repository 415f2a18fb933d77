"""Masks as DICOM segmentations (SEG) that refer to the series they were made on."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from napari_fedsam import __version__
from napari_fedsam.imaging.dicom_geometry import stack_geometry
from napari_fedsam.imaging.dicom_headers import read_header
from napari_fedsam.imaging.dicom_seg_codes import segment_description
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure, present_values
from napari_fedsam.imaging.silence import silent_pydicom

_PASSED_ON = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""Attributes that a segmentation must share with its series, empty where the series has none."""

_REFERRED_TO = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "StudyDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
)

_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

_SERIES_OFFSET = 1000
"""Added to the scan's series number, so that the two lie together and differ."""

_INSTEAD = "save the mask as .seg.nrrd, .nii.gz or .mha instead"


def require_dicom_source(scan: Scan, path: Path) -> None:
    """Check that a scan was read from DICOM files that know their place in the patient.

    Raises
    ------
    ImagingError
        If not; `path` is the file that was to be written.
    """
    if not scan.dicom_files:
        raise ImagingError(
            f"{path.name} cannot be a DICOM segmentation because {scan.name} was not read from "
            f"DICOM files: {_INSTEAD}."
        )
    if not scan.is_anatomical or not scan.frame_of_reference:
        raise ImagingError(
            f"{path.name} cannot be a DICOM segmentation because {scan.name} does not say where "
            f"it lies in the patient (no frame of reference): {_INSTEAD}, or .png for a picture."
        )


def write_dicom_segmentation(
    labels: NDArray[Any], scan: Scan, structures: tuple[MaskStructure, ...], path: Path
) -> None:
    """Write the structures that are present as segments of a binary segmentation.

    The file carries the patient's and the study's attributes, as it must to be filed with its
    series. Each frame lies where its source slice does.

    Parameters
    ----------
    labels : ndarray of uint8 or uint16
        Shape (z, y, x) of the scan.
    scan : Scan
        One that passes `require_dicom_source`, and whose files are still there.
    structures : tuple of MaskStructure
        One for each value in the mask.
    path : Path
        Ends in .dcm.

    Raises
    ------
    ImagingError
        If the mask is empty, the files have changed, or the series lacks what the format needs.
    """
    present = present_values(labels)
    if not present:
        raise ImagingError(
            f"{path.name} would be empty, which a DICOM segmentation cannot be: segment "
            "something first."
        )
    order = _file_order(scan, path)
    with silent_pydicom():
        sources = _sources(scan, path)
        # Segments are counted without gaps.
        numbers = np.zeros(present[-1] + 1, labels.dtype)
        numbers[present] = np.arange(1, len(present) + 1)
        frames = np.zeros(labels.shape, labels.dtype)
        frames[order] = numbers[labels]
        segments = [each for each in structures if each.value in present]
        try:
            _segmentation(frames, sources, segments).save_as(path)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ImagingError(
                f"{path.name} could not be made because the headers of {scan.name} lack what a "
                f"DICOM segmentation needs: {_INSTEAD}."
            ) from error


def _file_order(scan: Scan, path: Path) -> list[int]:
    """Return, for each slice of the scan, its place among the frames of its files."""
    headers = [read_header(file) for file in scan.dicom_files]
    known = [header for header in headers if header is not None and header.is_placed]
    places = [place for header in known for place in header.places]
    if len(known) == len(headers) and len(places) == scan.shape[0]:
        first = known[0]
        geometry, order = stack_geometry(
            places, first.rows, first.columns, first.thickness, scan.name
        )
        if geometry == scan.geometry:
            return order
    raise ImagingError(
        f"{path.name} was not saved because the files of {scan.name} have changed since it was "
        "opened: open the series again."
    )


def _sources(scan: Scan, path: Path) -> list[Any]:
    """Read the files of a scan, which must say which study, series and image they are."""
    sources = [_source(file) for file in scan.dicom_files]
    if not all(source.get(keyword) for source in sources for keyword in _IDENTIFIERS):
        raise ImagingError(
            f"{path.name} cannot be a DICOM segmentation because the files of {scan.name} lack "
            f"identifiers to refer to (removed by an anonymiser, perhaps): {_INSTEAD}."
        )
    return sources


def _source(file: Path) -> Any:
    """Read what a segmentation takes over from a file, or refers to."""
    with explained_access(file):
        dataset = pydicom.dcmread(
            file, stop_before_pixels=True, specific_tags=[*_PASSED_ON, *_REFERRED_TO]
        )
    # Some anonymisers empty these in the data set alone.
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if not dataset.get(keyword):
            setattr(dataset, keyword, dataset.file_meta.get(f"MediaStorage{keyword}", ""))
    for keyword in _PASSED_ON:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    return dataset


def _segmentation(frames: NDArray[Any], sources: list[Any], structures: list[MaskStructure]) -> Any:
    """Return the `highdicom.seg.Segmentation` of frames in the order of the sources' frames."""
    import highdicom

    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            segment_description(number, structure, __version__)
            for number, structure in enumerate(structures, start=1)
        ],
        series_instance_uid=generate_uid(),
        series_number=_SERIES_OFFSET + int(sources[0].get("SeriesNumber") or 0),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="napari-fedsam developers",
        manufacturer_model_name="napari-fedsam",
        software_versions=__version__,
        # Required, but nothing that would identify this machine.
        device_serial_number="none",
        content_label="SEGMENTATION",
        content_description="Research use only",
        # Required, and may be empty: who segmented stays at the site.
        content_creator_name="",
        series_description="napari-fedsam segmentation, research use only",
        # Structures may have names in any script.
        specific_character_set="ISO_IR 192",
    )
