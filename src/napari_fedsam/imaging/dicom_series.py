"""Which scans a DICOM folder holds."""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_fedsam.imaging.dicom_headers import Header, read_header
from napari_fedsam.imaging.errors import ImagingError, MultipleSeriesError, SeriesInfo
from napari_fedsam.imaging.files import DICOM_SUFFIXES, explained_access, is_dicom, is_hidden

_NOT_SCANS = {
    "SEG": "a segmentation",
    "RTDOSE": "a dose distribution",
    "SM": "a whole-slide image",
}
"""Modalities whose pixel data is no scan of ours."""


@dataclass(frozen=True)
class Series:
    """The files that make up one scan."""

    info: SeriesInfo
    headers: tuple[Header, ...]


def find_series(folder: Path) -> list[Series]:
    """Group the DICOM images in a folder and its sub-folders into scans.

    A scan is a series of placed slices, a multi-frame object, or a single picture. Files that
    are not DICOM, hidden files, and DICOM objects that are not scans (reports, segmentations,
    doses, DICOMDIR) are passed over.

    Raises
    ------
    ImagingError
        If a folder or file cannot be opened, or a file is damaged.
    """
    groups: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for path in dicom_files(folder):
        header = read_header(path)
        if header is not None and header.modality not in _NOT_SCANS:
            groups[_scan_key(header)].append(header)
    found = []
    taken: set[str] = set()
    for number, headers in enumerate(groups.values(), start=1):
        uid = _scan_uid(headers[0])
        if not uid or uid in taken:
            uid = f"scan-{number}"
        taken.add(uid)
        found.append(Series(_info(headers, uid), tuple(headers)))
    return found


def pick_series(folder: Path, uid: str | None) -> Series:
    """Return the series with this uid, or the only one.

    Raises
    ------
    MultipleSeriesError
        If there are several and `uid` is None.
    ImagingError
        If there is none, or none with this uid, and as `find_series`.
    """
    found = find_series(folder)
    if not found:
        raise ImagingError(
            f"The folder {folder.name} holds no DICOM images: choose the folder of a DICOM "
            "series, or open an image file directly."
        )
    if uid is not None:
        for series in found:
            if series.info.uid == uid:
                return series
        raise ImagingError(
            f"The folder {folder.name} does not hold the chosen series any more: list its series "
            "again and choose another."
        )
    if len(found) > 1:
        shown = [f"{s.info.name} ({s.info.n_slices} slices)" for s in found[:8]]
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise MultipleSeriesError(
            f"The folder {folder.name} holds {len(found)} series, {', '.join(shown)}{more}: "
            "choose one of them.",
            tuple(s.info for s in found),
        )
    return found[0]


def single_file(path: Path) -> Series:
    """Return a DICOM file as a series of its own.

    Raises
    ------
    ImagingError
        If it is damaged, unreadable, or holds no scan.
    """
    header = read_header(path)
    if header is None:
        raise ImagingError(
            f"{path.name} is a DICOM file without an image: choose the folder of a series, or "
            "one of its image files."
        )
    if header.modality in _NOT_SCANS:
        raise ImagingError(
            f"{path.name} is {_NOT_SCANS[header.modality]}, not a scan: open the images that it "
            "belongs to."
        )
    return Series(_info([header], _scan_uid(header)), (header,))


def dicom_files(folder: Path) -> Iterator[Path]:
    """Find the DICOM files under a folder, in the order of their names.

    Raises
    ------
    ImagingError
        If a folder or a file cannot be opened, or a file is named .dcm but is no DICOM.
    """

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if is_hidden(path) or not path.is_file():
                continue
            with explained_access(path):
                if is_dicom(path):
                    yield path
                elif path.suffix.lower() in DICOM_SUFFIXES:
                    raise not_dicom(path)


def not_dicom(path: Path) -> ImagingError:
    """Make the error for a file that is DICOM by name only."""
    return ImagingError(
        f"{path.name} is empty, damaged or no DICOM file: copy or export it again, or remove it."
    )


def _scan_key(header: Header) -> tuple[str, ...]:
    if header.is_placed and header.frames == 1:
        return header.series_key
    return (*header.series_key, header.instance_uid, str(header.path))


def _scan_uid(header: Header) -> str:
    in_series = header.is_placed and header.frames == 1
    return header.series_uid if in_series else header.instance_uid


def _info(headers: list[Header], uid: str) -> SeriesInfo:
    first = headers[0]
    slices = sum(header.frames for header in headers)
    return SeriesInfo(uid, first.description, first.modality, slices, first.series_number)
