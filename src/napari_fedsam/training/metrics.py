"""How well a mask agrees with the truth."""

import numpy as np
from numpy.typing import NDArray


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    """Return the Dice coefficient (0..1), or None when the truth is empty.

    An empty truth has no Dice: such images are counted apart, by their false positives, and never
    lift a mean. An empty prediction of a present structure scores 0.

    Parameters
    ----------
    prediction, truth : bool arrays of the same shape
    """
    if not truth.any():
        return None
    overlap = int((prediction & truth).sum())
    return 2 * overlap / (int(prediction.sum()) + int(truth.sum()))
