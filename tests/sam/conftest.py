"""LiteMedSAM once for all tests."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_fedsam.sam import ImageEmbedding, Predictor, Prompts, load_model
from napari_fedsam.sam.lite_medsam import LiteMedSam


@pytest.fixture(scope="session")
def lite_medsam() -> LiteMedSam:
    model = load_model()
    assert isinstance(model, LiteMedSam)
    return model


@pytest.fixture(scope="session")
def predictor(lite_medsam: LiteMedSam) -> Predictor:
    # Float32, so that the golden masks are the same on every processor.
    return Predictor(lite_medsam, bf16=False)


@pytest.fixture(scope="session")
def embedding(predictor: Predictor, scene: Any) -> ImageEmbedding:
    return predictor.encode(scene.image)


@pytest.fixture(scope="session")
def clicks() -> Callable[..., Prompts]:
    """Return prompts from positive and negative clicks, each a list of (x, y)."""

    def build(positive: list[Any], negative: list[Any] | None = None, **rest: Any) -> Prompts:
        points = np.array([*positive, *(negative or [])], np.float32)
        labels = np.array([True] * len(positive) + [False] * len(negative or []))
        return Prompts(points, labels, **rest)

    return build
