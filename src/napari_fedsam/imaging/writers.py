"""Masks to files, with the scan's exact geometry."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_fedsam.files import fsync_folder
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import stem_of, suffix_of
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.silence import silent_itk

MASK_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".png")


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


def _values(mask: NDArray[Any], scan: Scan) -> NDArray[Any]:
    if mask.shape != scan.shape:
        raise ValueError(f"a mask of shape {mask.shape} does not fit a scan of {scan.shape}")
    if mask.dtype.kind not in "biu":
        raise ValueError(f"a mask holds integers or booleans, not {mask.dtype}")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high > 65535:
        raise ValueError(f"mask values must be 0 to 65535, not {low} to {high}")
    return np.ascontiguousarray(mask, dtype=np.uint8 if high < 256 else np.uint16)


@contextlib.contextmanager
def _explained_writing(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise ImagingError(
            f"{path.name} cannot be saved in the folder {path.parent.name}: permission denied. "
            "Choose a folder that you may write to."
        ) from error
    except (OSError, RuntimeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "the disk may be full"
        raise ImagingError(
            f"{path.name} could not be saved ({reason}): free some space or choose another "
            "folder, and save again."
        ) from error


def _write(image: Any, geometry: Geometry, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=path.parent) as folder:
        # Under the final stem, because a .mhd names its second file; ITK wants a lower-case suffix.
        temporary = Path(folder, stem_of(path) + suffix_of(path))
        with silent_itk():
            sitk.WriteImage(image, str(temporary), useCompression=True)
            _verify(image, geometry, temporary)
        written = sorted(Path(folder).iterdir(), key=lambda file: file == temporary)
        for file in written:
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        for file in written:
            file.replace(path if file == temporary else path.parent / file.name)
    fsync_folder(path.parent)


def _verify(image: Any, geometry: Geometry, written: Path) -> None:
    """Read a file back and compare it with what it should hold."""
    back = sitk.ReadImage(str(written))
    suffix = suffix_of(written)
    same_voxels = np.array_equal(
        sitk.GetArrayViewFromImage(back), sitk.GetArrayViewFromImage(image)
    )
    same_place = suffix == ".png" or geometry.matches(
        Geometry.from_image(back), single_precision=suffix.startswith(".nii")
    )
    if not same_voxels:
        raise OSError("what was written differs from the mask")
    if not same_place:
        raise ImagingError(
            f"{written.name} cannot hold this scan's position exactly: save the mask as .mha."
        )
