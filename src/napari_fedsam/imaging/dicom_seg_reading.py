"""DICOM segmentations (SEG) put on a scan's grid by their coordinates in the patient."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.filereader import read_partial
from pydicom.pixels import iter_pixels
from pydicom.uid import UID

from napari_fedsam.imaging.dicom_headers import FramePlace, frame_places
from napari_fedsam.imaging.dicom_seg_codes import structures_by_segment
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access, is_dicom
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.label_volumes import lies_elsewhere
from napari_fedsam.imaging.placement import place_block
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import LabelCanvas, MaskStructure, Segmentation
from napari_fedsam.imaging.silence import silent_pydicom

_TOLERANCE = 0.26
"""How far (in voxels) a frame may be from the grid: slices of a series may be as unevenly
spaced, and the scan's grid is the even one."""

_MODALITY = 0x00080060

_ALLOWED_TAGS = (
    "SOPClassUID",
    "Modality",
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "BitsAllocated",
    "SegmentationType",
    "SegmentSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


@dataclass(frozen=True)
class _SegHeader:
    is_packed: bool
    frame_of_reference: str
    rows: int
    columns: int
    places: tuple[FramePlace, ...]
    segments: tuple[int | None, ...]
    structures: dict[int, MaskStructure]


def read_dicom_segmentation(path: Path, scan: Scan, wanted: str | None = None) -> Segmentation:
    """Read a segmentation that lies on a scan's grid.

    Binary segmentations and label maps are read. A frame may cover a part of the grid, or have
    its axes turned. A scan that knows its frame of reference must share it; any other scan
    (NIfTI, say) only needs to have its voxels at the same places. Of several structures, one may
    be `wanted` alone.

    Raises
    ------
    ImagingError
        If the file is no segmentation, is damaged, refers to another frame of reference, lies
        elsewhere, or its segments overlap.
    """
    with explained_access(path):
        if not is_dicom(path):
            raise ImagingError(
                f"{path.name} is empty, damaged or no DICOM file: copy or export it again."
            )
    with silent_pydicom():
        header = _read_header(path)
        _require_same_reference(header, scan, path)
        return Segmentation(
            _drawn(header, scan, path, wanted),
            tuple(sorted(header.structures.values(), key=lambda each: each.value)),
        )


def is_dicom_segmentation(path: Path) -> bool:
    """Say whether a DICOM file's modality is SEG, reading no further; False when damaged.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """
    with silent_pydicom(), path.open("rb") as handle:
        try:
            beginning = read_partial(handle, stop_when=lambda tag, *_: tag > _MODALITY)
            return bool(beginning.get("Modality") == "SEG")
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - whatever pydicom stumbles over, it is no SEG for us
            return False


def _read_header(path: Path) -> _SegHeader:
    try:
        with explained_access(path):
            dataset = pydicom.dcmread(
                path, stop_before_pixels=True, specific_tags=list(_ALLOWED_TAGS)
            )
        kind = str(dataset.get("SegmentationType") or "")
        if not kind and dataset.get("Modality") != "SEG":
            raise ImagingError(
                f"{path.name} is a DICOM file but no segmentation: choose a DICOM SEG file."
            )
        if kind == "FRACTIONAL":
            raise ImagingError(
                f"{path.name} holds fractions, but a mask is yes or no: export it as a binary "
                "segmentation."
            )
        if kind not in ("BINARY", "LABELMAP"):
            raise _damaged(path)
        frames = int(dataset.NumberOfFrames)
        return _SegHeader(
            is_packed=_is_packed(dataset),
            frame_of_reference=str(dataset.get("FrameOfReferenceUID") or ""),
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            places=frame_places(dataset, frames),
            segments=_segments_of_frames(dataset),
            structures=structures_by_segment(dataset.SegmentSequence),
        )
    except ImagingError:
        raise
    except Exception as error:
        raise _damaged(path) from error


def _is_packed(dataset: Any) -> bool:
    """Say whether the voxels are single bits, eight in a byte."""
    return (
        int(dataset.BitsAllocated) == 1
        and not UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated
    )


def _segments_of_frames(dataset: Any) -> tuple[int | None, ...]:
    """Return the segment that each frame shows; None in a label map, which shows all."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    found: list[int | None] = []
    for group in dataset.PerFrameFunctionalGroupsSequence:
        named = group.get("SegmentIdentificationSequence") or shared.get(
            "SegmentIdentificationSequence"
        )
        found.append(int(named[0].ReferencedSegmentNumber) if named else None)
    return tuple(found)


def _require_same_reference(header: _SegHeader, scan: Scan, path: Path) -> None:
    if scan.frame_of_reference and header.frame_of_reference != scan.frame_of_reference:
        raise ImagingError(
            f"{path.name} refers to another frame of reference than {scan.name} (another "
            "examination, or the patient was moved): open the series that it was made on."
        )
    if len(header.places) != len(header.segments) or not all(
        place.is_placed and place.pixel_spacing for place in header.places
    ):
        raise ImagingError(
            f"{path.name} does not say where its frames lie in the patient: export it again with "
            "its positions, or as NRRD."
        )


def _drawn(header: _SegHeader, scan: Scan, path: Path, wanted: str | None) -> NDArray[np.uint16]:
    canvas = LabelCanvas(scan.shape, path.name, header.structures.values(), wanted)
    for place, segment, frame in zip(
        header.places, header.segments, _frames(header, path), strict=True
    ):
        placement = place_block(_geometry(place, header, path), scan.geometry, _TOLERANCE)
        part = None if placement is None else placement.within(frame[np.newaxis], scan.shape)
        if part is None:
            raise lies_elsewhere(path, scan)
        region, inside = part
        for number in np.unique(inside[inside > 0]).tolist():
            # In a binary frame, any number stands for the frame's own segment.
            structure = header.structures.get(number if segment is None else segment)
            if structure is None:
                raise _damaged(path)
            canvas.add(inside == number, structure.value, region)
    return canvas.labels


def _frames(header: _SegHeader, path: Path) -> Iterator[NDArray[Any]]:
    """Decode one frame after another, so that not all are in memory at once."""
    count = 0
    try:
        with explained_access(path):
            for frame in _packed_frames(header, path) if header.is_packed else iter_pixels(path):
                count += 1
                yield frame.reshape(header.rows, header.columns)
    except (ImagingError, GeneratorExit):
        raise
    except Exception as error:
        raise _damaged(path) from error
    if count != len(header.places):
        raise _damaged(path)


def _packed_frames(header: _SegHeader, path: Path) -> Iterator[NDArray[np.uint8]]:
    """Unpack frames of single bits, which follow each other without padding.

    pydicom's iterator expects each to begin with a byte of its own.
    """
    dataset = pydicom.dcmread(path, specific_tags=["PixelData"])
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    length = header.rows * header.columns
    for start in range(0, length * len(header.places), length):
        first, offset = divmod(start, 8)
        last = -(-(start + length) // 8)
        bits = np.unpackbits(packed[first:last], bitorder="little")
        yield bits[offset : offset + length]


def _geometry(place: FramePlace, header: _SegHeader, path: Path) -> Geometry:
    row, column = np.array(place.orientation).reshape(2, 3)
    down, across = place.pixel_spacing or (1.0, 1.0)
    direction = np.stack([row, column, np.cross(row, column)], axis=1)
    try:
        return Geometry(
            (header.columns, header.rows, 1),
            (across, down, 1.0),
            place.position or (0.0, 0.0, 0.0),
            tuple(float(value) for value in direction.ravel()),
        )
    except ValueError as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> ImagingError:
    return ImagingError(
        f"{path.name} is a truncated or damaged DICOM segmentation: copy or export it again."
    )
