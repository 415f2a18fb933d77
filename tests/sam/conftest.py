"""LiteMedSAM once for all tests, and a picture that anyone can outline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from napari_fedsam.sam import ImageEmbedding, Predictor, Prompts, load_model
from napari_fedsam.sam.lite_medsam import LiteMedSam


@dataclass(frozen=True, eq=False)
class Scene:
    """A bright ellipse on a textured background, joined at its right end by a second one."""

    image: NDArray[np.uint8]
    ellipse: NDArray[np.bool_]
    neighbour: NDArray[np.bool_]
    box: tuple[float, float, float, float]
    centre: tuple[float, float]
    neighbour_centre: tuple[float, float]


@pytest.fixture(scope="session")
def scene() -> Scene:
    rows, columns = np.mgrid[:150, :200]
    ellipse = ((columns - 75) / 38) ** 2 + ((rows - 80) / 25) ** 2 <= 1
    neighbour = (((columns - 132) / 22) ** 2 + ((rows - 74) / 18) ** 2 <= 1) & ~ellipse
    random = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(random.normal(0, 1, (150, 200)), 2.5)
    pixels = 70 + 90 * texture + 95 * ellipse + 80 * neighbour
    pixels = ndimage.gaussian_filter(pixels, 0.8) + random.normal(0, 4, pixels.shape)
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    return Scene(image, ellipse, neighbour, (37, 55, 113, 105), (75, 80), (132, 74))


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
def embedding(predictor: Predictor, scene: Scene) -> ImageEmbedding:
    return predictor.encode(scene.image)


@pytest.fixture(scope="session")
def clicks() -> Callable[..., Prompts]:
    """Return prompts from positive and negative clicks, each a list of (x, y)."""

    def build(positive: list[Any], negative: list[Any] | None = None, **rest: Any) -> Prompts:
        points = np.array([*positive, *(negative or [])], np.float32)
        labels = np.array([True] * len(positive) + [False] * len(negative or []))
        return Prompts(points, labels, **rest)

    return build
