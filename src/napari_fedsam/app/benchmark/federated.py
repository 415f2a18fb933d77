"""Runs of `napari-fedsam benchmark federated`: train by a method, measure at every site."""

import itertools
import json
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from napari_fedsam.app.benchmark.experiment import ExperimentConfig, Protocol, Run, recipe_for
from napari_fedsam.app.benchmark.results import (
    FURTHER_DATA,
    ResultsFolder,
    RunTables,
)
from napari_fedsam.files import atomic_path, write_text_atomically
from napari_fedsam.personalization.personalised_model import PersonalisedModel, State
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.training.click_evaluation import clicks_to, dice_after_clicks
from napari_fedsam.training.devices import choose_device
from napari_fedsam.training.evaluation import PromptKind, prompts_for
from napari_fedsam.training.feature_cache import CachedEncoder, FeatureCache
from napari_fedsam.training.metrics import dice
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.segmentation_task import TaskSite, load_task, structures_of
from napari_fedsam.training.simulated_federation import SimulatedFederation, SimulatedSite
from napari_fedsam.training.surface_metrics import surface_metrics
from napari_fedsam.training.versions import VersionStore

if TYPE_CHECKING:
    from napari_fedsam.app.benchmark.flower_engine import FlowerFederation

EngineName = Literal["direct", "inprocess", "simulation"]

_PROMPTS: tuple[PromptKind, ...] = ("none", "box", "point")
_TARGETS = {"noc85": 0.85, "noc90": 0.90}
_CACHE_BYTES = 8 * 1024**3


class FederatedRun:
    """One run, resumed from its last finished round where there is one.

    Parameters
    ----------
    run : Run
    sites : sequence of TaskSite
        All sites of the task.
    folder : Path
        The benchmark's folder.
    engine : {"direct", "inprocess", "simulation"}
        Without Flower; through its apps in this process; through its simulation with Ray.
    device : torch.device
    cache : FeatureCache
        Shared by all runs.
    split : {"test", "val"}
        What is measured.
    clicks : bool
        Whether clicks are counted, which takes long.
    tell : callable
        Receives lines for the log.
    further : sequence of TaskSite
        Test images of none of the sites, for the final models.
    save_models : bool
        Whether the final models are kept.
    """

    def __init__(
        self,
        run: Run,
        sites: Sequence[TaskSite],
        folder: Path,
        *,
        engine: EngineName,
        device: torch.device,
        cache: FeatureCache,
        split: str,
        clicks: bool,
        tell: Callable[[str], None],
        further: Sequence[TaskSite] = (),
        save_models: bool = False,
    ) -> None:
        self.run = run
        self.folder = folder / "unfinished" / run.name
        self._sites = [site for site in sites if site.name != run.unseen]
        measured = [s for s in sites if s.name == run.unseen] if run.unseen else self._sites
        self._held_out = {
            site.name: site.test if split == "test" else site.val for site in measured
        }
        self._cache = cache
        self._clicks = clicks
        self._split = split
        self._engine = engine
        self._tell = tell
        self.federation: SimulatedFederation | FlowerFederation
        if engine == "direct":
            trainers = [SimulatedSite(site.name, site.train) for site in self._sites]
            self.federation = SimulatedFederation(run.recipe, trainers, device, cache)
        else:
            self.federation = _flower_federation(
                engine, run.recipe, self._sites, self.folder / "engine"
            )
        self._names = {s.value: s.name for s in run.recipe.structures}
        self._further = further
        self._models = folder / "models" / run.name if save_models else None
        self._start_local = self.federation.model.local_state()
        self.tables = RunTables(run)

    def execute(self) -> dict[str, Any]:
        """Run what is left of it, and return what the numbers in `tables` depend on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        first = self._resume()
        for number in range(first, self.run.recipe.rounds + 1):
            begun = time.monotonic()
            losses = self.federation.run_round(number)
            seconds = time.monotonic() - begun
            for site, loss in losses.items():
                self.tables.add("loss", loss, number=number, site=site)
            self.tables.add("seconds", seconds, number=number)
            last = number == self.run.recipe.rounds
            for site, samples in self._held_out.items():
                model = self._model_of(site)
                self._measure(model, samples, site, number, _PROMPTS if last else ("none",))
            self._save(number)
            self._tell(self._line(number, seconds))
        for site in self._held_out if self._clicks else ():
            self._count_clicks(site)
        self._measure_further()
        self._keep_models()
        self._add_message_sizes()
        return {
            "run": json.loads(self.run.model_dump_json()),
            "split": self._split,
            "engine": self._engine,
            "environment": environment(),
            "seconds": round(time.monotonic() - started, 1),
            "train_images": {s.name: len({t.id for t in s.train}) for s in self._sites},
            "measured_images": {
                name: len({t.id for t in samples}) for name, samples in self._held_out.items()
            },
        }

    def discard_state(self) -> None:
        """Remove what an interrupted run would go on from."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _add_message_sizes(self) -> None:
        if not self.federation.model.method.federates or not find_spec("flwr"):
            return
        # Not at the top: the direct engine runs where Flower is not installed.
        from napari_fedsam.federation.message_size import round_bytes

        sizes = round_bytes(self.federation.model)
        for number in range(1, self.run.recipe.rounds + 1):
            for site in self._sites:
                self.tables.add("bytes_up", sizes.up, number=number, site=site.name)
                self.tables.add("bytes_down", sizes.down, number=number, site=site.name)

    def _model_of(self, site: str) -> PersonalisedModel:
        if site == self.run.unseen:
            trained = self.federation.shared[self._sites[0].name]
            return self.federation.model.load_shared(trained).load_local(self._start_local)
        return self.federation.personalised(site)

    def _measure_further(self) -> None:
        for site, other in itertools.product(self._sites, self._further):
            name, last = f"{other.name} by {site.name}", self.run.recipe.rounds
            model = self._model_of(site.name)
            self._measure(model, other.test, name, last, _PROMPTS, protocol=FURTHER_DATA)

    def _keep_models(self) -> None:
        """Keep each site's final model as a site keeps its own."""
        if self._models is None:
            return
        for site in self._sites:
            model, folder = self._model_of(site.name), self._models / site.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.run.recipe.write(folder / "recipe.json")
            versions = VersionStore(folder / "versions")
            version = versions.save(
                model.shared_state(),
                model.local_state(),
                round=self.run.recipe.rounds,
                recipe_hash=self.run.recipe.hash,
                dice={},
            )
            versions.activate(version.number)

    def _measure(
        self,
        model: PersonalisedModel,
        samples: Sequence[TrainingSample],
        site: str,
        number: int,
        prompts: Sequence[PromptKind],
        *,
        protocol: str = "",
    ) -> None:
        encode = CachedEncoder(model, self._cache).encode
        predictor = Predictor(model, device=str(self.federation.device))
        last = number == self.run.recipe.rounds
        values: dict[tuple[str, PromptKind, str], list[float]] = {}
        for sample in samples:
            embedding, structure = encode(sample.image), self._names[sample.structure]
            for kind in prompts:
                given = prompts_for(sample, kind)
                if given is None:
                    continue
                mask = predictor.predict(embedding, given, structure=sample.structure).mask
                for metric, value in _measured(
                    mask, sample, surfaces=last and kind == "none" and not protocol
                ):
                    values.setdefault((structure, kind, metric), []).append(value)
                    if last and not protocol:
                        self.tables.add_image(
                            metric,
                            value,
                            sample=sample,
                            site=site,
                            structure=structure,
                            prompt=kind,
                        )
        for (structure, kind, metric), found in values.items():
            mean = float(np.mean(found))
            self.tables.add(
                metric,
                mean,
                number=number,
                site=site,
                structure=structure,
                prompt=kind,
                protocol=protocol,
            )

    def _count_clicks(self, site: str) -> None:
        model = self._model_of(site)
        encode = CachedEncoder(model, self._cache).encode
        predictor = Predictor(model, device=str(self.federation.device))
        counts: dict[tuple[str, str], list[int]] = {}
        for sample in self._held_out[site]:
            if sample.absent:
                continue
            structure = self._names[sample.structure]
            reached = dice_after_clicks(
                predictor, sample, target=max(_TARGETS.values()), proposes=True, encode=encode
            )
            for metric, target in _TARGETS.items():
                count = clicks_to(reached, target)
                counts.setdefault((structure, metric), []).append(count)
                self.tables.add_image(
                    metric, count, sample=sample, site=site, structure=structure, prompt="clicks"
                )
        rounds = self.run.recipe.rounds
        for (structure, metric), found in counts.items():
            self.tables.add(
                metric,
                float(np.mean(found)),
                number=rounds,
                site=site,
                structure=structure,
                prompt="clicks",
            )

    def _line(self, number: int, seconds: float) -> str:
        mean = {
            r.site: r.value
            for r in self.tables.results
            if r.round == number and r.metric == "dice" and r.prompt == "none"
        }
        dices = "  ".join(f"{site} {value:.3f}" for site, value in mean.items())
        return f"{self.run.name} round {number}: {dices}  ({seconds:.0f} s)"

    def _states(self) -> dict[str, dict[str, State]]:
        return {"shared": self.federation.shared, "local": self.federation.local}

    def _save(self, number: int) -> None:
        tensors = {
            f"{kind}/{site}/{name}": value
            for kind, states in (
                ("shared", self.federation.shared),
                ("local", self.federation.local),
            )
            for site, state in states.items()
            for name, value in state.items()
        }
        # Sites often hold the very same tensors, which the format refuses.
        tensors = {name: value.clone() for name, value in tensors.items()}
        with atomic_path(self.folder / "state.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"round": str(number)})
        self.tables.write(self.folder)
        write_text_atomically(self.folder / "state.json", json.dumps({"round": number}))

    def _resume(self) -> int:
        """Load the newest finished round and return the number of the next one."""
        marker = self.folder / "state.json"
        if not marker.exists():
            return 1
        done = int(json.loads(marker.read_text(encoding="utf-8"))["round"])
        for key, value in load_file(self.folder / "state.safetensors").items():
            kind, site, name = key.split("/", 2)
            states = self._states()[kind]
            states[site] = states[site] | {name: value}
        self.tables.read(self.folder)
        return done + 1


def _measured(
    mask: NDArray[np.bool_], sample: TrainingSample, *, surfaces: bool
) -> list[tuple[str, float]]:
    """Return metrics with their values; none where the structure is absent."""
    overlap = dice(mask, sample.mask)
    if overlap is None:
        return []
    surface = surface_metrics(mask, sample.mask) if surfaces else None
    if surface is None:
        return [("dice", overlap)]
    return [("dice", overlap), ("hd95", surface.hd95), ("surface_dice", surface.surface_dice)]


def _flower_federation(
    engine: Literal["inprocess", "simulation"],
    recipe: Recipe,
    sites: Sequence[TaskSite],
    folder: Path,
) -> "FlowerFederation":
    # Not at the top: the direct engine runs where Flower is not installed.
    from napari_fedsam.app.benchmark.flower_engine import FlowerFederation

    return FlowerFederation(engine, recipe, sites, folder)


def environment() -> dict[str, str]:
    """Return what the numbers depend on."""
    import monai

    from napari_fedsam import __version__

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    return {
        "napari-fedsam": __version__,
        "torch": torch.__version__,
        "monai": monai.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": device,
        "threads": str(torch.get_num_threads()),
    }


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
) -> None:
    """Run every method on every task with every seed, and write `results.csv` in `out`.

    Parameters
    ----------
    data : Path
        The manifest.
    tasks, methods : sequence of str
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
        for seed, method, unseen in itertools.product(seeds, methods, left_out):
            recipe = recipe_for(method, task, structures, config, rounds=rounds, seed=seed)
            run = Run(
                task=task,
                method=method,
                protocol=protocol,
                unseen=unseen,
                seed=seed,
                recipe=recipe,
                train_images=train_images,
            )
            if run.name in results.runs:
                continue
            job = FederatedRun(
                run,
                sites,
                out,
                engine=engine,
                device=chosen,
                cache=cache,
                split=split,
                clicks=clicks,
                tell=tell,
                further=further if protocol == "in_federation" else (),
                save_models=save_models,
            )
            facts = job.execute()
            results.add(run, job.tables, facts)
            job.discard_state()
