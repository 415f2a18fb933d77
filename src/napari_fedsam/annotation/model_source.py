"""Loads the model that a person chose: a base model, or this site's personalised one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.embedding_store import EmbeddingStore
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.registry import DEFAULT_MODEL, available_models, load_model
from napari_fedsam.training.errors import TrainingError
from napari_fedsam.training.profile_folder import active_key, profile_folder
from napari_fedsam.training.site_model import load_site_model
from napari_fedsam.training.versions import Version, VersionStore

SITE_MODEL = "site"
"""The choice that follows this site: its newest accepted version, before that the base model."""


class ModelSource:
    """The models that a site can use in one of its federations.

    Parameters
    ----------
    site_folder : Path
        The site's home folder.
    profile : str, optional
        Key of the profile, whose folder has `versions` and `federation/recipe.json` where there
        are any; by default of the one in use now.
    """

    def __init__(self, site_folder: Path, profile: str | None = None) -> None:
        self._site_folder = site_folder
        self._profile = active_key(site_folder) if profile is None else profile
        self._folder = profile_folder(site_folder, self._profile)
        self._store = EmbeddingStore(site_folder / "encoded")

    @property
    def active_version(self) -> int | None:
        """Number of the version that this site uses; None before the first one."""
        folder = self._folder / "versions"
        if not folder.is_dir():
            return None
        active = VersionStore(folder).active()
        return None if active is None else active.number

    @property
    def site_folder(self) -> Path:
        """The site's home folder."""
        return self._site_folder

    @property
    def profile(self) -> str:
        """Key of the profile."""
        return self._profile

    def recipe(self) -> Recipe | None:
        """Return the federation's recipe, or the site's own; None where there is neither."""
        path = self._recipe_path()
        return None if path is None else Recipe.read(path)

    def recipe_for_training(self, structures: Sequence[Structure]) -> Path:
        """Return the file of the recipe to train by; a site without a federation gets its own.

        Parameters
        ----------
        structures : sequence of Structure
            What a recipe of the site's own is to segment.

        Raises
        ------
        RecipeError
            When a recipe cannot be read.
        TrainingError
            When there is nothing to segment.
        """
        path = self._recipe_path()
        if path is not None and path != self._own_recipe:
            return path
        if not structures:
            raise TrainingError("There are no training cases yet: accept some masks first.")
        wanted = tuple(sorted(structures, key=lambda structure: structure.value))
        recipe = Recipe(name="This site", structures=wanted)
        if path is None or Recipe.read(path).structures != wanted:
            recipe.write(self._own_recipe)
        return self._own_recipe

    @property
    def _own_recipe(self) -> Path:
        return self._folder / "recipe.json"

    def _recipe_path(self) -> Path | None:
        federation = self._folder / "federation" / "recipe.json"
        return next((path for path in (federation, self._own_recipe) if path.is_file()), None)

    def structures(self) -> tuple[Structure, ...]:
        """Return the structures of the recipe, if any."""
        recipe = self.recipe()
        return () if recipe is None else tuple(recipe.structures)

    @property
    def unused_version(self) -> Version | None:
        """The newest version after the one in use that was not taken up by itself.

        That is so where the person wants to be asked first, where a site has no held-out cases to
        judge by, or where it did worse on them. One that did no worse goes before.
        """
        folder = self._folder / "versions"
        if not folder.is_dir():
            return None
        store = VersionStore(folder)
        active = store.active()
        later = [v for v in store.versions() if active is None or v.number > active.number]
        passed = [version for version in later if version.passed]
        return next(reversed(passed or later), None)

    def use_newest(self) -> None:
        """Make the version that is offered active because the person says so.

        Raises
        ------
        VersionError
            When the versions cannot be read or written.
        """
        newest = self.unused_version
        if newest is not None:
            VersionStore(self._folder / "versions").activate(newest.number)

    def go_back(self) -> None:
        """Make the version before the active one active again; before the first, the base model.

        Raises
        ------
        VersionError
            When the versions cannot be read or written.
        """
        store = VersionStore(self._folder / "versions")
        active = store.active()
        if active is not None:
            earlier = [each.number for each in store.versions() if each.number < active.number]
            store.activate(max(earlier, default=None))

    def load(
        self, choice: str = SITE_MODEL, *, progress: Callable[[float], None] | None = None
    ) -> ModelInUse:
        """Load a model (slow: run it in a worker).

        Parameters
        ----------
        choice : str
            `SITE_MODEL`, a registry name, the path of a checkpoint, or of another site's folder
            for the model that is in use there; what it encodes stays in this site's folder. A
            folder that is called like one of the names is given with a path.
        progress : callable, optional
            Called with the downloaded fraction, 0 to 1.

        Raises
        ------
        FedSamError
            When the model cannot be fetched, read or verified.
        """
        if choice not in _names() and Path(choice).is_dir():
            other = ModelSource(Path(choice)).load(progress=progress)
            return replace(other, store=self._store)
        if choice != SITE_MODEL:
            model = load_model(choice, progress=progress)
            return ModelInUse(Predictor(model), model_name(choice), store=self._store)
        recipe = self.recipe()
        if recipe is None or self.active_version is None:
            base = DEFAULT_MODEL if recipe is None else recipe.base_model
            return self.load(base, progress=progress)
        personalised, version = load_site_model(self._folder, recipe)
        name = model_name(recipe.base_model)
        if version is None:
            return ModelInUse(
                Predictor(personalised), name, recipe_hash=recipe.hash, store=self._store
            )
        return ModelInUse(
            Predictor(personalised),
            name,
            round=version.round,
            version=version.number,
            structures=recipe.structures,
            recipe_hash=recipe.hash,
            profile=self._profile,
            store=self._store,
        )

    def load_global(self, model: ModelInUse) -> ModelInUse | None:
        """Load a second copy of this site's model without what is its own (slow, as `load`).

        Returns
        -------
        ModelInUse or None
            None when the model is not this site's active version (any more).

        Raises
        ------
        FedSamError
            When the version cannot be read.
        """
        recipe = self.recipe()
        if not model.is_personalised or model.profile != self._profile or recipe is None:
            return None
        if recipe.hash != model.recipe_hash:
            return None
        personalised, version = load_site_model(self._folder, recipe)
        if version is None or version.number != model.version:
            return None
        # What is encoded must not be taken for the personalised model's.
        return replace(
            model,
            predictor=Predictor(personalised.stay_global()),
            recipe_hash=f"{recipe.hash} global",
        )


def _names() -> set[str]:
    return {SITE_MODEL, *(info.name for info in available_models())}


def model_name(choice: str) -> str:
    """Return a model's name for people: the registry's label without its remark."""
    for info in available_models():
        if info.name == choice:
            return info.label.split(" (")[0]
    return Path(choice).stem
