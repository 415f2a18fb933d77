"""Loads the model that a person chose: a base model, or this site's personalised one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.embedding_store import EmbeddingStore
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.registry import DEFAULT_MODEL, available_models, load_model
from napari_fedsam.training.errors import TrainingError
from napari_fedsam.training.profile_folder import active_key, profile_folder
from napari_fedsam.training.site_model import load_site_model, versions_of
from napari_fedsam.training.site_recipe import in_federation, recipe_file, recipe_to_train_by
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
        """Number of the version that this site uses, readable or not; None for the base model."""
        versions = self._versions()
        return None if versions is None else versions.active_number

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
        path = recipe_file(self._folder)
        return None if path is None else Recipe.read(path)

    def recipe_for_training(self, structures: Sequence[Structure]) -> Path:
        """Return the file of the recipe to train by; a site without a federation gets its own.

        One of other structures than before becomes the site's with the version that it makes.

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
        if not structures and not in_federation(self._folder):
            raise TrainingError("There are no training cases yet: accept some masks first.")
        return recipe_to_train_by(self._folder, structures)

    def _versions(self) -> VersionStore | None:
        """Return the versions, None where there have never been any."""
        has_any = (self._folder / "versions").is_dir()
        return versions_of(self._folder) if has_any else None

    def structures(self) -> tuple[Structure, ...]:
        """Return the structures of the recipe, if any."""
        recipe = self.recipe()
        return () if recipe is None else tuple(recipe.structures)

    @property
    def unused_version(self) -> Version | None:
        """The newest version of the present recipe that came after the one in use.

        It was not taken up by itself where the person wants to be asked first, where another one
        came into use while it was made, where a site has no held-out cases to judge by, or where it
        did worse on them. One that did no worse goes before.
        """
        versions, recipe = self._versions(), self.recipe()
        if versions is None or recipe is None:
            return None
        in_use = versions.active_number or 0
        later = [
            version
            for version in versions.versions()
            if version.number > in_use and version.recipe_hash == recipe.hash
        ]
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
            versions_of(self._folder).activate(newest.number)

    def go_back(self) -> None:
        """Use the version that was in use before; before the first, the base model.

        Raises
        ------
        VersionError
            When the versions cannot be read or written.
        """
        versions = self._versions()
        if versions is not None:
            versions.go_back()

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
        found = self._active_model()
        if found is None:
            recipe = self.recipe()
            base = DEFAULT_MODEL if recipe is None else recipe.base_model
            return self.load(base, progress=progress)
        personalised, version = found
        recipe = personalised.recipe
        return ModelInUse(
            Predictor(personalised),
            model_name(recipe.base_model),
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
        if not model.is_personalised or model.profile != self._profile:
            return None
        found = self._active_model()
        if found is None or found[1].number != model.version:
            return None
        personalised, version = found
        # What is encoded must not be taken for the personalised model's.
        return replace(
            model,
            predictor=Predictor(personalised.stay_global()),
            recipe_hash=f"{version.recipe_hash} global",
        )

    def _active_model(self) -> tuple[PersonalisedModel, Version] | None:
        return None if self.active_version is None else load_site_model(self._folder)


def _names() -> set[str]:
    return {SITE_MODEL, *(info.name for info in available_models())}


def model_name(choice: str) -> str:
    """Return a model's name for people: the registry's label without its remark."""
    for info in available_models():
        if info.name == choice:
            return info.label.split(" (")[0]
    return Path(choice).stem
