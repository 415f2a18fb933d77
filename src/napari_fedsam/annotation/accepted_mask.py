"""Which mask a slice gets when an answer is accepted on top of what is there already."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_fedsam.annotation.ask import Ask, Painting


def accepted_mask(
    present: NDArray[np.bool_], answer: NDArray[np.bool_], ask: Ask
) -> NDArray[np.bool_]:
    """Put an answer in the place of what it corrects, and leave everything else.

    Parameters
    ----------
    present : bool array of shape (H, W)
        The structure on the slice so far, painting by hand included.
    answer : bool array of shape (H, W)
        The model's answer.
    ask : Ask
        What was asked.

    Returns
    -------
    bool array of shape (H, W)
        The answer, with every present pixel outside the prompted region (the rectangle that holds
        answer and prompts), and with the objects inside that the answer does not touch. An object
        that a negative prompt struck, and that is not in the answer, is gone.
    """
    objects, count = ndimage.label(present)
    if not count:
        return answer
    answered = set(objects[answer].tolist())
    struck = _hit(objects, ask, positive=False) - answered
    asked = answered | _hit(objects, ask, positive=True)
    replaced = np.isin(objects, list(asked - {0})) & _region(answer, ask)
    gone = np.isin(objects, list(struck - {0}))
    result: NDArray[np.bool_] = answer | (present & ~replaced & ~gone)
    return result


def _points(ask: Ask, *, positive: bool) -> list[tuple[float, float]]:
    return [
        point
        for each in ask.corrections
        if not isinstance(each, Painting) and each.positive is positive
        for point in each.points
    ]


def _hit(objects: NDArray[np.int32], ask: Ask, *, positive: bool) -> set[int]:
    height, width = objects.shape
    return {
        int(objects[min(max(round(y), 0), height - 1), min(max(round(x), 0), width - 1)])
        for x, y in _points(ask, positive=positive)
    }


def _region(answer: NDArray[np.bool_], ask: Ask) -> NDArray[np.bool_]:
    rows, columns = np.nonzero(answer)
    xy = [*zip(columns.tolist(), rows.tolist(), strict=True), *_points(ask, positive=True)]
    xy += [corner for x0, y0, x1, y1 in ask.boxes for corner in ((x0, y0), (x1, y1))]
    xy += [point for outline in ask.lassos for point in outline]
    region = np.zeros_like(answer)
    if xy:
        (x0, y0), (x1, y1) = np.min(xy, axis=0), np.max(xy, axis=0)
        low_x, low_y = max(round(x0), 0), max(round(y0), 0)
        region[low_y : round(y1) + 1, low_x : round(x1) + 1] = True
    return region
