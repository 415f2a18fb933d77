"""The personalised model of a site, as it is in use now."""

from pathlib import Path

from napari_fedsam.personalization.personalised_model import (
    PersonalisedModel,
    build_personalised_model,
)
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.versions import Version, VersionStore


def load_site_model(
    folder: Path, recipe: Recipe, untrained: PersonalisedModel | None = None
) -> tuple[PersonalisedModel, Version | None]:
    """Return the recipe's model with the parameters of the site's active version.

    Parameters
    ----------
    folder : Path
        The folder of the site's profile.
    recipe : Recipe
    untrained : PersonalisedModel, optional
        The recipe's model at step 0, to be loaded into; built by default.

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
    model = untrained or build_personalised_model(recipe)
    store = VersionStore(folder / "versions")
    version = store.active()
    if version is None or version.recipe_hash != recipe.hash:
        return model, None
    store.load_into(model, version)
    return model, version


def model_in_training(
    folder: Path, recipe: Recipe, untrained: PersonalisedModel | None = None
) -> PersonalisedModel:
    """Return the newest model of a site, which need not be the one in use.

    Parameters are trained on from time to time, whatever was judged in between.

    Parameters
    ----------
    folder : Path
        The folder of the site's profile.
    recipe : Recipe
    untrained : PersonalisedModel, optional
        As in `load_site_model`.

    Raises
    ------
    VersionError
        When the newest version is damaged.
    """
    model = untrained or build_personalised_model(recipe)
    versions = VersionStore(folder / "versions")
    newest = versions.newest(recipe.hash)
    if newest is not None:
        versions.load_into(model, newest)
    return model
