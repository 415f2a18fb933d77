"""Scans and masks from files and folders."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.dicom import list_dicom_series, read_dicom_file, read_dicom_folder
from napari_fedsam.imaging.dicom_series import dicom_files
from napari_fedsam.imaging.errors import ImagingError, SeriesInfo
from napari_fedsam.imaging.files import (
    DICOM_SUFFIXES,
    PICTURE_SUFFIXES,
    READABLE,
    VOLUME_SUFFIXES,
    explained_access,
    is_dicom,
    stem_of,
    suffix_of,
)
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.pictures import read_labels, read_picture
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.volumes import read_volume

_MASK_LENGTH_TOLERANCE = 1e-3
_MASK_DIRECTION_TOLERANCE = 1e-4
"""Other programs round headers; voxels this close (mm, cosines) are the same ones."""


def read_scan(path: Path | str, *, series: str | None = None) -> Scan:
    """Read a scan.

    Parameters
    ----------
    path : Path or str
        A NIfTI, NRRD, MetaImage, DICOM, PNG, JPEG, TIFF or BMP file, or a folder of DICOM files
        (sub-folders included; other files in it are ignored).
    series : str, optional
        Which series of a DICOM folder, by its `SeriesInfo.uid`; needed if there are several.

    Returns
    -------
    Scan
        Rescaled values, with the slices of a DICOM series in the order of their positions.

    Raises
    ------
    MultipleSeriesError
        If a folder holds several series and `series` is None.
    ImagingError
        If the file or folder cannot be read as a scan; the message says why and what to do.
    """
    path = Path(path)
    with explained_access(path):
        path.stat()
        if path.is_dir():
            return read_dicom_folder(path, series)
        suffix = suffix_of(path)
        if suffix in VOLUME_SUFFIXES:
            return _volume_scan(path)
        if suffix in PICTURE_SUFFIXES:
            return _picture_scan(path)
        if suffix in DICOM_SUFFIXES or is_dicom(path):
            return read_dicom_file(path)
    raise ImagingError(f"{path.name} is not a known image: open a {READABLE} file.")


def list_series(folder: Path | str) -> list[SeriesInfo]:
    """List what a DICOM folder holds, for a person to choose from.

    Raises
    ------
    ImagingError
        If the folder does not exist, or something in it cannot be read.
    """
    return list_dicom_series(Path(folder))


def is_supported(path: Path | str) -> bool:
    """Say quickly whether `read_scan` would try: by suffix, else by the file's first bytes.

    A folder counts if a DICOM file is in it or below. Never raises.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return next(iter(dicom_files(path)), None) is not None
        known = suffix_of(path) in (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES, *DICOM_SUFFIXES)
        return path.is_file() and (known or is_dicom(path))
    except (OSError, ImagingError):
        return False


def read_mask(path: Path | str, scan: Scan) -> NDArray[np.uint16]:
    """Read a mask of a scan.

    A mask whose voxels are the scan's, but stored with permuted or flipped axes, is brought into
    the scan's order by its geometry; nothing is interpolated.

    Parameters
    ----------
    path : Path or str
        NIfTI, NRRD or MetaImage; for a picture or a stack of frames PNG, TIFF or BMP, too.
    scan : Scan
        What the mask belongs to.

    Returns
    -------
    ndarray of uint16
        Shape (z, y, x) of the scan.

    Raises
    ------
    ImagingError
        If the file cannot be read, does not hold whole numbers from 0 to 65535, or lies
        elsewhere than the scan.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix in VOLUME_SUFFIXES:
        return _as_labels(_volume_labels(path, scan), path)
    if suffix in PICTURE_SUFFIXES and suffix not in (".jpg", ".jpeg"):
        values = read_labels(path)
        if values.shape != scan.shape:
            raise _elsewhere(path, scan)
        return _as_labels(values, path)
    raise ImagingError(
        f"{path.name} cannot hold a mask: use NIfTI, NRRD, MetaImage, or PNG for a picture."
    )


def _volume_scan(path: Path) -> Scan:
    volume = read_volume(path)
    return Scan(
        volume.pixels,
        volume.geometry,
        stem_of(path),
        path,
        is_anatomical=volume.is_anatomical and volume.geometry.dimension == 3,
    )


def _picture_scan(path: Path) -> Scan:
    pixels = read_picture(path)
    pages, height, width = pixels.shape[:3]
    size = (width, height) if pages == 1 else (width, height, pages)
    return Scan(
        pixels,
        Geometry.identity(size),
        stem_of(path),
        path,
        spacing_known=False,
        is_anatomical=False,
        is_stack_of_frames=pages > 1,
    )


def _volume_labels(path: Path, scan: Scan) -> NDArray[Any]:
    volume = read_volume(path)
    if volume.pixels.ndim == 4:
        raise ImagingError(f"{path.name} is in colour, so it is not a mask: choose a mask file.")
    found = volume.geometry.reindexing_to(
        scan.geometry, length=_MASK_LENGTH_TOLERANCE, direction=_MASK_DIRECTION_TOLERANCE
    )
    if found is None:
        raise _elsewhere(path, scan)
    axes, flipped = found
    n = volume.geometry.dimension
    values = volume.pixels.reshape(volume.geometry.size[::-1])
    # Geometry counts axes from x, arrays from z.
    turned = values.transpose([n - 1 - axis for axis in reversed(axes)])
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in reversed(flipped))
    return turned[steps].reshape(scan.shape)


def _as_labels(values: NDArray[Any], path: Path) -> NDArray[np.uint16]:
    with np.errstate(invalid="ignore"):
        labels = values.astype(np.uint16)
    if not np.array_equal(labels, values):
        raise ImagingError(
            f"{path.name} is not a mask: its values must be whole numbers from 0 to 65535."
        )
    return labels


def _elsewhere(path: Path, scan: Scan) -> ImagingError:
    return ImagingError(
        f"{path.name} has another size or position than {scan.name}: choose a mask of this scan, "
        "or resample it to the scan first."
    )
