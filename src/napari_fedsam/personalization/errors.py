"""Failures of recipes and personalised models."""

from napari_fedsam.errors import FedSamError


class RecipeError(FedSamError):
    """A recipe is unreadable, contradictory, or does not fit the model."""


class ParameterError(FedSamError):
    """Parameters do not have the names, shapes or types that the recipe prescribes."""
