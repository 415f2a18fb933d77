"""`napari-fedsam benchmark training`: our trainer against a plain loop, side by side.

The plain loop runs the whole encoder in float32 at every step, without cached features, fused
norms or bfloat16, on the same parameters, batches and losses. Each side runs in a process of its
own, so that its peak memory is its own.
"""

import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Literal

import numpy as np
import torch

from napari_fedsam.annotation.sample import SAMPLE_STRUCTURES, load_sample
from napari_fedsam.imaging.window import apply_window, default_window
from napari_fedsam.personalization import PersonalisedModel, Recipe, build_personalised_model
from napari_fedsam.training.feature_cache import (
    CachedEncoder,
    FeatureCache,
    PlainEncoder,
    TrainingEncoder,
)
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.schedule import MOMENTS

Side = Literal["cached", "plain"]


@dataclass(frozen=True)
class SideResult:
    """What one side took.

    Parameters
    ----------
    images_per_second : float
        Over a default local update, with filling the cache.
    warm_images_per_second : float
        Over a second one, with the cache filled.
    peak_mib : float
        Of the process.
    losses : tuple of float
        Of the first steps.
    """

    images_per_second: float
    warm_images_per_second: float
    peak_mib: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class TrainingSpeed:
    """Both sides, and the machine.

    Parameters
    ----------
    cached, plain : SideResult
    loss_differences : tuple of float
        The relative difference of the loss at each of the compared steps. Rounding moves both
        sides apart with every step, and simulated clicks fall elsewhere then.
    machine : dict of str to str
    """

    cached: SideResult
    plain: SideResult
    loss_differences: tuple[float, ...]
    machine: dict[str, str]

    @property
    def speedup(self) -> float:
        """Images per second of our trainer over those of the plain loop."""
        return self.cached.images_per_second / self.plain.images_per_second


def measure_training_speed(
    method: str, *, images: int, plain_steps: int, compared_steps: int
) -> TrainingSpeed:
    """Train on slices of the embedded sample by both sides.

    Parameters
    ----------
    method : str
    images : int
        Training images of the local update.
    plain_steps : int
        Steps of the plain loop that are timed; each takes as long as the others.
    compared_steps : int
        Steps over which the losses are compared.
    """
    results: dict[Side, SideResult] = {}
    sides: tuple[Side, ...] = ("cached", "plain")
    for side in sides:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            results[side] = pool.submit(
                _measure_side, side, method, images, plain_steps, compared_steps
            ).result()
    pairs = list(zip(results["cached"].losses, results["plain"].losses, strict=True))
    differences = tuple(abs(a - b) / abs(b) for a, b in pairs)
    return TrainingSpeed(results["cached"], results["plain"], differences, _machine())


def _measure_side(
    side: Side, method: str, images: int, plain_steps: int, compared_steps: int
) -> SideResult:
    samples = _sample_slices(images)
    recipe = Recipe(name="benchmark", method=method, structures=SAMPLE_STRUCTURES[1:])
    if side == "cached":
        model = build_personalised_model(recipe)
        encoder: TrainingEncoder = CachedEncoder(model, FeatureCache())
    else:
        model = build_personalised_model(_with_steps(recipe, plain_steps, images))
        encoder = PlainEncoder(model)
    cold = _images_per_second(model, samples, encoder)
    # A plain loop has nothing to warm up.
    warm = _images_per_second(model, samples, encoder) if side == "cached" else cold
    peak = _peak_mib()
    return SideResult(cold, warm, peak, _losses(side, recipe, samples, compared_steps))


def _images_per_second(
    model: PersonalisedModel, samples: Sequence[TrainingSample], encoder: TrainingEncoder
) -> float:
    started = time.perf_counter()
    updates = [
        local_update(model, samples, seed=0, moment=moment, encoder=encoder) for moment in MOMENTS
    ]
    steps = sum(update.steps for update in updates)
    return steps * model.recipe.training.batch_size / (time.perf_counter() - started)


def _losses(
    side: Side, recipe: Recipe, samples: Sequence[TrainingSample], steps: int
) -> tuple[float, ...]:
    model = build_personalised_model(_with_steps(recipe, steps, len(samples), phases=1))
    encoder: TrainingEncoder = PlainEncoder(model)
    if side == "cached":
        encoder = CachedEncoder(model, FeatureCache())
    return local_update(model, samples, seed=0, encoder=encoder).losses


def _with_steps(recipe: Recipe, steps: int, images: int, *, phases: int = 2) -> Recipe:
    """Return the recipe with about so many steps in all, or in the shared phase alone."""
    epochs = steps * recipe.training.batch_size / images
    changes = {"epochs": epochs} if phases > 1 else {"epochs": epochs, "local_share": 0.0}
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


def _sample_slices(count: int) -> list[TrainingSample]:
    """Return axial slices of the embedded head MR that show white matter."""
    sample = load_sample()
    structure = SAMPLE_STRUCTURES[1]
    masks = sample.mask(structure)
    shown = [index for index in range(len(masks)) if masks[index].any()]
    chosen = [shown[i] for i in np.linspace(0, len(shown) - 1, count).round().astype(int)]
    pixels = apply_window(sample.scan.pixels, default_window(sample.scan))
    return [
        TrainingSample(f"slice {i}", "sample", pixels[i], masks[i], structure.value) for i in chosen
    ]


def _peak_mib() -> float:
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process(os.getpid()).memory_info().peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _machine() -> dict[str, str]:
    return {
        "processor": platform.processor() or platform.machine(),
        "processors": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }
