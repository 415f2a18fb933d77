"""What clicks change of the mask that they correct.

The answer to a corrective click often is the part of an object around the click, or what lies
around the object, and has lost what was right before. So a positive click only adds, a negative one
only takes away, in the region of change that it lies in (as FocalClick's progressive merge keeps a
correction in its region: Chen et al. 2022, arXiv 2204.02574), and no farther away than some times
its distance from the mask's edge: who clicks close to the edge means the edge.
"""

import math

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.sam.prompts import Prompts, clicked_pixels

_REACH = 4.0
"""How far from a click it changes a mask, in distances from the click to the mask's edge. On
validation images of polyps, optic discs and hearts, 3 and 4 were as good as each other, and a reach
without limit worse than either."""

_LEAST_DISTANCE = 0.01
"""Of a click from the edge, as a part of the image's long side: nobody clicks more exactly."""


def corrected(
    previous: NDArray[np.bool_], answer: NDArray[np.bool_], prompts: Prompts
) -> NDArray[np.bool_]:
    """Take over of an answer what its clicks are about.

    Parameters
    ----------
    previous : bool array of shape (H, W)
        The mask that the clicks are meant to correct.
    answer : bool array of shape (H, W)
        What the model found instead.
    prompts : Prompts
        The clicks, in pixels of these masks.

    Returns
    -------
    bool array of shape (H, W)
    """
    rows, columns = clicked_pixels(prompts.points, previous.shape)
    wrong = previous[rows, columns] != prompts.labels
    places = list(zip(rows.tolist(), columns.tolist(), strict=True))
    right = [place for place, is_wrong in zip(places, wrong, strict=True) if not is_wrong]
    mask = previous.copy()
    for place, is_wrong in zip(places, wrong, strict=True):
        if is_wrong:
            mask[_changed_by(place, previous, answer, right)] = not previous[place]
    return mask


def _changed_by(
    click: tuple[int, int],
    previous: NDArray[np.bool_],
    answer: NDArray[np.bool_],
    right: list[tuple[int, int]],
) -> NDArray[np.bool_]:
    """Return where a click changes the mask: only in pixels of its own value, near itself."""
    alike = previous == previous[click]
    away = _squared_distance(click, previous.shape)
    least = (_LEAST_DISTANCE * max(previous.shape)) ** 2
    edge = int(away[~alike].min()) if not alike.all() else math.inf
    region = _joined(click, (answer != previous) & alike & (away <= _REACH**2 * max(edge, least)))
    if not region[click]:
        # The model sees nothing there; the click is obeyed all the same.
        region = alike & (away < (edge if math.isfinite(edge) else least))
    for other in right:
        if region[other]:
            region &= away < _squared_distance(other, previous.shape)
    return _joined(click, region)


def _squared_distance(place: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return every pixel's squared distance from one."""
    (row, column), (height, width) = place, shape
    rows, columns = np.ogrid[-row : height - row, -column : width - column]
    squared: NDArray[np.int64] = rows * rows + columns * columns
    return squared


def _joined(click: tuple[int, int], region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the component of a region that a click lies in; nothing where it lies outside."""
    from scipy import ndimage

    components, _ = ndimage.label(region)
    own: NDArray[np.bool_] = region & (components == components[click])
    return own
