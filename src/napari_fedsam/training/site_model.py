"""The personalised model of a site, as it is in use now."""

from pathlib import Path

from napari_fedsam.personalization.personalised_model import (
    PersonalisedModel,
    build_personalised_model,
)
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.versions import Version, VersionStore


def load_site_model(folder: Path, recipe: Recipe) -> tuple[PersonalisedModel, Version | None]:
    """Build the recipe's model with the parameters of the site's active version.

    Parameters
    ----------
    folder : Path
        The folder of the site's profile.
    recipe : Recipe

    Returns
    -------
    model : PersonalisedModel
        At step 0 when there is no active version of this recipe: the base model with untouched
        modules and untrained structure tokens.
    version : Version or None

    Raises
    ------
    VersionError
        When the active version is damaged.
    """
    model = build_personalised_model(recipe)
    store = VersionStore(folder / "versions")
    version = store.active()
    if version is None or version.recipe_hash != recipe.hash:
        return model, None
    store.load_into(model, version)
    return model, version


def model_in_training(folder: Path, recipe: Recipe) -> PersonalisedModel:
    """Return the newest model of a site, which need not be the one in use.

    Parameters are trained on from time to time, whatever was judged in between.

    Parameters
    ----------
    folder : Path
        The folder of the site's profile.
    recipe : Recipe

    Raises
    ------
    VersionError
        When the newest version is damaged.
    """
    model = build_personalised_model(recipe)
    versions = VersionStore(folder / "versions")
    newest = versions.newest(recipe.hash)
    if newest is not None:
        versions.load_into(model, newest)
    return model
