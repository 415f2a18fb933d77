"""Clicks as a user would place them, simulated from the true mask.

In training, segment-anything's procedure (Kirillov et al. 2023, arXiv 2304.02643): points drawn at
random from the region where the present mask is wrong. In evaluation, the pixel deepest inside all
that is wrong and not yet clicked, as in interactive segmentation's benchmarks (Sofiiuk et al. 2021,
arXiv 2102.06583).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class Click:
    """A point that a mask should hold, or should not.

    Parameters
    ----------
    x, y : int
        Pixel coordinates.
    positive : bool
    """

    x: int
    y: int
    positive: bool


def next_click(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], clicked: Sequence[Click] = ()
) -> Click | None:
    """Return the click that a careful user would place next; None when there is no place for one.

    Parameters
    ----------
    mask, truth : bool arrays of shape (H, W)
    clicked : sequence of Click
        Clicks that were of no use where they are still wrong, so none comes there again.
    """
    missed, wrong = truth & ~mask, mask & ~truth
    deepest = max((_deepest(region, clicked), region is missed) for region in (missed, wrong))
    (depth, y, x), positive = deepest
    return Click(x, y, positive) if depth > 0 else None


def _deepest(region: NDArray[np.bool_], clicked: Sequence[Click]) -> tuple[float, int, int]:
    """Return (depth, row, column) of the unclicked pixel farthest from the region's edge."""
    if not region.any():
        return (0.0, 0, 0)
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    for click in clicked:
        depth[click.y, click.x] = 0
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(depth[row, column]), int(row), int(column))


def random_clicks(
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    count: int,
    random: np.random.Generator,
) -> list[Click]:
    """Return clicks drawn from where a mask is wrong, or from the truth where nothing is.

    Parameters
    ----------
    mask, truth : bool arrays of shape (H, W)
        The truth is not empty.
    count : int
    random : numpy.random.Generator
    """
    wrong = mask != truth
    pixels = np.flatnonzero(wrong if wrong.any() else truth)
    chosen = random.choice(pixels, size=count)
    rows, columns = np.unravel_index(chosen, truth.shape)
    return [Click(int(x), int(y), bool(truth[y, x])) for y, x in zip(rows, columns, strict=True)]
