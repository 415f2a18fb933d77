"""Confidence intervals by resampling groups (patients, videos) instead of images."""

from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000


def bootstrap_interval(
    values: Sequence[float], groups: Sequence[str], *, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return a percentile interval of the mean, with whole groups drawn with replacement.

    Parameters
    ----------
    values : sequence of float
        One per image; for a comparison of two methods, their differences.
    groups : sequence of str
        Each image's group; images of one patient are not independent.
    seed : int
    level : float
        0..1.

    Returns
    -------
    (low, high)
    """
    names = sorted(set(groups))
    position = {name: index for index, name in enumerate(names)}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, group in zip(values, groups, strict=True):
        sums[position[group]] += value
        counts[position[group]] += 1
    drawn = np.random.default_rng(seed).integers(len(names), size=(_RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
