"""Which phases a site trains at a moment of a round: with how many steps, and at what rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from napari_fedsam.personalization.methods import Phase, method_named
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.samples import TrainingSample, grouped_by_image

Moment = Literal["update", "personalise"]
MOMENTS: tuple[Moment, ...] = ("update", "personalise")
"""Before the exchange of shared parameters, and after their aggregation."""

# Of the learning rate: what is left of it in the last round.
_LAST_ROUND = 0.1
# What is trained after the last round begins anew: at the last round's rate it would hardly move.
_FINALE = 0.5
_WARM_UP_SHARE = 0.1
# AdamW's first steps move every parameter by the whole rate, whatever the gradient: phases of fewer
# steps than this stay below the peak in proportion, or a handful of cases would wreck the decoder.
_STEPS_FOR_PEAK = 20


@dataclass(frozen=True)
class Stretch:
    """A phase with its number of optimiser steps and its highest rate."""

    phase: Phase
    steps: int
    peak: float

    def rate(self, step: int) -> float:
        """Return the rate of a step, from 0: a linear warm-up, then half a cosine towards zero."""
        peak = self.peak * min(1.0, self.steps / _STEPS_FOR_PEAK)
        warm_up = max(1, round(_WARM_UP_SHARE * self.steps))
        if step < warm_up:
            return peak * (step + 1) / warm_up
        return peak * _half_cosine((step - warm_up) / max(1, self.steps - warm_up))


def stretches(recipe: Recipe, images: int, moment: Moment, round_number: int = 1) -> list[Stretch]:
    """Return the phases that are due, in order.

    Parameters
    ----------
    recipe : Recipe
    images : int
        Different images among the site's training samples.
    moment : {"update", "personalise"}
    round_number : int
        From 1; later rounds train at a lower rate.
    """
    method, rounds = method_named(recipe.method), recipe.rounds
    now = method.before_exchange(recipe.options) if moment == "update" else method.personalise
    rate = recipe.training.learning_rate * method.rate
    peak = rate * _share_of_rate(recipe, round_number)
    due = [Stretch(phase, _steps(recipe, images, phase), peak) for phase in now]
    if moment == "personalise" and round_number == rounds:
        peak = rate * _FINALE
        due += [
            Stretch(phase, _steps(recipe, images, phase, rounds), peak) for phase in method.finale
        ]
    return [stretch for stretch in due if stretch.steps]


def planned_steps(
    recipe: Recipe, samples: Sequence[TrainingSample], moment: Moment, round_number: int = 1
) -> int:
    """Return how many steps a local update will take."""
    images = len(grouped_by_image(samples))
    return sum(stretch.steps for stretch in stretches(recipe, images, moment, round_number))


def _steps(recipe: Recipe, images: int, phase: Phase, times: int = 1) -> int:
    method, options = method_named(recipe.method), recipe.training
    before = method.before_exchange(recipe.options)
    kinds = {p.trains for p in (*before, *method.personalise, *method.finale)}
    share = 1.0
    if len(kinds) > 1:
        local = options.local_share
        share = local if phase.trains == "local" else 1 - local
    epochs = options.epochs * share * times
    return math.ceil(epochs * images / options.batch_size - 1e-9)


def _share_of_rate(recipe: Recipe, round_number: int) -> float:
    """Return what a round has of the learning rate."""
    passed = min(1.0, (round_number - 1) / recipe.rounds)
    return max(_LAST_ROUND, _half_cosine(passed))


def _half_cosine(passed: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * passed))
