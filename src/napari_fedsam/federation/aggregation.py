"""Combining the updates of a round, piece by piece, with Flower's aggregation functions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.server.strategy.aggregate import aggregate_median, aggregate_trimmed_avg

from napari_fedsam.federation.privacy import clip_factor, noise_deviation, noise_like
from napari_fedsam.federation.update_folder import UpdateFolder, Vector
from napari_fedsam.personalization.federation_options import FederationOptions

# The values of Reddi et al. 2021 (arXiv 2003.00295), as in Flower's FedAdam.
_BETA_1, _BETA_2, _TAU = 0.9, 0.99, 1e-3

Weights = Mapping[str, float]
Matrix = np.ndarray[Any, np.dtype[np.float64]]


def site_weights(cases: Mapping[str, int], options: FederationOptions) -> dict[str, float]:
    """Return what each site weighs; the weights sum to 1."""
    if options.weights == "equal":
        return dict.fromkeys(cases, 1 / len(cases))
    cap = options.case_cap or max(cases.values())
    capped = {site: min(count, cap) for site, count in cases.items()}
    total = sum(capped.values())
    return {site: count / total for site, count in capped.items()}


def combine(updates: UpdateFolder, weights: Weights, options: FederationOptions) -> Vector:
    """Return the combined update of the sites in `weights`.

    Parameters
    ----------
    updates : UpdateFolder
        Holds an update of each.
    weights : mapping of str to float
        By site, summing to 1; used by averages alone.
    options : FederationOptions

    Returns
    -------
    Vector
        The mean (as often as it is to be taken), median, trimmed mean or mean of those chosen; with
        privacy, clipped and, where the coordinator adds it, with noise.
    """
    if options.aggregation == "krum":
        kept = _krum_choice(updates, tuple(weights), options)
        return weighted_mean(updates, dict.fromkeys(kept, 1 / len(kept)))
    if options.aggregation in ("median", "trimmed_mean"):
        return _robust(updates, tuple(weights), options)
    if options.privacy is None or options.privacy.noise == "local":
        return weighted_mean(updates, weights) * np.float32(options.times(len(weights)))
    clipped = {
        site: weight * clip_factor(updates.norms[site], options.privacy)
        for site, weight in weights.items()
    }
    mean = weighted_mean(updates, clipped)
    mean += noise_like(mean, noise_deviation(options.privacy, len(weights)))
    return mean


def weighted_mean(updates: UpdateFolder, weights: Weights) -> Vector:
    """Return the sum of the updates times their weights."""
    sites = tuple(weights)
    parts = []
    for _, pieces in updates.pieces(sites):
        total = np.zeros(len(pieces[0]), dtype=np.float64)
        for site, piece in zip(sites, pieces, strict=True):
            total += weights[site] * piece
        parts.append(total.astype(np.float32))
    return np.concatenate(parts)


def adam_step(
    update: Vector, moments: Mapping[str, Vector] | None, step: int, learning_rate: float
) -> tuple[Vector, dict[str, Vector]]:
    """Turn a mean update into FedAdam's, as in Flower's `FedAdam`.

    Parameters
    ----------
    update : Vector
        Mean update of the round.
    moments : mapping of {"first", "second"} to Vector, optional
        Of the round before, None before the first.
    step : int
        Which step this is, counted from 1.
    learning_rate : float

    Returns
    -------
    step, moments : Vector, dict of str to Vector
        What is added to the shared parameters, and the new moments.
    """
    before = moments or {"first": np.zeros_like(update), "second": np.zeros_like(update)}
    first = _BETA_1 * before["first"] + (1 - _BETA_1) * update
    second = _BETA_2 * before["second"] + (1 - _BETA_2) * update**2
    rate = learning_rate * np.sqrt(1 - _BETA_2 ** (step + 1)) / (1 - _BETA_1 ** (step + 1))
    change = rate * first / (np.sqrt(second) + _TAU)
    return change.astype(np.float32), {
        "first": first.astype(np.float32),
        "second": second.astype(np.float32),
    }


def similarity_weights(updates: UpdateFolder, weights: Weights) -> dict[str, dict[str, float]]:
    """Return, for each site, the weights of its own average: how alike the updates are.

    The cosine between two updates, times the weight of the other site; negative ones count as
    zero. A site's own update always counts.
    """
    sites = tuple(weights)
    products = updates.inner_products(sites)
    lengths = np.sqrt(np.diag(products))
    alike: Matrix = products / np.maximum(np.outer(lengths, lengths), np.finfo(float).tiny)
    np.fill_diagonal(alike, 1.0)
    alike = np.maximum(alike, 0.0) * np.array([weights[site] for site in sites])
    alike /= alike.sum(axis=1, keepdims=True)
    return {
        site: dict(zip(sites, row.tolist(), strict=True))
        for site, row in zip(sites, alike, strict=True)
    }


def _robust(updates: UpdateFolder, sites: tuple[str, ...], options: FederationOptions) -> Vector:
    parts = []
    for _, pieces in updates.pieces(sites):
        results = [([piece], 1) for piece in pieces]
        if options.aggregation == "median":
            (part,) = aggregate_median(results)
        else:
            (part,) = aggregate_trimmed_avg(results, options.trimmed_share)
        parts.append(part.astype(np.float32))
    return np.concatenate(parts)


def _krum_choice(
    updates: UpdateFolder, sites: tuple[str, ...], options: FederationOptions
) -> list[str]:
    """Return all sites but the f whose nearest neighbours are farthest: Multi-Krum.

    Blanchard et al. 2017; Flower's `aggregate_krum` with n - f to keep. A single site's update,
    as in plain Krum, would leave out what the others have learned.
    """
    products = updates.inner_products(sites)
    squares = np.diag(products)
    distances = squares[:, None] + squares[None, :] - 2 * products
    np.fill_diagonal(distances, 0.0)
    neighbours = max(1, len(sites) - options.malicious_sites - 2)
    # Each row's smallest is the distance to itself.
    scores = np.sort(distances, axis=1)[:, 1 : neighbours + 1].sum(axis=1)
    nearest = np.argsort(scores, kind="stable")[: len(sites) - options.malicious_sites]
    return [sites[index] for index in sorted(nearest)]
