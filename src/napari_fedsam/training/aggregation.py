"""Combining the sites' updates of the shared parameters, as the coordinator does."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from napari_fedsam.personalization.personalised_model import State


def update_between(before: State, after: State) -> State:
    """Return what training changed, by name."""
    return {name: after[name] - before[name] for name in before}


def weighted_mean(states: Sequence[State], weights: Sequence[float]) -> State:
    """Return the weighted mean of parameters or updates (McMahan et al. 2017, 1602.05629).

    Parameters
    ----------
    states : sequence of dict of str to float32 tensor
        With the same names and shapes.
    weights : sequence of float
        One for each, summing to 1.
    """
    means: State = {}
    for name, first in states[0].items():
        mean = torch.zeros_like(first, dtype=torch.float64)
        for state, weight in zip(states, weights, strict=True):
            mean += state[name] * weight
        means[name] = mean.float()
    return means


def add_update(start: State, update: State, times: float = 1.0) -> State:
    """Return parameters plus an update taken `times` times."""
    return {name: value + times * update[name] for name, value in start.items()}


def case_weights(cases: Sequence[int]) -> list[float]:
    """Return weights in proportion to the sites' cases."""
    return [count / sum(cases) for count in cases]


def similarity_weights(updates: Sequence[State], weights: Sequence[float]) -> list[list[float]]:
    """Return for every site the weights of all sites' updates, by how alike the updates are.

    The cosine between two updates, 0 where it is negative, times the other site's weight; a
    site's own update always counts. Rows sum to 1.

    Parameters
    ----------
    updates : sequence of dict of str to tensor
    weights : sequence of float
        One for each site.
    """
    flat = torch.stack(
        [
            torch.cat([update[name].flatten().double() for name in sorted(update)])
            for update in updates
        ]
    )
    directions = torch.nn.functional.normalize(flat, dim=1)
    likeness: NDArray[np.float64] = (directions @ directions.T).numpy()
    np.fill_diagonal(likeness, 1.0)
    likeness = np.maximum(likeness, 0.0) * np.array(weights)
    rows: list[list[float]] = (likeness / likeness.sum(axis=1, keepdims=True)).tolist()
    return rows
