"""What is done to, and measured of, a structure's whole volume, through SimpleITK."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

Volume = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def fill_holes(volume: Volume, spacing: Spacing) -> Volume:  # noqa: ARG001 - one signature
    """Fill what is enclosed on all sides; in a single slice, what its outline encloses."""
    flat = volume.shape[0] == 1
    image = sitk.GetImageFromArray((volume[0] if flat else volume).astype(np.uint8))
    filled = np.asarray(sitk.GetArrayFromImage(sitk.BinaryFillhole(image)) > 0)
    return filled[np.newaxis] if flat else filled


def largest_component(volume: Volume, spacing: Spacing) -> Volume:  # noqa: ARG001 - one signature
    """Keep the largest connected component."""
    image = sitk.GetImageFromArray(volume.astype(np.uint8))
    sorted_by_size = sitk.RelabelComponent(sitk.ConnectedComponent(image))
    return np.asarray(sitk.GetArrayFromImage(sorted_by_size) == 1)


def smooth(volume: Volume, spacing: Spacing) -> Volume:
    """Smooth the surface by a Gaussian whose deviation is half of the coarsest voxel."""
    image = sitk.GetImageFromArray(volume.astype(np.float32))
    image.SetSpacing(tuple(reversed(spacing)))
    width = max(step for step, count in zip(spacing, volume.shape, strict=True) if count > 1)
    blurred = sitk.DiscreteGaussian(image, variance=(width / 2) ** 2, maximumKernelWidth=64)
    return np.asarray(sitk.GetArrayFromImage(blurred) > 0.5)


@dataclass(frozen=True)
class Measures:
    """How large a structure is.

    Attributes
    ----------
    voxels : int
    millilitres : float
    diameter : float
        The longest distance between two of its voxels' centres, in mm.
    """

    voxels: int
    millilitres: float
    diameter: float


def measure(segmentation: NDArray[Any], value: int, spacing: Spacing) -> Measures:
    """Measure a structure from the true geometry.

    Parameters
    ----------
    segmentation : integer array of shape (z, y, x)
    value : int
        The structure's value.
    spacing : (float, float, float)
        Along (z, y, x) in mm.
    """
    volume = segmentation == value
    voxels = int(np.count_nonzero(volume))
    millilitres = voxels * float(np.prod(spacing)) / 1000
    return Measures(voxels, millilitres, _diameter(volume, spacing))


def _diameter(volume: Volume, spacing: Spacing) -> float:
    # Each row's first and last voxel are enough: the others lie between them.
    planes, rows = np.nonzero(volume.any(axis=2))
    if not len(planes):
        return 0.0
    lines = volume[planes, rows]
    first, last = lines.argmax(axis=1), volume.shape[2] - 1 - lines[:, ::-1].argmax(axis=1)
    ends = [np.stack([planes, rows, columns], axis=1) for columns in (first, last)]
    points = np.unique(np.concatenate(ends), axis=0) * np.asarray(spacing)
    used = np.ptp(points, axis=0) > 0
    corners = points[:, used]
    if not used.any():
        return 0.0
    if used.sum() > 1 and len(corners) > 4:
        try:
            corners = corners[ConvexHull(corners).vertices]
        except QhullError:
            # All on one line: few enough to compare as they are.
            corners = corners[np.lexsort(corners.T)][[0, -1]]
    return float(pdist(corners).max())
