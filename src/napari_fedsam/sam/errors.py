"""Failures of the promptable models and their registry."""

from napari_fedsam.errors import FedSamError


class ModelError(FedSamError):
    """A model cannot be found, fetched, verified or loaded."""


class PromptError(FedSamError):
    """A prompt does not fit the image or the model."""
