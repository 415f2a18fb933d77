"""Tiny training cases, and personalised models: LiteMedSAM's, and a smaller one's."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization import PersonalisedModel, Recipe, TrainingOptions
from napari_fedsam.sam import load_model
from napari_fedsam.sam.preprocessing import PixelPreprocessing
from napari_fedsam.sam.protocol import PromptableModel
from napari_fedsam.sam.segment_anything_models import SegmentAnything
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.samples import TrainingSample

STRUCTURES = (
    Structure(value=3, name="polyp", color="#ff0000"),
    Structure(value=7, name="spleen", color="#00ff00"),
)


def build_recipe(**training: Any) -> Recipe:
    options: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 2,
        "augmentations": 0,
    }
    of_recipe = ("method", "options", "seed", "name", "rounds")
    parts = {key: training.pop(key) for key in of_recipe if key in training}
    return Recipe(
        **({"name": "Polyps"} | parts),
        structures=STRUCTURES,
        training=TrainingOptions(**(options | training)),
    )


def build_sample(name: str, centre: tuple[int, int] | None, structure: int = 3) -> TrainingSample:
    """A bright disc on noise, or noise alone."""
    rows, columns = np.mgrid[:48, :64]
    mask = np.zeros((48, 64), np.bool_)
    if centre is not None:
        mask = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < 120
    noise = np.random.default_rng(len(name) + sum(name.encode())).integers(0, 60, mask.shape)
    return TrainingSample(name, name, (noise + 160 * mask).astype(np.uint8), mask, structure)


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Recipe]:
    return build_recipe


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., TrainingSample]:
    return build_sample


@pytest.fixture(scope="session")
def samples() -> list[TrainingSample]:
    return [build_sample("a", (20, 22)), build_sample("bb", (40, 26), structure=7)]


@pytest.fixture(scope="session")
def absent() -> TrainingSample:
    return build_sample("nothing", None)


@pytest.fixture(scope="session")
def base() -> PromptableModel:
    return load_model()


@pytest.fixture(scope="session")
def personalise(base) -> Callable[..., PersonalisedModel]:
    def build(**changes: Any) -> PersonalisedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PersonalisedModel(copy.deepcopy(base), build_recipe(**changes))

    return build


class SmallSam(SegmentAnything):
    """segment-anything's own parts, narrow and shallow, with weights drawn at random."""

    def __init__(self) -> None:
        from segment_anything.modeling import (
            ImageEncoderViT,
            MaskDecoder,
            PromptEncoder,
            TwoWayTransformer,
        )

        torch.nn.Module.__init__(self)
        self.name = "small_sam"
        self.input_size = 256
        self.prompt_kinds = frozenset({"box"})
        self.image_encoder = ImageEncoderViT(
            img_size=256, patch_size=4, embed_dim=32, depth=4, num_heads=2, window_size=8
        )
        self.prompt_encoder = PromptEncoder(256, (64, 64), (256, 256), 16)
        transformer = TwoWayTransformer(depth=1, embedding_dim=256, num_heads=8, mlp_dim=64)
        self.mask_decoder = MaskDecoder(transformer_dim=256, transformer=transformer)
        self.preprocessing = PixelPreprocessing(256)


@pytest.fixture(scope="session")
def small_base() -> PromptableModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallSam().eval()


@pytest.fixture(scope="session")
def small(small_base) -> Callable[..., PersonalisedModel]:
    """Build personalised models that train at many steps a second."""

    def build(**changes: Any) -> PersonalisedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PersonalisedModel(copy.deepcopy(small_base), build_recipe(**changes))

    return build


@pytest.fixture(scope="session")
def features() -> FeatureCache:
    """Encoder features that the tests compute only once."""
    return FeatureCache()


@pytest.fixture
def files_limited_to() -> Callable[[int], AbstractContextManager[None]]:
    """Let the system refuse to write more than a number of bytes to any file."""
    resource = pytest.importorskip("resource", reason="Windows cannot limit the size of files")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
