"""What we read of a DICOM header: an allow-list of tags, checked and typed.

Nothing else of the header ever enters memory, so that nothing else can leak.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import UID

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access
from napari_fedsam.imaging.silence import silent_pydicom

ALLOWED_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "PatientID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsStored",
    "RescaleSlope",
    "RescaleIntercept",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "PixelAspectRatio",
    "SpacingBetweenSlices",
    "SliceThickness",
    "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""Keywords of the DICOM attributes that are read; of sequences, only the items named below."""

Floats = tuple[float, ...]
_CENTIMETRES = 3
_TWO_DIMENSIONAL_REGION = 1


@dataclass(frozen=True)
class FramePlace:
    """Where one slice or frame lies, and how its stored values become real ones.

    Attributes
    ----------
    position : tuple of 3 float, or None
        ImagePositionPatient: the centre of the first pixel in mm (LPS).
    orientation : tuple of 6 float, or None
        ImageOrientationPatient: directions along a row, then down a column.
    pixel_spacing : tuple of 2 float, or None
        PixelSpacing: mm between rows, then between columns.
    rescale : tuple of 2 float
        Slope and intercept.
    """

    position: Floats | None
    orientation: Floats | None
    pixel_spacing: Floats | None
    rescale: tuple[float, float]

    @property
    def is_placed(self) -> bool:
        """Whether position and orientation are known."""
        return self.position is not None and self.orientation is not None


@dataclass(frozen=True)
class Header:
    """The allowed part of one DICOM image file's header.

    Attributes
    ----------
    path : Path
        The file.
    sop_class, transfer_syntax, instance_uid : str
        As in the file; "" when empty.
    series_key : tuple of str
        The same for files of one series, even where an anonymiser emptied the UIDs.
    series_uid, modality, description : str
        "" when empty.
    series_number : int or None
        SeriesNumber.
    frame_of_reference : str
        FrameOfReferenceUID: files with the same one share their coordinates; "" when empty.
    patient_id : str or None
        PatientID; never shown.
    rows, columns, frames, samples, bits_stored : int
        The extent of the pixel data.
    photometric : str
        PhotometricInterpretation.
    places : tuple of FramePlace
        One for each frame; one for a classic multi-frame object, whose frames share it.
    has_functional_groups : bool
        Whether this is an enhanced multi-frame object.
    thickness : float or None
        Distance between slices where the positions cannot tell: SpacingBetweenSlices, else
        SliceThickness.
    aspect : float
        Height of a pixel divided by its width, where spacing is unknown.
    ultrasound_spacing : tuple of 2 float, or None
        mm between rows and columns, where all calibrated regions agree.
    """

    path: Path = field(repr=False)
    sop_class: str
    transfer_syntax: str
    instance_uid: str
    series_key: tuple[str, ...] = field(repr=False)
    series_uid: str
    modality: str
    description: str = field(repr=False)
    series_number: int | None
    frame_of_reference: str
    patient_id: str | None = field(repr=False)
    rows: int
    columns: int
    frames: int
    samples: int
    bits_stored: int
    photometric: str
    places: tuple[FramePlace, ...]
    has_functional_groups: bool
    thickness: float | None
    aspect: float
    ultrasound_spacing: Floats | None

    @property
    def is_placed(self) -> bool:
        """Whether every frame has a place in the patient."""
        frames_placed = self.frames == 1 or self.has_functional_groups
        return frames_placed and all(place.is_placed for place in self.places)


def read_header(path: Path) -> Header | None:
    """Read the allowed tags of a DICOM file.

    Returns
    -------
    Header or None
        None for DICOM files that hold no image (reports, structures, directories).

    Raises
    ------
    ImagingError
        If the file cannot be opened, or its header is damaged or cut off.
    """
    with silent_pydicom():
        return _read_header(path)


def _read_header(path: Path) -> Header | None:
    dataset = _read_allowed(path)
    # pydicom converts values only when they are asked for: a damaged one shows here.
    damage = (TypeError, ValueError, AttributeError, OverflowError, NotImplementedError)
    try:
        return _checked_header(dataset, path)
    except damage as error:
        raise _damaged(path) from error


def _checked_header(dataset: Any, path: Path) -> Header | None:
    meta = dataset.file_meta
    sop_class = str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    if not dataset.get("Rows") or not dataset.get("Columns"):
        # Cut off before the size of the image, or even within the file meta information.
        if "Image Storage" in UID(sop_class).name or not meta.get("TransferSyntaxUID"):
            raise _damaged(path)
        return None
    return _header(dataset, path, sop_class)


def _read_allowed(path: Path) -> Any:
    with explained_access(path):
        try:
            dataset = pydicom.dcmread(
                path, stop_before_pixels=True, specific_tags=list(ALLOWED_TAGS)
            )
            # Values are converted on first access, which may fail, too.
            for keyword in ALLOWED_TAGS:
                dataset.get(keyword)
        except OSError:
            raise
        except Exception as error:
            raise _damaged(path) from error
    return dataset


def _damaged(path: Path) -> ImagingError:
    return ImagingError(
        f"{path.name} is a truncated or damaged DICOM file: copy or export it again."
    )


def _header(dataset: Any, path: Path, sop_class: str) -> Header:
    frames = int(dataset.get("NumberOfFrames") or 1)
    places = frame_places(dataset, frames)
    uids = [str(dataset.get(key) or "") for key in ("StudyInstanceUID", "SeriesInstanceUID")]
    number = dataset.get("SeriesNumber")
    modality = str(dataset.get("Modality") or "").strip().upper()
    description = str(dataset.get("SeriesDescription") or "").strip()
    patient_id = str(dataset.get("PatientID") or "").strip() or None
    frame_of_reference = str(dataset.get("FrameOfReferenceUID") or "")
    spare_key = (str(number), modality, description, frame_of_reference)
    return Header(
        path=path,
        sop_class=sop_class,
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID") or ""),
        instance_uid=str(dataset.get("SOPInstanceUID") or ""),
        series_key=(patient_id or "", *uids, *(() if uids[1] else spare_key)),
        series_uid=uids[1],
        modality=modality,
        description=description,
        series_number=None if number is None else int(number),
        frame_of_reference=frame_of_reference,
        patient_id=patient_id,
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=frames,
        samples=int(dataset.get("SamplesPerPixel") or 1),
        bits_stored=int(dataset.get("BitsStored") or 8),
        photometric=str(dataset.get("PhotometricInterpretation") or ""),
        places=places,
        has_functional_groups=bool(dataset.get("PerFrameFunctionalGroupsSequence")),
        thickness=_positive(dataset, "SpacingBetweenSlices")
        or _positive(dataset, "SliceThickness")
        or _positive(
            _item(dataset, "SharedFunctionalGroupsSequence", "PixelMeasuresSequence"),
            "SpacingBetweenSlices",
        )
        or _positive(
            _item(dataset, "SharedFunctionalGroupsSequence", "PixelMeasuresSequence"),
            "SliceThickness",
        ),
        aspect=_aspect(dataset),
        ultrasound_spacing=_ultrasound_spacing(dataset),
    )


def frame_places(dataset: Any, frames: int) -> tuple[FramePlace, ...]:
    """Return where each frame of a dataset lies; one place where all share the same.

    Raises
    ------
    ValueError
        If the header contradicts itself.
    """
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return (_place(dataset, dataset, dataset, dataset),)
    if len(per_frame) != frames:
        raise ValueError("the functional groups do not fit the number of frames")
    shared = _item(dataset, "SharedFunctionalGroupsSequence")
    macros = (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
    )
    return tuple(
        _place(*(_item(frame, macro) or _item(shared, macro) for macro in macros))
        for frame in per_frame
    )


def _place(position: Any, orientation: Any, measures: Any, transformation: Any) -> FramePlace:
    slope = _floats(transformation, "RescaleSlope", 1)
    intercept = _floats(transformation, "RescaleIntercept", 1)
    return FramePlace(
        _floats(position, "ImagePositionPatient", 3),
        _floats(orientation, "ImageOrientationPatient", 6),
        _spacing(measures),
        (slope[0] if slope else 1.0, intercept[0] if intercept else 0.0),
    )


def _item(dataset: Any, *keywords: str) -> Any:
    """Go down the first items of nested sequences; an empty dataset where one is missing."""
    for keyword in keywords:
        sequence = dataset.get(keyword)
        if not sequence:
            return pydicom.Dataset()
        dataset = sequence[0]
    return dataset


def _floats(dataset: Any, keyword: str, count: int) -> Floats | None:
    """Return `count` numbers, None where the attribute is absent or empty."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    numbers = tuple(float(v) for v in (value if count > 1 else [value]))
    if not numbers:
        return None
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{keyword} needs {count} finite numbers")
    return numbers


def _positive(dataset: Any, keyword: str) -> float | None:
    numbers = _floats(dataset, keyword, 1)
    # Some scanners write the spacing with the sign of the direction.
    return abs(numbers[0]) if numbers and numbers[0] else None


def _spacing(dataset: Any) -> Floats | None:
    numbers = _floats(dataset, "PixelSpacing", 2)
    return numbers if numbers and min(numbers) > 0 else None


def _aspect(dataset: Any) -> float:
    ratio = _floats(dataset, "PixelAspectRatio", 2)
    return ratio[0] / ratio[1] if ratio and min(ratio) > 0 else 1.0


def _ultrasound_spacing(dataset: Any) -> Floats | None:
    """Return the calibration of an ultrasound image (PS3.3 C.8.5.5) if there is just one."""
    found = set()
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        if region.get("RegionSpatialFormat") != _TWO_DIMENSIONAL_REGION:
            continue
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        across, down = _positive(region, "PhysicalDeltaX"), _positive(region, "PhysicalDeltaY")
        if units != (_CENTIMETRES, _CENTIMETRES) or across is None or down is None:
            return None
        found.add((10 * down, 10 * across))
    return found.pop() if len(found) == 1 else None
