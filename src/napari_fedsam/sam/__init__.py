"""Promptable models, their registry, and the predictor."""

from napari_fedsam.sam.errors import ModelError, PromptError
from napari_fedsam.sam.prediction import ImageEmbedding, Prediction
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.prompts import Prompts
from napari_fedsam.sam.registry import DEFAULT_MODEL, available_models, load_model

__all__ = [
    "DEFAULT_MODEL",
    "ImageEmbedding",
    "ModelError",
    "Prediction",
    "Predictor",
    "PromptError",
    "Prompts",
    "available_models",
    "load_model",
]
