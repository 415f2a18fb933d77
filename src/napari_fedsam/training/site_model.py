"""The personalised model of a site: the one in use now, and the one that is trained on."""

import logging
from pathlib import Path

from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.errors import VersionError
from napari_fedsam.training.kept_models import KeptModels
from napari_fedsam.training.versions import Version, VersionStore

_log = logging.getLogger(__name__)


def versions_of(folder: Path) -> VersionStore:
    """Return the model versions of a profile, by its folder."""
    return VersionStore(folder / "versions")


def load_site_model(
    folder: Path, models: KeptModels | None = None
) -> tuple[PersonalisedModel, Version] | None:
    """Return the site's active version as a model of its own recipe.

    That need not be the recipe that the site works under now: what is in use stays so until a
    version of the new recipe takes its place.

    Parameters
    ----------
    folder : Path
        The folder of the site's profile.
    models : KeptModels, optional
        Whose model of the recipe is loaded into; a new one is built by default.

    Returns
    -------
    (PersonalisedModel, Version) or None
        None while the site uses the base model.

    Raises
    ------
    VersionError
        When the active version is damaged.
    """
    store = versions_of(folder)
    version = store.active()
    if version is None:
        return None
    model = (models or KeptModels()).untrained(store.recipe_of(version))
    store.load_into(model, version)
    return model, version


def model_in_training(folder: Path, recipe: Recipe, models: KeptModels) -> PersonalisedModel:
    """Return a site's newest model of a recipe, which need not be the one in use.

    Parameters are trained on from time to time, whatever was judged in between. A version that is
    damaged is passed over; without any, the model is at step 0.

    Parameters
    ----------
    folder : Path
        The folder of the site's profile.
    recipe : Recipe
    models : KeptModels
        Whose model of the recipe is loaded into.
    """
    store = versions_of(folder)
    for version in reversed(store.versions()):
        if version.recipe_hash != recipe.hash:
            continue
        model = models.untrained(recipe)
        try:
            store.load_into(model, version)
        except VersionError as error:
            _log.warning("Training goes on from an earlier model: %s", error)
        else:
            return model
    return models.untrained(recipe)
