"""Runs of `napari-fedsam benchmark federated`: train by a method, measure at every site."""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from napari_fedsam.app.benchmark.comparison import site_means
from napari_fedsam.app.benchmark.environment import environment
from napari_fedsam.app.benchmark.experiment import TrainedRun
from napari_fedsam.app.benchmark.measuring import HeldOutMeasurement
from napari_fedsam.app.benchmark.results import (
    FURTHER_DATA,
    ImageResult,
    Result,
    ResultsError,
    RunTables,
)
from napari_fedsam.app.benchmark.run_settings import held_out, settings_of, sites_of
from napari_fedsam.app.benchmark.run_state import SiteStates, load_state, save_state
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.training.evaluation import PromptKind
from napari_fedsam.training.feature_cache import CachedEncoder, FeatureCache
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.segmentation_task import TaskSite
from napari_fedsam.training.simulated_federation import SimulatedFederation, SimulatedSite
from napari_fedsam.training.versions import VersionStore

if TYPE_CHECKING:
    from napari_fedsam.app.benchmark.flower_engine import FlowerFederation

EngineName = Literal["direct", "inprocess", "simulation"]

_PROMPTS: tuple[PromptKind, ...] = ("none", "box", "point")
_OF_TRAINING = ("loss", "seconds", "bytes_up", "bytes_down")


class FederatedRun:
    """One run, resumed from its last finished round where there is one.

    Parameters
    ----------
    run : TrainedRun
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
        run: TrainedRun,
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
        self.folder = unfinished_folder(folder, run)
        self._sites, measured = sites_of(run, sites)
        self._held_out = {site.name: held_out(site, split) for site in measured}
        self._cache = cache
        self._clicks = clicks
        self._settings = settings_of(run, sites, split) | {"engine": engine}
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
        begun = time.monotonic()
        first, earlier = self._resume()

        def taken() -> float:
            return earlier + time.monotonic() - begun

        rounds = self.run.recipe.rounds
        for number in range(first, rounds + 1):
            round_begun = time.monotonic()
            losses = self.federation.run_round(number)
            seconds = time.monotonic() - round_begun
            self._add_training(number, seconds, losses)
            self._measure_prompts(number)
            self._save(number, taken())
            self._tell(self._line(number, seconds))
        self._measure_clicks()
        self._measure_further()
        self._keep_models()
        self._add_message_sizes()
        return self._facts(taken())

    def measure_again(
        self,
        results: Sequence[Result],
        images: Sequence[ImageResult],
        facts: dict[str, Any],
    ) -> dict[str, Any]:
        """Measure the kept models of a finished run, as when the way they are prompted changed.

        Parameters
        ----------
        results, images : sequence of Result, of ImageResult
            The run's numbers; `tables` keeps those that are not measured now.
        facts : dict
            What `execute` returned.

        Returns
        -------
        dict
            The facts with the present environment as that of the measuring.

        Raises
        ------
        ResultsError
            When a site's model was not kept.
        """
        rounds = self.run.recipe.rounds
        self.tables.results = [
            row
            for row in results
            if row.round < rounds or row.metric in _OF_TRAINING or not self._measures(row)
        ]
        self.tables.images = [row for row in images if not self._measures(row)]
        for site in self._sites:
            self._load_kept(site.name)
        self._measure_prompts(rounds)
        self._measure_clicks()
        self._measure_further()
        self._tell(f"{self.run.name} measured again")
        return facts | {"distances": self._settings["distances"], "measured_by": environment()}

    def _measures(self, row: Result | ImageResult) -> bool:
        """Whether such numbers of the last round are measured now."""
        if row.protocol == FURTHER_DATA:
            return bool(self._further)
        return self._clicks or row.prompt != "clicks"

    def _load_kept(self, site: str) -> None:
        versions = None if self._models is None else VersionStore(self._models / site / "versions")
        version = None if versions is None else versions.active()
        if versions is None or version is None:
            raise ResultsError(
                f"The models of {self.run.name} were not kept: run it anew with --save-models."
            )
        versions.load_into(self.federation.model, version)
        self.federation.shared[site] = self.federation.model.shared_state()
        self.federation.local[site] = self.federation.model.local_state()

    def _measure_prompts(self, number: int) -> None:
        last = number == self.run.recipe.rounds
        for site, samples in self._held_out.items():
            with self._answering(site) as model:
                measurement = self._measurement(model, samples, site, number)
                measurement.prompts(_PROMPTS if last else ("none",), images=last)

    def _measure_clicks(self) -> None:
        for site, samples in self._held_out.items() if self._clicks else ():
            with self._answering(site) as model:
                measurement = self._measurement(model, samples, site, self.run.recipe.rounds)
                measurement.clicks(proposes=True)

    def _facts(self, seconds: float) -> dict[str, Any]:
        return self._settings | {"environment": environment(), "seconds": round(seconds, 1)}

    def _add_training(self, number: int, seconds: float, losses: Mapping[str, float]) -> None:
        # Runs that leave a site out have rows of that site alone, so that they can be told apart.
        unseen = self.run.unseen
        self.tables.add("seconds", seconds, number=number, site=unseen)
        for site, loss in () if unseen else losses.items():
            self.tables.add("loss", loss, number=number, site=site)

    def _add_message_sizes(self) -> None:
        federates = self.federation.model.method.federates and not self.run.unseen
        if not federates or not find_spec("flwr"):
            return
        # Not at the top: the direct engine runs where Flower is not installed.
        from napari_fedsam.federation.message_size import round_bytes

        sizes = round_bytes(self.federation.model)
        for number in range(1, self.run.recipe.rounds + 1):
            down = sizes.first_down if number == 1 else sizes.down
            for site in self._sites:
                self.tables.add("bytes_up", sizes.up, number=number, site=site.name)
                self.tables.add("bytes_down", down, number=number, site=site.name)

    def _model_of(self, site: str) -> PersonalisedModel:
        if site == self.run.unseen:
            trained = self.federation.shared[self._sites[0].name]
            return self.federation.model.load_shared(trained).load_local(self._start_local)
        return self.federation.personalised(site)

    @contextmanager
    def _answering(self, site: str) -> Iterator[PersonalisedModel]:
        """Give the model that answers at a site: the global one where it took no part."""
        model = self._model_of(site)
        with model.global_view() if site == self.run.unseen else nullcontext():
            yield model

    def _measure_further(self) -> None:
        for site, other in itertools.product(self._sites, self._further):
            model, name = self._model_of(site.name), f"{other.name} by {site.name}"
            measurement = self._measurement(model, other.test, name, self.run.recipe.rounds)
            measurement.prompts(_PROMPTS, images=False, protocol=FURTHER_DATA)

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
                recipe=self.run.recipe,
                dice={},
            )
            versions.activate(version.number)

    def _measurement(
        self,
        model: PersonalisedModel,
        samples: Sequence[TrainingSample],
        site: str,
        number: int,
    ) -> HeldOutMeasurement:
        return HeldOutMeasurement(
            Predictor(model, device=str(self.federation.device)),
            CachedEncoder(model, self._cache).encode,
            samples,
            self.tables,
            self._names,
            site=site,
            number=number,
            unit=self._settings["distances"],
        )

    def _line(self, number: int, seconds: float) -> str:
        means = site_means(self.tables.results)
        dices = "  ".join(f"{site} {dice[self.run.seed]:.3f}" for (*_, site), dice in means.items())
        return f"{self.run.name} round {number}: {dices}  ({seconds:.0f} s)"

    def _states(self) -> SiteStates:
        states = {"shared": self.federation.shared, "local": self.federation.local}
        if isinstance(self.federation, SimulatedFederation):
            states["left_over"] = self.federation.left_over
        return states

    def _save(self, number: int, seconds: float) -> None:
        self.tables.write(self.folder)
        save_state(self.folder, number, seconds, self._states(), self._settings)

    def _resume(self) -> tuple[int, float]:
        """Load the newest finished round; return the next one's number, and the seconds so far."""
        done, seconds = load_state(self.folder, self._states(), self._settings, self.run.name)
        if done:
            self.tables.read(self.folder, rounds=done)
        if done < self.run.recipe.rounds:
            # What the last round left, if it was interrupted, is measured anew.
            self.tables.images = []
        return done + 1, seconds


def unfinished_folder(folder: Path, run: TrainedRun) -> Path:
    """Return where a run is kept until it is finished."""
    return folder / "unfinished" / run.name


def _flower_federation(
    engine: Literal["inprocess", "simulation"],
    recipe: Recipe,
    sites: Sequence[TaskSite],
    folder: Path,
) -> "FlowerFederation":
    # Not at the top: the direct engine runs where Flower is not installed.
    from napari_fedsam.app.benchmark.flower_engine import FlowerFederation

    return FlowerFederation(engine, recipe, sites, folder)
