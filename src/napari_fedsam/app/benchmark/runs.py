"""All runs that a federated benchmark asks for, those that are finished left out."""

import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from napari_fedsam.app.benchmark.base_model import BASE, measure_base_model
from napari_fedsam.app.benchmark.experiment import (
    ExperimentConfig,
    Protocol,
    Run,
    TrainedRun,
    check_protocol,
    recipe_for,
)
from napari_fedsam.app.benchmark.federated import EngineName, FederatedRun, unfinished_folder
from napari_fedsam.app.benchmark.results import ResultsFolder
from napari_fedsam.app.benchmark.run_settings import check_same, settings_of
from napari_fedsam.training.devices import choose_device
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.segmentation_task import TaskSite, load_task

_CACHE_BYTES = 8 * 1024**3


def run_benchmark(
    data: Path,
    tasks: Sequence[str],
    methods: Sequence[str],
    out: Path,
    *,
    rounds: int,
    seeds: Sequence[int],
    protocol: Protocol,
    config: ExperimentConfig,
    train_images: int | None,
    split: str,
    clicks: bool,
    engine: EngineName,
    device: str,
    tell: Callable[[str], None],
    further_data: Path | None = None,
    save_models: bool = False,
    resume: bool = True,
    again: bool = False,
) -> None:
    """Run every method on every task with every seed, and write `results.csv` in `out`.

    Parameters
    ----------
    data : Path
        The manifest.
    tasks, methods : sequence of str
        The method "base" is the base model without training.
    out : Path
    rounds : int
    seeds : sequence of int
    protocol : {"in_federation", "unseen_site"}
    config : ExperimentConfig
    train_images : int or None
    split : {"test", "val"}
    clicks : bool
    engine : {"direct", "inprocess", "simulation"}
    device : str
    tell : callable
        Receives lines for the log.
    further_data : Path, optional
        A manifest with test images for the final models.
    save_models : bool
        Whether each site's final model is kept under `out`/models.
    resume : bool
        Whether an interrupted run goes on after its last finished round, or begins anew.
    again : bool
        Whether finished runs, whose models were kept, are measured again without training.

    Raises
    ------
    RecipeError
        When names or options do not fit; nothing was run then.
    ManifestError
        When a task's data do not fit; the tasks before it were run then.
    ResultsError
        When a run of the same name that is kept in `out` has other settings.
    """
    trained = [method for method in methods if method != BASE]
    # All of them before the first is run: a wrong name is to be told now, not in some hours.
    recipes = {
        (task, seed, method): recipe_for(method, task, config, rounds=rounds, seed=seed)
        for task, seed, method in itertools.product(tasks, seeds, trained)
    }
    for recipe in recipes.values():
        check_protocol(protocol, recipe)
    results = ResultsFolder(out)
    jobs = _Jobs(
        out,
        results,
        FeatureCache(out / "cache", budget_bytes=_CACHE_BYTES),
        choose_device(device),
        engine=engine,
        split=split,
        clicks=clicks,
        tell=tell,
        save_models=save_models,
        resume=resume,
        again=again,
    )
    for task in tasks:
        sites = load_task(data, task, train_images=train_images)
        further = load_task(further_data, task, train_images=1) if further_data else []
        if BASE in methods:
            jobs.measure_base(Run(task=task, method=BASE), sites)
        left_out = [site.name for site in sites] if protocol == "unseen_site" else [""]
        for seed, method, unseen in itertools.product(seeds, trained, left_out):
            run = TrainedRun(
                task=task,
                method=method,
                protocol=protocol,
                unseen=unseen,
                seed=seed,
                recipe=recipes[task, seed, method],
                train_images=train_images,
            )
            jobs.train(run, sites, further if protocol == "in_federation" else ())


@dataclass(frozen=True, eq=False)
class _Jobs:
    """Runs what is not finished yet, and keeps its numbers; see `run_benchmark`."""

    out: Path
    results: ResultsFolder
    cache: FeatureCache
    device: torch.device
    engine: EngineName
    split: str
    clicks: bool
    tell: Callable[[str], None]
    save_models: bool
    resume: bool
    again: bool

    def measure_base(self, run: Run, sites: Sequence[TaskSite]) -> None:
        finished = self._finished(run, sites)
        if finished is not None and not self.again:
            return
        tables, facts = measure_base_model(
            run,
            sites,
            device=self.device,
            cache=self.cache,
            split=self.split,
            clicks=self.clicks,
        )
        if not self.clicks:
            earlier = self.results.of(run)
            tables.results += [row for row in earlier[0] if row.prompt == "clicks"]
            tables.images += [row for row in earlier[1] if row.prompt == "clicks"]
        self.results.add(run, tables, facts)

    def train(
        self, run: TrainedRun, sites: Sequence[TaskSite], further: Sequence[TaskSite]
    ) -> None:
        finished = self._finished(run, sites)
        if finished is not None and not self.again:
            return
        if not self.resume:
            shutil.rmtree(unfinished_folder(self.out, run), ignore_errors=True)
        job = FederatedRun(
            run,
            sites,
            self.out,
            engine=self.engine,
            device=self.device,
            cache=self.cache,
            split=self.split,
            clicks=self.clicks,
            tell=self.tell,
            further=further,
            save_models=self.save_models or self.again,
        )
        if finished is not None:
            facts = job.measure_again(*self.results.of(run), finished)
            self.results.add(run, job.tables, facts)
            return
        facts = job.execute()
        self.results.add(run, job.tables, facts)
        shutil.rmtree(job.folder, ignore_errors=True)

    def _finished(self, run: Run, sites: Sequence[TaskSite]) -> dict[str, Any] | None:
        """Return the facts of a finished run of these settings."""
        facts = self.results.runs.get(run.name)
        if facts is not None:
            given = settings_of(run, sites, self.split)
            check_same(facts, given, f"The finished run {run.name}", "choose another --out")
        return facts
