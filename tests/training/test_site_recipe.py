"""Which recipe a site works under, and when that changes."""

import pytest

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization import Recipe
from napari_fedsam.training.site_recipe import (
    adopt,
    in_federation,
    recipe_file,
    recipe_to_train_by,
)

LIVER = Structure(value=2, name="liver", color="#aa0000")
SPLEEN = Structure(value=1, name="spleen", color="#00aa00")


@pytest.fixture
def folder(tmp_path):
    """The folder of a profile that has its own recipe, of the liver."""
    recipe = Recipe.read(recipe_to_train_by(tmp_path, [LIVER]))
    assert recipe_file(tmp_path) is None
    adopt(tmp_path, recipe)
    return tmp_path


def test_the_first_recipe_is_of_the_structures_that_there_are(folder) -> None:
    assert Recipe.read(recipe_file(folder)).structures == (LIVER,)
    assert not in_federation(folder)


@pytest.mark.parametrize(
    "change",
    [{"color": "#aa0001"}, {"value": 9}, {"definition": "without vessels"}, {"name": "LIVER"}],
)
def test_a_structure_of_the_same_name_leaves_the_recipe(folder, change) -> None:
    before = recipe_file(folder).read_bytes()
    assert recipe_to_train_by(folder, [LIVER.model_copy(update=change)]) == recipe_file(folder)
    assert recipe_file(folder).read_bytes() == before


def test_other_structures_become_the_sites_with_a_version(folder) -> None:
    path = recipe_to_train_by(folder, [LIVER, SPLEEN])
    wanted = Recipe.read(path)
    assert wanted.structures == (SPLEEN, LIVER)
    # Training was cancelled.
    assert Recipe.read(recipe_file(folder)).structures == (LIVER,)
    adopt(folder, wanted)
    assert Recipe.read(recipe_file(folder)) == wanted
    assert recipe_to_train_by(folder, [SPLEEN, LIVER]) == recipe_file(folder)


def test_a_federations_recipe_goes_before(folder) -> None:
    (folder / "federation").mkdir()
    agreed = Recipe(name="Spleens", structures=(SPLEEN,))
    agreed.write(folder / "federation" / "recipe.json")
    assert in_federation(folder)
    assert Recipe.read(recipe_to_train_by(folder, [LIVER])) == agreed
    own = Recipe(name="This site", structures=(LIVER, SPLEEN))
    adopt(folder, own)
    assert Recipe.read(recipe_file(folder)) == agreed
    assert Recipe.read(folder / "recipe.json").structures == (LIVER,)
