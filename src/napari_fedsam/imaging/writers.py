"""Masks to files, with the scan's exact geometry."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from napari_fedsam.files import fsync_folder
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access, suffix_of
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.itk import silent_itk
from napari_fedsam.imaging.scan import Scan

MASK_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".png")
_DETACHED = ".mhd"


def write_mask(mask: NDArray[Any], scan: Scan, path: Path | str) -> None:
    """Write a mask whose size, spacing, origin and direction are the scan's.

    The file is written beside its destination, read back and compared, and then renamed, so that
    a complete file or none appears (a .mhd has its voxels in a second file, which is renamed
    first). MetaImage and NRRD keep the geometry to the last digits; NIfTI keeps it as 32-bit
    numbers, which beyond about 170 mm from the origin are coarser than 1e-5 mm.

    Parameters
    ----------
    mask : ndarray
        Shape (z, y, x) of the scan, bool or integers from 0 to 65535. Stored as uint8 if all are
        below 256, else as uint16.
    scan : Scan
        What the mask belongs to.
    path : Path or str
        Ends in .nii, .nii.gz, .nrrd, .mha or .mhd, or in .png for a picture (whose spacing a
        PNG does not keep). An existing file is replaced.

    Raises
    ------
    ImagingError
        If the format is unknown or cannot hold this mask, or the file cannot be written.
    ValueError
        If the mask has another shape than the scan, or values that a mask cannot have.
    """
    path = Path(path)
    values = _values(mask, scan)
    suffix = suffix_of(path)
    if suffix not in MASK_SUFFIXES:
        raise ImagingError(
            f"{path.name} has no mask format: name it .nii.gz, .nrrd or .mha, or .png for a "
            "picture."
        )
    if suffix == ".png" and not scan.is_picture:
        raise ImagingError(
            f"{path.name} would hold one picture, but {scan.name} is a volume: name it .nii.gz, "
            ".nrrd or .mha."
        )
    if not path.parent.is_dir():
        raise ImagingError(
            f"{path.name} cannot be saved because the folder {path.parent.name} does not exist: "
            "create it first."
        )
    image = sitk.GetImageFromArray(values[0] if scan.is_picture else values)
    scan.geometry.stamp(image)
    with _explained_writing(path):
        _write(image, scan.geometry, path)


class _explained_writing:
    pass
