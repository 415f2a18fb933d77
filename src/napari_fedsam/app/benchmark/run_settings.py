"""What a run's numbers depend on, so that those of other settings are never taken for them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from napari_fedsam.app.benchmark.experiment import Run, TrainedRun
from napari_fedsam.app.benchmark.measuring import distance_unit
from napari_fedsam.app.benchmark.results import ResultsError
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.segmentation_task import TaskSite

_MISSING = object()


def settings_of(run: Run, sites: Sequence[TaskSite], split: str) -> dict[str, Any]:
    """Return a run's recipe and data, fit for JSON.

    Parameters
    ----------
    run : Run
    sites : sequence of TaskSite
        All sites of the task.
    split : {"test", "val"}
        What is measured.
    """
    inside, measured = sites_of(run, sites)
    return {
        "run": json.loads(run.model_dump_json()),
        "split": split,
        "train_images": {site.name: _images(site.train) for site in inside},
        "measured_images": {site.name: _images(held_out(site, split)) for site in measured},
        "distances": distance_unit([s for site in measured for s in held_out(site, split)]),
        "data": _digest([*(s.train for s in inside), *(held_out(s, split) for s in measured)]),
    }


def sites_of(run: Run, sites: Sequence[TaskSite]) -> tuple[list[TaskSite], list[TaskSite]]:
    """Return the sites that a run trains at, and those that it measures."""
    if not isinstance(run, TrainedRun):
        return [], list(sites)
    inside = [site for site in sites if site.name != run.unseen]
    return inside, [site for site in sites if site.name == run.unseen] if run.unseen else inside


def held_out(site: TaskSite, split: str) -> list[TrainingSample]:
    """Return the samples of a site that a split measures."""
    return site.test if split == "test" else site.val


def check_same(kept: Mapping[str, Any], given: Mapping[str, Any], what: str, advice: str) -> None:
    """Refuse to mix a kept run with one of other settings.

    Parameters
    ----------
    kept, given : dict
        See `settings_of`. Of these facts themselves, those that only one of them tells are not
        compared; within the recipe what is missing differs, for its default was another then.
    what, advice : str
        Beginning and end of the message.

    Raises
    ------
    ResultsError
        Naming the first setting that differs.
    """
    for key in [key for key in given if key in kept]:
        difference = _difference(kept[key], given[key], key)
        if difference:
            raise ResultsError(f"{what} has other settings ({difference}): {advice}.")


def _digest(parts: Sequence[Sequence[TrainingSample]]) -> str:
    """Return the SHA-256 of the images and masks that are trained on and measured, by group."""
    digest = hashlib.sha256()
    for number, part in enumerate(parts):
        for sample in part:
            named = (number, sample.id, sample.group, sample.structure, sample.image.shape)
            digest.update(repr(named).encode() + sample.image.tobytes() + sample.mask.tobytes())
    return digest.hexdigest()


def _images(samples: Sequence[TrainingSample]) -> int:
    return len({sample.id for sample in samples})


def _difference(kept: Any, given: Any, path: str) -> str:
    if kept == given:
        return ""
    if isinstance(kept, dict) and isinstance(given, dict):
        found = (
            _difference(kept.get(key, _MISSING), given.get(key, _MISSING), f"{path}.{key}")
            for key in sorted({*kept, *given})
        )
        return next(filter(None, found))
    there, here = ("missing" if value is _MISSING else json.dumps(value) for value in (kept, given))
    return f"{path} is {there} there and {here} here"
