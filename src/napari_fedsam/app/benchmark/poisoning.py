"""What one poisoned site among five does to the others, under every defence.

Sites train by the trainer of the ClientApp, and updates are checked and combined by the functions
of the ServerApp; nothing is sent.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_fedsam.annotation.sample import SAMPLE_STRUCTURES, load_sample
from napari_fedsam.app.scanner_model import SCANNERS, simulate_scanner
from napari_fedsam.app.slice_split import split_slices
from napari_fedsam.cases.case import Structure
from napari_fedsam.federation.aggregation import combine, site_weights
from napari_fedsam.federation.update_checks import unusual_norms
from napari_fedsam.federation.update_folder import FlatLayout, UpdateFolder, Vector
from napari_fedsam.imaging.window import apply_window, default_window
from napari_fedsam.personalization.federation_options import FederationOptions
from napari_fedsam.personalization.personalised_model import State, build_personalised_model
from napari_fedsam.personalization.recipe import Recipe, TrainingOptions
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.training.evaluation import PromptKind, evaluate
from napari_fedsam.training.feature_cache import CachedEncoder, FeatureCache
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.schedule import Moment
from napari_fedsam.training.segmentation_task import TaskSite, load_task, spread, structures_of

SITES = 5
ATTACKS: Mapping[str, float] = {"sign flipped": -1.0, "scaled by 100": 100.0}
"""By what the poisoned site multiplies its update."""

DEFENCES: Mapping[str, FederationOptions] = {
    "none": FederationOptions(norm_limit=None),
    "norm limit": FederationOptions(),
    "median": FederationOptions(aggregation="median", norm_limit=None),
    "trimmed mean": FederationOptions(aggregation="trimmed_mean", norm_limit=None),
    "Krum": FederationOptions(aggregation="krum", norm_limit=None),
}
"""A norm limit beside a robust aggregation would hide what the latter does."""

_PROMPTS: tuple[PromptKind, ...] = ("none", "box")


@dataclass(frozen=True)
class PoisonedRun:
    """What came of a federation with a poisoned site, or without.

    Attributes
    ----------
    defence : str
        A name of `DEFENCES`.
    attack : str
        A name of `ATTACKS`; "" for the honest sites by themselves.
    dice : float
        Mean over the honest sites of the last model's Dice on their held-out samples, over both
        kinds of prompt.
    left_out : int
        Updates that the norm limit left out.
    """

    defence: str
    attack: str
    dice: float
    left_out: int


class PoisonedFederation:
    """Five sites, the last of which may be poisoned.

    Parameters
    ----------
    recipe : Recipe
        Its federation options are replaced by those of each defence.
    sites : sequence of TaskSite
        Five; the models are measured on their test samples.
    folder : Path
        For the updates of a round.
    """

    def __init__(self, recipe: Recipe, sites: Sequence[TaskSite], folder: Path) -> None:
        self._recipe = recipe
        self._sites = list(sites)
        self._folder = folder
        self._model = build_personalised_model(recipe)
        self._layout = FlatLayout(self._model.shared_spec())
        self._start = self._layout.flatten(self._model.shared_state())
        self._start_local = self._model.local_state()
        self._cache = FeatureCache()
        # What a site trains from the same start is the same: all runs share their first round.
        self._trained: dict[str, tuple[Vector, State]] = {}

    def runs(self) -> Iterator[PoisonedRun]:
        """Yield the honest sites by themselves, then every defence against every attack."""
        yield self.reference()
        for defence in DEFENCES:
            for attack in ATTACKS:
                yield self.attacked(defence, attack)

    def reference(self) -> PoisonedRun:
        """Average the honest sites alone."""
        return self._run(self._sites[:-1], "none", "")

    def attacked(self, defence: str, attack: str) -> PoisonedRun:
        """Combine all sites, the last of them poisoned."""
        return self._run(self._sites, defence, attack)

    def _run(self, sites: Sequence[TaskSite], defence: str, attack: str) -> PoisonedRun:
        options, honest = DEFENCES[defence], self._sites[:-1]
        shared = self._start
        local = {site.name: self._start_local for site in sites}
        past: dict[str, list[float]] = {site.name: [] for site in sites}
        left_out = 0
        for number in range(1, self._recipe.rounds + 1):
            updates = UpdateFolder(self._folder, self._layout.size)
            for site in sites:
                change, local[site.name] = self._train(site, shared, local[site.name], number)
                poisoned = site is self._sites[-1]
                updates.add(site.name, change * np.float32(ATTACKS[attack] if poisoned else 1.0))
            for name in unusual_norms(updates.norms, past, options.norm_limit):
                updates.discard(name)
                left_out += 1
            for name, norm in updates.norms.items():
                past[name].append(norm)
            cases = {site.name: len(site.train) for site in sites if site.name in updates.sites}
            shared = shared + combine(updates, site_weights(cases, options), options)
            updates.remove()
            for site in honest:
                local[site.name] = self._personalise(site, shared, local[site.name], number)
        dice = [self._dice(site, shared, local[site.name]) for site in honest]
        return PoisonedRun(defence, attack, float(np.mean(dice)), left_out)

    def _train(
        self, site: TaskSite, shared: Vector, local: State, number: int
    ) -> tuple[Vector, State]:
        """Return what a site changes of the shared parameters, and its new local ones."""
        digest = hashlib.sha256(f"{site.name} {number}".encode() + shared.tobytes())
        for name in sorted(local):
            digest.update(local[name].numpy().tobytes())
        key = digest.hexdigest()
        if key not in self._trained:
            self._load(shared, local)
            self._update(site, "update", number)
            trained = self._layout.flatten(self._model.shared_state())
            self._trained[key] = trained - shared, self._model.local_state()
        return self._trained[key]

    def _personalise(self, site: TaskSite, shared: Vector, local: State, number: int) -> State:
        self._load(shared, local)
        self._update(site, "personalise", number)
        return self._model.local_state()

    def _update(self, site: TaskSite, moment: Moment, number: int) -> None:
        local_update(
            self._model,
            site.train,
            seed=self._recipe.seed,
            moment=moment,
            round_number=number,
            cache=self._cache,
        )

    def _load(self, shared: Vector, local: State) -> None:
        self._model.load_shared(self._layout.unflatten(shared)).load_local(local)

    def _dice(self, site: TaskSite, shared: Vector, local: State) -> float:
        self._load(shared, local)
        encode = CachedEncoder(self._model, self._cache).encode
        judged = evaluate(Predictor(self._model), site.test, _PROMPTS, encode=encode)
        return float(np.mean([judged.mean_dice(kind) or 0.0 for kind in _PROMPTS]))


def recipe_for_poisoning(structures: tuple[Structure, ...], rounds: int, epochs: float) -> Recipe:
    """Return the recipe of such a federation: few cases, so small batches and a high rate."""
    return Recipe(
        name="Poisoning",
        structures=structures,
        rounds=rounds,
        training=TrainingOptions(epochs=epochs, batch_size=2, learning_rate=1.2e-3),
    )


def sample_sites(train: int, held_out: int) -> tuple[tuple[Structure, ...], list[TaskSite]]:
    """Return five sites that see the embedded sample through simulated scanners.

    Parameters
    ----------
    train, held_out : int
        Slices of a site to learn from, at most, and slices to measure on, the same at all.

    Returns
    -------
    structures, sites
    """
    sample = load_sample()
    structure = SAMPLE_STRUCTURES[1]
    orientation = sample.scan.orientation
    masks = orientation.to_display(sample.mask(structure))
    shown = masks.sum(axis=(1, 2)) >= 40
    split = split_slices(shown, orientation.display_spacing[0], sites=SITES)
    sites = []
    for number in range(SITES):
        scan = simulate_scanner(sample.scan, SCANNERS[number % len(SCANNERS)], seed=number)
        pixels = apply_window(orientation.to_display(scan.pixels), default_window(scan))
        parts = [
            [
                TrainingSample(f"{part} {z}", part, pixels[z], masks[z], structure.value)
                for z in chosen
            ]
            for part, chosen in (
                ("learned", spread(split.train[number], train)),
                ("held out", spread(split.held_out, held_out)),
            )
        ]
        sites.append(TaskSite(f"scanner {number + 1}", parts[0], [], parts[1]))
    return (structure,), sites


def manifest_sites(
    manifest: Path, task: str, train: int, held_out: int
) -> tuple[tuple[Structure, ...], list[TaskSite]]:
    """Return a task's sites as five: the largest are halved until there are so many.

    Parameters
    ----------
    manifest : Path
    task : str
    train, held_out : int
        Samples of a site to learn from and to measure on, at most.

    Returns
    -------
    structures, sites

    Raises
    ------
    ManifestError
        When a file cannot be used.
    """
    sites = load_task(manifest, task)
    while len(sites) < SITES:
        largest = max(sites, key=lambda site: len(site.train))
        sites.remove(largest)
        sites += [_half(largest, 0), _half(largest, 1)]
    structures = tuple(part.structure for part in structures_of(task))
    return structures, [
        TaskSite(site.name, spread(site.train, train), [], spread(site.test, held_out))
        for site in sites[:SITES]
    ]


def _half(site: TaskSite, which: int) -> TaskSite:
    """Return every other group of a site as a site."""

    def part(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
        kept = set(list(dict.fromkeys(sample.group for sample in samples))[which::2])
        return [sample for sample in samples if sample.group in kept]

    return TaskSite(f"{site.name}-{which + 1}", part(site.train), part(site.val), part(site.test))
