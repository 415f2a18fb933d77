import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_fedsam.federation.privacy import (
    epsilon_spent,
    noise_deviation,
    privacy_in_words,
    privatise,
)
from napari_fedsam.personalization.federation_options import PrivacyOptions


def options(noise="local", z=1.0, clip=5.0, delta=1e-5):
    return PrivacyOptions(noise=noise, clipping_norm=clip, noise_multiplier=z, delta=delta)


def test_epsilon_of_one_release_is_the_exact_gaussian_one():
    """Balle and Wang: delta(eps) = Phi(1/2z - eps z) - exp(eps) Phi(-1/2z - eps z)."""

    def phi(x):
        return 0.5 * math.erfc(-x / math.sqrt(2))

    for z in (0.5, 1.0, 3.0):
        epsilon = epsilon_spent(options(z=z), 1)
        delta = phi(1 / (2 * z) - epsilon * z) - math.exp(epsilon) * phi(-1 / (2 * z) - epsilon * z)
        assert delta == pytest.approx(1e-5, rel=1e-6)


def test_epsilon_is_below_the_bound_by_renyi_divergence():
    """min over a of a T / 2z^2 + log(1/delta) / (a - 1) (Mironov 2017)."""
    z, rounds, delta = 1.0, 10, 0.01
    bound = min(
        order * rounds / (2 * z**2) + math.log(1 / delta) / (order - 1)
        for order in np.linspace(1.01, 100, 5000)
    )
    epsilon = epsilon_spent(options(z=z, delta=delta), rounds)
    assert 0.5 * bound < epsilon < bound


def test_the_figures_of_the_documents_are_those_of_the_function():
    page = (Path(__file__).parents[2] / "docs" / "federation.md").read_text(encoding="utf-8")
    heading = re.search(r"\| noise multiplier \|(.*)\|\n", page)
    rounds = [int(cell.split()[0]) for cell in heading[1].split("|")]
    lines = page[heading.end() :].split("\n\n")[0].splitlines()[1:]
    assert (len(rounds), len(lines)) == (3, 6)
    for line in lines:
        multiplier, *told = [float(cell) for cell in line.strip("| ").split("|")]
        spent = [epsilon_spent(options(z=multiplier), count) for count in rounds]
        # Three digits are given.
        assert told == pytest.approx(spent, rel=0.005)
    enough = float(re.search(r"ten rounds below 1 need a multiplier of (\d+)", page)[1])
    assert epsilon_spent(options(z=enough), 10) < 1 < epsilon_spent(options(z=enough - 1), 10)


def test_epsilon_grows_with_rounds_and_falls_with_noise():
    assert epsilon_spent(options(), 0) == 0
    values = [epsilon_spent(options(), rounds) for rounds in (1, 2, 10, 1000)]
    assert values == sorted(values)
    assert epsilon_spent(options(z=1e9), 1) == 0
    assert epsilon_spent(options(z=2), 4) == pytest.approx(epsilon_spent(options(z=1), 1))
    assert math.isfinite(epsilon_spent(options(z=0.1), 100))


def test_an_update_is_clipped_and_noised_before_it_is_sent():
    received = {"a": torch.zeros(200, 500), "b": torch.ones(3)}
    trained = {"a": torch.full((200, 500), 7.0), "b": torch.ones(3)}
    sent = privatise(trained, received, options(z=0.5, clip=2.0))
    assert sent.keys() == trained.keys()
    assert all(sent[name].dtype == trained[name].dtype for name in sent)
    noise = (sent["a"] - 2.0 / math.sqrt(100_000)).numpy()
    assert noise.std() == pytest.approx(1.0, rel=0.02)
    assert noise.mean() == pytest.approx(0.0, abs=0.02)
    assert not torch.equal(sent["b"], received["b"])


def test_a_seed_that_everybody_knows_does_not_tell_the_noise():
    received = {"a": torch.zeros(10)}
    sent = []
    for _ in range(2):
        np.random.seed(1)
        torch.manual_seed(1)
        sent.append(privatise(received, received, options()))
    assert not torch.equal(sent[0]["a"], sent[1]["a"])


def test_the_noise_on_a_mean_shrinks_with_the_sites():
    assert noise_deviation(options(), 1) == 5
    assert noise_deviation(options(), 10) == pytest.approx(0.5)


def test_the_words_say_what_is_promised_and_what_not():
    assert "exact update" in privacy_in_words(None, 10)
    weak = privacy_in_words(options("central", z=0.3), 10)
    assert "coordinator adds noise" in weak
    assert "still sees each site's exact update" in weak
    assert "which is weak" in weak
    strong = privacy_in_words(options(z=100), 10)
    assert "this site adds noise" in strong
    assert "which is strong" in strong
    assert "without noise" in strong


def test_whoever_joins_is_told_how_many_updates_with_noise_there_will_be():
    assert "no more updates than the recipe has rounds (7)" in privacy_in_words(options(), 7)
    assert "no more updates" not in privacy_in_words(options("central"), 7)
