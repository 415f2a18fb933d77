"""All runs that a federated benchmark asks for, those that are finished left out."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_fedsam.app.benchmark.base_model import BASE, measure_base_model
from napari_fedsam.app.benchmark.experiment import (
    ExperimentConfig,
    Protocol,
    Run,
    TrainedRun,
    recipe_for,
)
from napari_fedsam.app.benchmark.federated import EngineName, FederatedRun
from napari_fedsam.app.benchmark.results import ResultsFolder
from napari_fedsam.training.devices import choose_device
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.segmentation_task import load_task, structures_of

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
            if again or run.name not in results.runs:
                tables, facts = measure_base_model(
                    run, sites, device=chosen, cache=cache, split=split, clicks=clicks
                )
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
            if finished is not None and not again:
                continue
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
                facts = job.measure_again(results.of(training), finished)
                results.add(training, job.tables, facts)
                continue
            if not resume:
                job.discard_state()
            facts = job.execute()
            results.add(training, job.tables, facts)
            job.discard_state()
