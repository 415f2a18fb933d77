"""segment-anything's ViT-B, ViT-L and ViT-H (Kirillov et al. 2023), and MedSAM (a ViT-B)."""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Literal

import torch
from torch import nn

from napari_fedsam.sam.preprocessing import SAM_PIXEL_MEAN, SAM_PIXEL_STD, PixelPreprocessing
from napari_fedsam.sam.protocol import PromptKind, Stage
from napari_fedsam.sam.published_model import PublishedModel

VitSize = Literal["vit_b", "vit_l", "vit_h"]
INPUT_SIZE = 1024


class SegmentAnything(PublishedModel):
    """A segment-anything model as a `PromptableModel`, without weights until `load_weights`.

    Parameters
    ----------
    size : {"vit_b", "vit_l", "vit_h"}
        The official architecture.
    name : str
        The registry's name.
    medsam : bool
        MedSAM's normalisation (per-image min-max) and prompts (boxes only) instead of SAM's. Unlike
        its published inference, which stretches an image to the square, images keep their
        proportions and are padded, as for all other models.
    """

    def __init__(self, size: VitSize, name: str, *, medsam: bool = False) -> None:
        from segment_anything import sam_model_registry

        kinds: frozenset[PromptKind] = frozenset({"box"} if medsam else {"point", "box"})
        own_scale = () if medsam else (SAM_PIXEL_MEAN, SAM_PIXEL_STD)
        preprocessing = PixelPreprocessing(INPUT_SIZE, *own_scale)
        super().__init__(name, sam_model_registry[size](), kinds, preprocessing)

    def load_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Load a state dictionary in the official layout.

        Raises
        ------
        RuntimeError
            When names or shapes differ from the architecture's.
        """
        weights = {
            name: tensor
            for name, tensor in state.items()
            if name not in ("pixel_mean", "pixel_std")
        }
        self.load_state_dict(weights)
        self.eval()

    def encoder_stages(self) -> Sequence[Stage]:
        """Return the ViT as a chain: patch and position embedding, every block, the neck."""
        encoder = self.image_encoder
        return [PatchStage(encoder), *encoder.blocks, NeckStage(encoder.neck)]  # type: ignore[misc,arg-type]


def classes_of_decoder(modeling: ModuleType) -> frozenset[type]:
    """Return the classes that segment-anything's mask decoder consists of.

    Parameters
    ----------
    modeling : module
        `segment_anything.modeling`, or a copy of it.
    """
    transformer, decoder, common = (
        importlib.import_module(f"{modeling.__name__}.{name}")
        for name in ("transformer", "mask_decoder", "common")
    )
    ours = (
        decoder.MaskDecoder,
        decoder.MLP,
        transformer.TwoWayTransformer,
        transformer.TwoWayAttentionBlock,
        transformer.Attention,
        common.MLPBlock,
        common.LayerNorm2d,
    )
    plain = (nn.Linear, nn.LayerNorm, nn.GELU, nn.ReLU, nn.ConvTranspose2d, nn.Embedding)
    return frozenset((*ours, *plain, nn.Sequential, nn.ModuleList))


def decoder_classes() -> frozenset[type]:
    """Return the classes that segment-anything's own mask decoder consists of."""
    import segment_anything.modeling

    return classes_of_decoder(segment_anything.modeling)


class PatchStage(nn.Module):
    """The ViT's first stage, a module so that its trainable parameters are seen."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.patches = encoder.patch_embed
        self.pos_embed: torch.Tensor = encoder.pos_embed  # type: ignore[assignment]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the tokens (B, h, w, C)."""
        tokens: torch.Tensor = self.patches(pixels) + self.pos_embed  # type: ignore[operator]
        return tokens


class NeckStage(nn.Module):
    """The ViT's last stage, from tokens (B, h, w, C) to the embedding (B, 256, h, w)."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the embedding."""
        embedding: torch.Tensor = self.neck(tokens.permute(0, 3, 1, 2))
        return embedding
