"""Scans and masks from files and folders."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.arriving_scan import ArrivingScan, Watch
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
from napari_fedsam.imaging.mask_formats import format_to_read
from napari_fedsam.imaging.pictures import read_picture
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import Segmentation
from napari_fedsam.imaging.volumes import ArrivingVolume, Volume, read_volume


def read_scan(path: Path | str, *, series: str | None = None, watch: Watch | None = None) -> Scan:
    """Read a scan.

    Parameters
    ----------
    path : Path or str
        A NIfTI, NRRD, MetaImage, DICOM, PNG, JPEG, TIFF or BMP file, or a folder of DICOM files
        (sub-folders included; other files in it are ignored).
    series : str, optional
        Which series of a DICOM folder, by its `SeriesInfo.uid`; needed if there are several.
    watch : callable, optional
        Is told of a scan that can be looked at while it arrives (compressed NIfTI volumes and
        DICOM series), in this thread, before its voxels are read.

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
            return read_dicom_folder(path, series, watch)
        suffix = suffix_of(path)
        if suffix in VOLUME_SUFFIXES:
            return _volume_scan(path, watch)
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


def read_segmentation(path: Path | str, scan: Scan, *, wanted: str | None = None) -> Segmentation:
    """Read a mask of a scan, with the structures that the file names.

    A mask whose voxels are the scan's, but stored with permuted or flipped axes, is brought into
    the scan's order by its geometry; 3D Slicer's and DICOM's may cover a part of the scan.
    Nothing is interpolated.

    Parameters
    ----------
    path : Path or str
        NIfTI, NRRD (3D Slicer's .seg.nrrd, too), MetaImage or DICOM SEG; for a picture or a stack
        of frames PNG, TIFF or BMP, too; for a picture COCO JSON with run-length codes.
    scan : Scan
        What the mask belongs to.
    wanted : str, optional
        A structure's name: where the file names one so, it alone is drawn, so that structures
        which overlap can be read one by one.

    Returns
    -------
    Segmentation
        Labels of the scan's shape, and all structures of the file.

    Raises
    ------
    ImagingError
        If the file cannot be read, does not hold whole numbers from 0 to 65535, holds structures
        that overlap, or lies elsewhere than the scan.
    """
    path = Path(path)
    return format_to_read(path).read(path, scan, wanted)


def read_mask(path: Path | str, scan: Scan) -> NDArray[np.uint16]:
    """Read a mask of a scan without its structures' names (see `read_segmentation`).

    Returns
    -------
    ndarray of uint16
        Shape (z, y, x) of the scan.

    Raises
    ------
    ImagingError
        As `read_segmentation`.
    """
    return read_segmentation(path, scan).labels


def _volume_scan(path: Path, watch: Watch | None) -> Scan:
    def tell(arriving: ArrivingVolume) -> None:
        if watch is not None:
            watch(ArrivingScan(_scan_of(arriving.volume, path), arriving.arrived))

    return _scan_of(read_volume(path, tell if watch is not None else None), path)


def _scan_of(volume: Volume, path: Path) -> Scan:
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
