"""What negative clicks leave of a mask."""

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.sam.prompts import Prompts, box_of_mask, clicked_pixels

_LEAST_LEFT = 0.25
"""Of a mask. On validation images of polyps and optic discs, less was never the object: the click
was on the object itself, to correct its edge, and specks beside it were left."""


def unclicked_components(mask: NDArray[np.bool_], prompts: Prompts) -> NDArray[np.bool_]:
    """Drop the components of a mask of shape (H, W) that have a negative click.

    The mask itself is returned where nothing is dropped, or too little would be left.
    """
    from scipy import ndimage

    components, count = ndimage.label(mask)
    unwanted = set(components[clicked_pixels(prompts.negatives, mask.shape)].tolist()) - {0}
    if count <= 1 or not unwanted:
        return mask
    kept: NDArray[np.bool_] = mask & ~np.isin(components, list(unwanted))
    return kept if kept.sum() >= _LEAST_LEFT * mask.sum() else mask


def anchored_clicks(mask: NDArray[np.bool_], prompts: Prompts) -> Prompts | None:
    """Add a positive click on what negative clicks leave of a mask; None where that is nothing."""
    anchor = _far_point(mask, prompts)
    if anchor is None:
        return None
    return Prompts(
        points=np.concatenate([[anchor], prompts.negatives]),
        labels=np.array([True] + [False] * len(prompts.negatives)),
        box=prompts.box,
    )


def _far_point(mask: NDArray[np.bool_], prompts: Prompts) -> NDArray[np.float32] | None:
    """Return a point of the mask that is deep inside and far from the negative clicks."""
    from scipy import ndimage

    free = np.pad(mask, 1)
    rows, columns = clicked_pixels(prompts.negatives, mask.shape)
    free[rows + 1, columns + 1] = False
    if box_of_mask(free) is None:
        return None
    depth = ndimage.distance_transform_edt(free)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return np.array([x, y], np.float32)
