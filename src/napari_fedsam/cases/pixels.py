"""The two small NRRD files of a case."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

_READER = "NrrdImageIO"


def write_pixels(pixels: NDArray[Any], spacing: tuple[float, float] | None, path: Path) -> None:
    """Write a slice with its spacing, compressed without loss, and read it back to be sure.

    Parameters
    ----------
    pixels : ndarray
        (height, width), or (height, width, 3) for colour.
    spacing : (float, float) or None
        Row and column spacing in mm; None writes 1, 1.
    path : Path
        The `.nrrd` file.

    Raises
    ------
    OSError
        When the file could not be written whole.
    """
    image = sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3)
    row, column = spacing or (1.0, 1.0)
    image.SetSpacing((column, row))
    try:
        sitk.WriteImage(image, str(path), useCompression=True, imageIO=_READER)
        written, _ = read_pixels(path)
    except RuntimeError as error:
        # SimpleITK does not pass the system's error on: ask the system itself.
        _raise_system_error(path, pixels.nbytes)
        raise OSError(errno.EIO, f"{path.name} could not be written") from error
    if not np.array_equal(written, pixels):
        raise OSError(errno.EIO, f"{path.name} was not written whole")


def read_pixels(path: Path) -> tuple[NDArray[Any], tuple[float, float]]:
    """Read a slice and its (row, column) spacing.

    Raises
    ------
    RuntimeError
        When the file is not a readable 2-D NRRD image.
    """
    image = sitk.ReadImage(str(path), imageIO=_READER)
    if image.GetDimension() != 2:
        raise RuntimeError(f"{path.name} is not a slice")
    column, row = image.GetSpacing()
    return sitk.GetArrayFromImage(image), (row, column)


def _raise_system_error(path: Path, size: int) -> None:
    """Raise the OSError that explains why `size` bytes cannot be written to `path`, if any."""
    with path.open("wb", buffering=0) as handle:
        left = size
        while left > 0:
            left -= handle.write(bytes(min(left, 1 << 20)))
    path.unlink()
