"""Inserted modules, methods, and the frozen/shared/local parameter partition."""

from napari_fedsam.personalization.errors import ParameterError, RecipeError
from napari_fedsam.personalization.method_options import MethodOptions
from napari_fedsam.personalization.personalised_model import (
    PersonalisedModel,
    build_personalised_model,
)
from napari_fedsam.personalization.recipe import PromptShares, Recipe, TrainingOptions

__all__ = [
    "MethodOptions",
    "ParameterError",
    "PersonalisedModel",
    "PromptShares",
    "Recipe",
    "RecipeError",
    "TrainingOptions",
    "build_personalised_model",
]
