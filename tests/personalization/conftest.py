"""Recipes in one line, and personalised LiteMedSAM models without loading it each time."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization import PersonalisedModel, Recipe
from napari_fedsam.sam import load_model
from napari_fedsam.sam.protocol import PromptableModel

STRUCTURES = (
    Structure(value=3, name="polyp", color="#ff0000"),
    Structure(value=7, name="spleen", color="#00ff00"),
)


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Recipe]:
    def build(**changes: Any) -> Recipe:
        parts: dict[str, Any] = {"name": "Polyps", "structures": STRUCTURES}
        return Recipe(**(parts | changes))

    return build


@pytest.fixture(scope="session")
def base() -> PromptableModel:
    return load_model()


@pytest.fixture(scope="session")
def personalise(base, make_recipe) -> Callable[..., PersonalisedModel]:
    def build(**changes: Any) -> PersonalisedModel:
        return PersonalisedModel(copy.deepcopy(base), make_recipe(**changes))

    return build
