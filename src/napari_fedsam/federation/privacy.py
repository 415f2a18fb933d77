"""Differential privacy of whole sites: clipping, Gaussian noise, and what was spent.

One site's part in a round is one clipped update. Rounds with noise of z clipping norms compose to
one Gaussian mechanism with z / sqrt(rounds), whose epsilon has an exact form (Balle and Wang 2018,
arXiv 1805.06530); sites are not sampled, so there is nothing to amplify it.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from flwr.supercore.differential_privacy import compute_stdv
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from napari_fedsam.personalization.federation_options import PrivacyOptions

_MOST_EPSILON = 1e6


def epsilon_spent(options: PrivacyOptions, rounds: int) -> float:
    """Return epsilon at the options' delta after some rounds (0 before the first).

    Neighbouring federations differ by one site's presence.
    """
    if rounds == 0:
        return 0.0
    mu = math.sqrt(rounds) / options.noise_multiplier

    def excess(epsilon: float) -> float:
        # The second term's factor alone overflows for large epsilon.
        first = norm.cdf(mu / 2 - epsilon / mu)
        second = math.exp(min(epsilon + norm.logcdf(-mu / 2 - epsilon / mu), 0.0))
        return float(first - second) - options.delta

    if excess(0.0) <= 0:
        return 0.0
    if excess(_MOST_EPSILON) > 0:
        return math.inf
    return float(brentq(excess, 0.0, _MOST_EPSILON))


def clip_factor(length: float, options: PrivacyOptions) -> float:
    """Return by what an update of this L2 norm is multiplied."""
    return min(1.0, options.clipping_norm / length) if length > 0 else 1.0


def noise_deviation(options: PrivacyOptions, updates: int = 1) -> float:
    """Return the standard deviation of the noise on a mean of clipped updates."""
    deviation: float = compute_stdv(options.noise_multiplier, options.clipping_norm, updates)
    return deviation


def noise_like(values: np.ndarray, deviation: float) -> np.ndarray:
    """Return Gaussian noise of the values' shape and dtype.

    From the operating system's entropy: Flower's own draws from NumPy's global state, which a
    training may have seeded with a number that everybody knows.
    """
    return np.random.default_rng().normal(0.0, deviation, values.shape).astype(values.dtype)


def privatise(
    trained: Mapping[str, Tensor], received: Mapping[str, Tensor], options: PrivacyOptions
) -> dict[str, Tensor]:
    """Clip a site's update and add this site's own noise, before anything leaves.

    Parameters
    ----------
    trained, received : mapping of str to Tensor
        The shared parameters after and before the training.
    options : PrivacyOptions
        With local noise.

    Returns
    -------
    dict of str to Tensor
        What may be sent in place of `trained`.
    """
    updates = {name: trained[name] - received[name] for name in trained}
    length = math.sqrt(sum(float(update.double().pow(2).sum()) for update in updates.values()))
    factor, deviation = clip_factor(length, options), noise_deviation(options)
    return {
        name: received[name]
        + update * factor
        + torch.from_numpy(np.asarray(noise_like(update.numpy(), deviation)))
        for name, update in updates.items()
    }


def privacy_in_words(options: PrivacyOptions | None, rounds: int) -> str:
    """Say what is promised over the planned rounds, for whoever decides about joining."""
    if options is None:
        return (
            "No noise is added: the coordinator sees this site's exact update, from which parts of "
            "the training images may be guessed."
        )
    epsilon = epsilon_spent(options, rounds)
    who = (
        "the coordinator adds noise to the average (it still sees each site's exact update)"
        if options.noise == "central"
        else "this site adds noise to its own update before it is sent, and makes no more updates "
        f"than the recipe has rounds ({rounds})"
    )
    strength = "strong" if epsilon <= 1 else "moderate" if epsilon <= 10 else "weak"
    return (
        f"Differential privacy: {who}; after {rounds} rounds epsilon is {epsilon:.3g} at delta "
        f"{options.delta:g} for a whole site, which is {strength}. Numbers such as Dice and case "
        "counts are sent without noise."
    )
