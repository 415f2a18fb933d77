"""The base model without any training, for comparison."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from napari_fedsam.app.benchmark.environment import environment
from napari_fedsam.app.benchmark.experiment import Run
from napari_fedsam.app.benchmark.measuring import HeldOutMeasurement
from napari_fedsam.app.benchmark.results import RunTables
from napari_fedsam.app.benchmark.run_settings import held_out, settings_of
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.registry import DEFAULT_MODEL, load_model
from napari_fedsam.training.feature_cache import CachedEncoder, FeatureCache
from napari_fedsam.training.segmentation_task import TaskSite, structures_of

BASE = "base"
"""Its name among the methods."""


def measure_base_model(
    run: Run,
    sites: Sequence[TaskSite],
    *,
    device: torch.device,
    cache: FeatureCache,
    split: str,
    clicks: bool,
) -> tuple[RunTables, dict[str, Any]]:
    """Measure boxes and clicks on every site's held-out images; it makes no proposals.

    Returns
    -------
    (RunTables, dict)
        The numbers, of round 0, and what they depend on.
    """
    started = time.monotonic()
    model, tables = load_model(DEFAULT_MODEL), RunTables(run)
    model.image_encoder.to(device)
    model.prompt_encoder.to(device)
    model.mask_decoder.to(device)
    model.image_encoder.requires_grad_(False)
    names = {part.structure.value: part.structure.name for part in structures_of(run.task)}
    for site in sites:
        measurement = HeldOutMeasurement(
            Predictor(model, device=str(device)),
            CachedEncoder(model, cache).encode,
            held_out(site, split),
            tables,
            names,
            site=site.name,
            number=0,
        )
        measurement.prompts(("box", "point"), images=True)
        if clicks:
            measurement.clicks(proposes=False)
    facts = settings_of(run, sites, split) | {
        "environment": environment(),
        "seconds": round(time.monotonic() - started, 1),
    }
    return tables, facts
