"""Recipes in one line, and personalised models without loading the base model each time."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization import PersonalisedModel, Recipe
from napari_fedsam.sam import load_model
from napari_fedsam.sam.protocol import PromptableModel
from napari_fedsam.sam.segment_anything_models import SegmentAnything

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


@pytest.fixture(scope="session")
def vit_base() -> SegmentAnything:
    """Return a ViT-B as its training begins: no checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SegmentAnything("vit_b", "vit_b").eval()


@pytest.fixture(scope="session")
def outline(base, make_recipe) -> Callable[..., PersonalisedModel]:
    """Build models of any size; those of segment-anything have names and shapes, but no values."""

    def build(size: str, **changes: Any) -> PersonalisedModel:
        if size == "lite_medsam":
            return PersonalisedModel(copy.deepcopy(base), make_recipe(**changes))
        with torch.device("meta"):
            return PersonalisedModel(SegmentAnything(size, size), make_recipe(**changes))  # type: ignore[arg-type]

    return build
