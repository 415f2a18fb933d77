"""All runs that a federated benchmark asks for, those that are finished left out."""

import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_fedsam.app.benchmark.base_model import BASE, measure_base_model
from napari_fedsam.app.benchmark.experiment import (
    ExperimentConfig,
    Protocol,
    Run,
    TrainedRun,
    recipe_for,
)
from napari_fedsam.app.benchmark.federated import EngineName, FederatedRun, unfinished_folder
from napari_fedsam.app.benchmark.results import ResultsFolder
from napari_fedsam.app.benchmark.run_settings import check_same, settings_of
from napari_fedsam.training.devices import choose_device
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.segmentation_task import TaskSite, load_task, structures_of

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
    RecipeError, ManifestError
        When names, options or data do not fit; nothing was run then.
    ResultsError
        When a run of the same name that is kept in `out` has other settings.
    """
    chosen = choose_device(device)
    results = ResultsFolder(out)
    cache = FeatureCache(out / "cache", budget_bytes=_CACHE_BYTES)
    for task in tasks:
        structures = tuple(part.structure for part in structures_of(task))
        sites = load_task(data, task, train_images=train_images)
        further = load_task(further_data, task, train_images=1) if further_data else []
        left_out = [site.name for site in sites] if protocol == "unseen_site" else [""]
        if BASE in methods:
            run = Run(task=task, method=BASE)
            finished = results.runs.get(run.name)
            _check_finished(finished, run, sites, split)
            if again or finished is None:
                tables, facts = measure_base_model(
                    run, sites, device=chosen, cache=cache, split=split, clicks=clicks
                )
                if not clicks:
                    earlier = results.of(run)
                    tables.results += [row for row in earlier[0] if row.prompt == "clicks"]
                    tables.images += [row for row in earlier[1] if row.prompt == "clicks"]
                results.add(run, tables, facts)
        trained = [method for method in methods if method != BASE]
        for seed, method, unseen in itertools.product(seeds, trained, left_out):
            recipe = recipe_for(method, task, structures, config, rounds=rounds, seed=seed)
            training = TrainedRun(
                task=task,
                method=method,
                protocol=protocol,
                unseen=unseen,
                seed=seed,
                recipe=recipe,
                train_images=train_images,
            )
            finished = results.runs.get(training.name)
            _check_finished(finished, training, sites, split)
            if finished is not None and not again:
                continue
            if not resume:
                shutil.rmtree(unfinished_folder(out, training), ignore_errors=True)
            job = FederatedRun(
                training,
                sites,
                out,
                engine=engine,
                device=chosen,
                cache=cache,
                split=split,
                clicks=clicks,
                tell=tell,
                further=further if protocol == "in_federation" else (),
                save_models=save_models or again,
            )
            if finished is not None:
                facts = job.measure_again(*results.of(training), finished)
                results.add(training, job.tables, facts)
                continue
            facts = job.execute()
            results.add(training, job.tables, facts)
            shutil.rmtree(job.folder, ignore_errors=True)


def _check_finished(
    facts: Mapping[str, Any] | None, run: Run, sites: Sequence[TaskSite], split: str
) -> None:
    if facts is None:
        return
    given = settings_of(run, sites, split)
    if run.method == BASE:
        del given["train_images"]
    check_same(facts, given, f"The finished run {run.name}", "choose another --out")
