"""A federation of simulated sites in this process, without any transport.

The sites do what the ClientApp does in a round, and are averaged as the ServerApp does by default;
it needs neither Flower nor a disk, so that experiments run wherever torch does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from napari_fedsam.personalization.federation_options import FederationOptions
from napari_fedsam.personalization.personalised_model import (
    PersonalisedModel,
    State,
    build_personalised_model,
)
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.aggregation import (
    add_update,
    case_weights,
    similarity_weights,
    update_between,
    weighted_mean,
)
from napari_fedsam.training.errors import TrainingError
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.progress import Progress
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.schedule import Moment
from napari_fedsam.training.update_rounding import expand_update, round_update


@dataclass(frozen=True, eq=False)
class SimulatedSite:
    """A site with its training cases.

    Parameters
    ----------
    name : str
    train : sequence of TrainingSample
    """

    name: str
    train: Sequence[TrainingSample]


class SimulatedFederation:
    """Runs rounds, one site after the other, with one model.

    Parameters
    ----------
    recipe : Recipe
        A method that pools the cases trains on those of all sites together.
    sites : sequence of SimulatedSite
    device : torch.device
    cache : FeatureCache

    Raises
    ------
    TrainingError
        When the recipe's sites are not to be averaged by their cases.
    """

    def __init__(
        self,
        recipe: Recipe,
        sites: Sequence[SimulatedSite],
        device: torch.device,
        cache: FeatureCache,
    ) -> None:
        _check_exchange(recipe.federation)
        self.recipe = recipe
        self.sites = list(sites)
        self.device = device
        self.model = build_personalised_model(recipe).to(device)
        self._cache = cache
        shared, local = self.model.shared_state(), self.model.local_state()
        self.shared: dict[str, State] = {site.name: shared for site in sites}
        self.local: dict[str, State] = {site.name: local for site in sites}
        # What rounding of the sites' updates has lost so far.
        self.left_over: dict[str, State] = {}
        self._trainers = self.sites
        if self.model.method.pooled:
            everything = [sample for site in sites for sample in site.train]
            self._trainers = [SimulatedSite(sites[0].name, everything)]

    def run_round(
        self, number: int, *, progress: Callable[[str, Progress], None] | None = None
    ) -> dict[str, float]:
        """Run one round.

        Parameters
        ----------
        number : int
            From 1.
        progress : callable, optional
            Called with the site's name.

        Returns
        -------
        dict of str to float
            The loss at each site before the exchange.
        """
        losses: dict[str, float] = {}
        updates: dict[str, State] = {}
        for site in self._trainers:
            losses[site.name] = self._train(site, "update", number, progress)
            updates[site.name] = self.model.shared_state()
            self.local[site.name] = self.model.local_state()
        self.shared = self._combined(updates)
        for site in self._trainers:
            self._train(site, "personalise", number, progress)
            self.local[site.name] = self.model.local_state()
        return losses

    def personalised(self, site: str) -> PersonalisedModel:
        """Return the model with a site's parameters, until the next call."""
        return self.model.load_shared(self.shared[site]).load_local(self.local[site])

    def _train(
        self,
        site: SimulatedSite,
        moment: Moment,
        number: int,
        progress: Callable[[str, Progress], None] | None,
    ) -> float:
        update = local_update(
            self.personalised(site.name),
            site.train,
            seed=self.recipe.seed,
            moment=moment,
            round_number=number,
            progress=None if progress is None else lambda done: progress(site.name, done),
            cache=self._cache,
        )
        return update.loss

    def _arriving(self, site: str, trained: State) -> State:
        """Return a site's update as the coordinator gets it."""
        update = update_between(self.shared[site], trained)
        precision = self.recipe.federation.precision
        if precision == "float32":
            return update
        sent, self.left_over[site] = round_update(update, precision, self.left_over.get(site))
        return expand_update(sent)

    def _combined(self, trained: Mapping[str, State]) -> dict[str, State]:
        names = [site.name for site in self._trainers]
        updates = [self._arriving(name, trained[name]) for name in names]
        weights = case_weights([len(site.train) for site in self._trainers])
        if self.model.method.aggregation == "similarity":
            rows = similarity_weights(updates, weights)
            starts = [self.shared[name] for name in names]
            return {
                name: add_update(weighted_mean(starts, row), weighted_mean(updates, row))
                for name, row in zip(names, rows, strict=True)
            }
        times = self.recipe.federation.times(len(names))
        average = add_update(self.shared[names[0]], weighted_mean(updates, weights), times)
        return {site.name: average for site in self.sites}


def _check_exchange(options: FederationOptions) -> None:
    """Refuse what only the ServerApp does, so that nothing is measured under a wrong name."""
    usual = FederationOptions()
    for name in ("aggregation", "weights", "case_cap", "norm_limit", "privacy"):
        if getattr(options, name) != getattr(usual, name):
            raise TrainingError(
                f"Without Flower federation.{name} has no effect: leave it out, or choose the "
                "engine 'inprocess'."
            )
