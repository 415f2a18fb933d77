"""A federation of simulated sites through the ClientApp and ServerApp themselves."""

from collections.abc import Sequence
from pathlib import Path

import torch

from napari_fedsam.app.benchmark.results import ResultsError
from napari_fedsam.cases.case import NewCase, Split
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.coordinator_settings import CoordinatorFiles
from napari_fedsam.federation.simulation import Engine, run_local_rounds
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.personalization import PersonalisedModel, Recipe, RecipeError
from napari_fedsam.personalization.methods import method_named
from napari_fedsam.personalization.personalised_model import State, build_personalised_model
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.segmentation_task import TaskSite
from napari_fedsam.training.versions import VersionStore


class FlowerFederation:
    """Runs rounds as `SimulatedFederation` does, with folders, messages and checks in between.

    Parameters
    ----------
    engine : {"inprocess", "simulation"}
    recipe : Recipe
    sites : sequence of TaskSite
    folder : Path
        Where the sites' and the coordinator's folders go; rounds that are there are gone on from.

    Raises
    ------
    RecipeError
        For a method that exchanges nothing.
    """

    def __init__(
        self, engine: Engine, recipe: Recipe, sites: Sequence[TaskSite], folder: Path
    ) -> None:
        if not method_named(recipe.method).federates:
            raise RecipeError(
                f"The method {recipe.method} exchanges nothing: run it with the engine 'direct'."
            )
        self.recipe = recipe.model_copy(update={"minimum_sites": len(sites)})
        self.device = torch.device("cpu")
        self.model = build_personalised_model(self.recipe)
        self._engine = engine
        self._coordinator = folder / "coordinator"
        self._coordinator.mkdir(parents=True, exist_ok=True)
        self.recipe.write(CoordinatorFiles(self._coordinator).recipe)
        self._sites = {site.name: self._prepared(site, folder / "sites") for site in sites}
        shared, local = self.model.shared_state(), self.model.local_state()
        self.shared: dict[str, State] = dict.fromkeys(self._sites, shared)
        self.local: dict[str, State] = dict.fromkeys(self._sites, local)

    def run_round(self, number: int) -> dict[str, float]:
        """Run one round; see `SimulatedFederation.run_round`. Losses are not reported.

        Raises
        ------
        ResultsError
            When the coordinator is further than the benchmark.
        """
        if CheckpointStore(self._coordinator).next_round() != number:
            raise ResultsError(
                f"Round {number} was interrupted after its average, which cannot be gone on from: "
                "begin the run anew with --no-resume."
            )
        folders = [files.site for files in self._sites.values()]
        run_local_rounds(self._engine, self._coordinator, folders, 1)
        for name, files in self._sites.items():
            versions = VersionStore(files.versions)
            newest = versions.newest(self.recipe.hash)
            if newest is not None:
                versions.load_into(self.model, newest)
                self.shared[name] = self.model.shared_state()
                self.local[name] = self.model.local_state()
        return {}

    def personalised(self, site: str) -> PersonalisedModel:
        """Return the model with a site's parameters, until the next call."""
        return self.model.load_shared(self.shared[site]).load_local(self.local[site])

    def _prepared(self, site: TaskSite, folder: Path) -> SiteFiles:
        files = SiteFiles(folder / site.name)
        fresh = not files.recipe.exists()
        files.create()
        if fresh:
            store = CaseStore(files.cases)
            parts: list[tuple[Split, list[TrainingSample]]] = [
                ("train", site.train),
                ("val", site.val),
            ]
            for split, samples in parts:
                for sample in samples:
                    store.accept(self._case(site, sample, split))
        self.recipe.write(files.recipe)
        return files

    def _case(self, site: TaskSite, sample: TrainingSample, split: Split) -> NewCase:
        structure = next(s for s in self.recipe.structures if s.value == sample.structure)
        return NewCase(
            image=sample.image,
            mask=sample.mask,
            structure=structure,
            window=(0, 255),
            scan_key=sample.id,
            patient_key=f"{site.name}:{sample.group}",
            annotator="reference",
            split=split,
        )
