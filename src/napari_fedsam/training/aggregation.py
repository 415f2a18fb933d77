"""Combining the sites' updates of the shared parameters."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from napari_fedsam.personalization.personalised_model import State


def weighted_average(
    states: Sequence[State], weights: Sequence[float] | NDArray[np.float64]
) -> State:
    """Return the average of parameters, by name (FedAvg, McMahan et al. 2017).

    Parameters
    ----------
    states : sequence of dict of str to float32 tensor
        With the same names and shapes.
    weights : sequence of float
        One for each, in any scale.
    """
    total = float(sum(weights))
    average: State = {}
    for name, first in states[0].items():
        mean = torch.zeros_like(first, dtype=torch.float64)
        for state, weight in zip(states, weights, strict=True):
            mean += state[name].double() * (float(weight) / total)
        average[name] = mean.float()
    return average


def similarity_weights(states: Sequence[State], before: Sequence[State]) -> NDArray[np.float64]:
    """Return for every site the weights of all sites' parameters, by how alike the updates are.

    A weight is the cosine similarity of the two updates, 0 where it is negative; a site's own
    update has weight 1. Rows sum to 1.

    Parameters
    ----------
    states : sequence of dict of str to tensor
        The sites' parameters after training.
    before : sequence of dict of str to tensor
        What each site started from.

    Returns
    -------
    float64 array of shape (sites, sites)
    """
    updates = torch.stack(
        [
            torch.cat([(after[name] - start[name]).flatten().double() for name in sorted(after)])
            for after, start in zip(states, before, strict=True)
        ]
    )
    directions = torch.nn.functional.normalize(updates, dim=1)
    likeness = (directions @ directions.T).clamp_min(0).fill_diagonal_(1.0)
    weights: NDArray[np.float64] = (likeness / likeness.sum(dim=1, keepdim=True)).numpy()
    return weights
