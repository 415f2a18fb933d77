"""Which recipe a site works under: its federation's, or one of its own where it is in none."""

from collections.abc import Iterable
from pathlib import Path

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization.recipe import Recipe


def in_federation(folder: Path) -> bool:
    """Whether the recipe of a profile, by its folder, is a federation's."""
    return _federations(folder).is_file()


def recipe_file(folder: Path) -> Path | None:
    """Return the file of the recipe of a profile, by its folder; None where there is none yet."""
    return next((path for path in (_federations(folder), _own(folder)) if path.is_file()), None)


def recipe_to_train_by(folder: Path, structures: Iterable[Structure]) -> Path:
    """Return the file of the recipe to train by.

    In no federation, that is the site's own as long as its structures have these names. Another one
    is written beside it, and becomes the site's own with the first version (see `adopt`).

    Parameters
    ----------
    folder : Path
        The folder of the site's profile.
    structures : iterable of Structure
        What a recipe of the site's own is to segment: not empty where there is no federation.

    Raises
    ------
    RecipeError
        When a recipe cannot be read.
    """
    if in_federation(folder):
        return _federations(folder)
    path = recipe_file(folder)
    wanted = tuple(sorted(structures, key=lambda structure: structure.value))
    if path is not None and _names(Recipe.read(path).structures) == _names(wanted):
        return path
    proposed = folder / "proposed-recipe.json"
    Recipe(name="This site", structures=wanted).write(proposed)
    return proposed


def adopt(folder: Path, recipe: Recipe) -> None:
    """Make a recipe that has a version the site's own, unless it is in a federation."""
    path = recipe_file(folder)
    if not in_federation(folder) and (path is None or Recipe.read(path).hash != recipe.hash):
        recipe.write(_own(folder))


def _federations(folder: Path) -> Path:
    return folder / "federation" / "recipe.json"


def _own(folder: Path) -> Path:
    return folder / "recipe.json"


def _names(structures: Iterable[Structure]) -> set[str]:
    return {structure.name.casefold() for structure in structures}
