"""Masks as plain label volumes: NIfTI, NRRD and MetaImage."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import suffix_of
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.silence import silent_itk
from napari_fedsam.imaging.volumes import read_volume

_LENGTH_TOLERANCE = 1e-3
_DIRECTION_TOLERANCE = 1e-4
"""Other programs round headers; voxels this close (mm, cosines) are the same ones."""


def write_label_volume(
    labels: NDArray[Any], geometry: Geometry, path: Path, notes: dict[str, str] | None = None
) -> None:
    """Write labels on a grid, and check that the file keeps the grid.

    Parameters
    ----------
    labels : ndarray of uint8 or uint16
        Shape (z, y, x).
    geometry : Geometry
        2-D for a flat file.
    path : Path
        The suffix chooses the format.
    notes : dict, optional
        Key/value pairs for the header, which only NRRD keeps.

    Raises
    ------
    ImagingError
        If the format cannot hold the grid exactly.
    """
    image = sitk.GetImageFromArray(labels[0] if geometry.dimension == 2 else labels)
    geometry.stamp(image)
    for key, value in (notes or {}).items():
        image.SetMetaData(key, value)
    with silent_itk():
        sitk.WriteImage(image, str(path), useCompression=True)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    rounds = suffix_of(path).startswith(".nii")
    if not geometry.matches(Geometry.from_image(reader), single_precision=rounds):
        raise ImagingError(
            f"{path.name} cannot hold this scan's position exactly: save the mask as .mha."
        )


def read_label_volume(path: Path, scan: Scan) -> NDArray[np.uint16]:
    """Read a mask whose voxels are the scan's, perhaps with permuted or flipped axes.

    Returns
    -------
    ndarray of uint16
        Shape (z, y, x) of the scan.

    Raises
    ------
    ImagingError
        If the file cannot be read, is no mask, or lies elsewhere.
    """
    volume = read_volume(path)
    if volume.pixels.ndim == 4:
        raise ImagingError(f"{path.name} is in colour, so it is not a mask: choose a mask file.")
    found = volume.geometry.reindexing_to(
        scan.geometry, length=_LENGTH_TOLERANCE, direction=_DIRECTION_TOLERANCE
    )
    if found is None:
        raise lies_elsewhere(path, scan)
    axes, flipped = found
    n = volume.geometry.dimension
    values = volume.pixels.reshape(volume.geometry.size[::-1])
    # Geometry counts axes from x, arrays from z.
    turned = values.transpose([n - 1 - axis for axis in reversed(axes)])
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in reversed(flipped))
    return as_labels(turned[steps].reshape(scan.shape), path)


def as_labels(values: NDArray[Any], path: Path) -> NDArray[np.uint16]:
    """Return numbers as labels.

    Raises
    ------
    ImagingError
        If they are not whole numbers from 0 to 65535.
    """
    with np.errstate(invalid="ignore"):
        labels = values.astype(np.uint16)
    if not np.array_equal(labels, values):
        raise ImagingError(
            f"{path.name} is not a mask: its values must be whole numbers from 0 to 65535."
        )
    return labels


def lies_elsewhere(path: Path, scan: Scan) -> ImagingError:
    """Make the error for a mask that is not on the scan's grid."""
    return ImagingError(
        f"{path.name} has another size or position than {scan.name}: choose a mask of this scan, "
        "or resample it to the scan first."
    )
