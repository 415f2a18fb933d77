"""DICOM: a folder or a file as a scan."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.arriving_scan import ArrivingScan, Watch
from napari_fedsam.imaging.dicom_geometry import stack_geometry
from napari_fedsam.imaging.dicom_headers import Header
from napari_fedsam.imaging.dicom_pixels import read_frames
from napari_fedsam.imaging.dicom_series import (
    Series,
    find_series,
    not_dicom,
    pick_series,
    single_file,
)
from napari_fedsam.imaging.errors import ImagingError, SeriesInfo
from napari_fedsam.imaging.files import explained_access, is_dicom
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan


def read_dicom_folder(folder: Path, uid: str | None, watch: Watch | None = None) -> Scan:
    """Read one series of a folder and its sub-folders (see `readers.read_scan`)."""
    with explained_access(folder):
        series = pick_series(folder, uid)
    return _read(series, folder, watch)


def read_dicom_file(path: Path) -> Scan:
    """Read a single DICOM file: a slice, a multi-frame object or a picture.

    Raises
    ------
    ImagingError
        If the file is not DICOM, holds no scan, or cannot be read.
    """
    with explained_access(path):
        if not is_dicom(path):
            raise not_dicom(path)
    return _read(single_file(path), path)


def list_dicom_series(folder: Path) -> list[SeriesInfo]:
    """List what can be read from a folder (see `readers.list_series`)."""
    with explained_access(folder):
        return [series.info for series in find_series(folder)]


def _read(series: Series, source: Path, watch: Watch | None = None) -> Scan:
    headers = series.headers
    first = headers[0]
    if any((h.rows, h.columns) != (first.rows, first.columns) for h in headers):
        raise ImagingError(
            f"{source.name} mixes slices of different sizes: open them as series of their own."
        )
    if first.is_placed:
        return _placed(series, source, watch)
    pixels = read_frames(headers)
    spacing = first.places[0].pixel_spacing or first.ultrasound_spacing
    row, column = spacing or (first.aspect, 1.0)
    size: tuple[int, ...] = (first.columns, first.rows)
    steps: tuple[float, ...] = (column, row)
    if first.frames > 1:
        size, steps = (*size, first.frames), (*steps, 1.0)
    plain = Geometry.identity(size)
    geometry = Geometry(size, steps, plain.origin, plain.direction)
    return _scan(
        series, source, pixels, geometry, spacing_known=spacing is not None, is_anatomical=False
    )


def _placed(series: Series, source: Path, watch: Watch | None) -> Scan:
    """Stack slices or frames that know their place in the patient."""
    headers = series.headers
    first = headers[0]
    places = [place for header in headers for place in header.places]
    geometry, order = stack_geometry(
        places, first.rows, first.columns, first.thickness, source.name
    )

    def scan_with(pixels: NDArray[Any]) -> Scan:
        return _scan(series, source, pixels, geometry, spacing_known=True, is_anatomical=True)

    def tell(pixels: NDArray[Any], arrived: NDArray[np.bool_]) -> None:
        if watch is not None:
            watch(ArrivingScan(scan_with(pixels), arrived))

    if len(headers) == 1:
        pixels = read_frames(headers)
        # Fancy indexing copies, which frames that are in order already do not need.
        pixels = pixels if order == sorted(order) else pixels[order]
    else:
        pixels = read_frames([headers[i] for i in order], tell if watch is not None else None)
    return scan_with(pixels)


def _scan(
    series: Series,
    source: Path,
    pixels: NDArray[Any],
    geometry: Geometry,
    *,
    spacing_known: bool,
    is_anatomical: bool,
) -> Scan:
    first: Header = series.headers[0]
    return Scan(
        pixels=pixels,
        geometry=geometry,
        name=series.info.name,
        source=source,
        modality=first.modality,
        spacing_known=spacing_known,
        is_anatomical=is_anatomical,
        is_stack_of_frames=not is_anatomical and first.frames > 1,
        patient_key=first.patient_id,
        dicom_files=tuple(header.path for header in series.headers),
        frame_of_reference=first.frame_of_reference,
    )
