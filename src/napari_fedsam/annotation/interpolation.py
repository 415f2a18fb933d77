"""Masks between masks: the shape half way between two outlines."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def interpolated(masks: Mapping[int, Mask], spacing: tuple[float, float]) -> dict[int, Mask]:
    """Fill the slices between given ones by interpolating signed distances to the outlines.

    Parameters
    ----------
    masks : mapping of slice index to bool array of shape (H, W)
        An empty one ends the structure: nothing is put between it and its neighbour.
    spacing : (float, float)
        Row and column spacing, in any common unit.

    Returns
    -------
    dict of int to bool array
        The slices in between only.
    """
    distances = {
        index: _signed_distance(mask, spacing) for index, mask in masks.items() if mask.any()
    }
    found: dict[int, Mask] = {}
    for low, high in pairwise(sorted(masks)):
        if low in distances and high in distances:
            for index in range(low + 1, high):
                share = (index - low) / (high - low)
                between = (1 - share) * distances[low] + share * distances[high]
                found[index] = between > 0
    return found


def _signed_distance(mask: Mask, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Return the distance to the outline, positive within."""
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    signed: NDArray[np.float64] = inside - outside
    return signed
