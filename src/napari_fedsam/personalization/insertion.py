"""Putting modules into an image encoder's last transformer blocks.

TinyViT (LiteMedSAM) and ViT (segment-anything) differ in where attention and MLP sit and in how
the query-key-value projection is laid out; the rest of the package need not know.
"""

from dataclasses import dataclass

from torch import nn

from napari_fedsam.personalization.errors import RecipeError
from napari_fedsam.personalization.experts import MixtureOfExperts, MlpWithExperts
from napari_fedsam.personalization.lora import LoraQkv, QkvLayout
from napari_fedsam.personalization.methods import Method
from napari_fedsam.personalization.recipe import MethodOptions


@dataclass(frozen=True)
class _BlockKind:
    """What insertion must know of a kind of transformer block."""

    layout: QkvLayout
    mlp_has_norm: bool


_TINY_VIT = _BlockKind("per_head", mlp_has_norm=True)
_VIT = _BlockKind("blocks", mlp_has_norm=False)


def transformer_blocks(encoder: nn.Module) -> list[nn.Module]:
    """Return an encoder's attention blocks in the order in which they run."""
    return [
        module
        for module in encoder.modules()
        if hasattr(module, "attn") and hasattr(module, "mlp") and hasattr(module.attn, "qkv")
    ]


def insert_modules(encoder: nn.Module, method: Method, options: MethodOptions) -> None:
    """Insert a method's modules into the encoder's last blocks, in place.

    Raises
    ------
    RecipeError
        When the encoder has fewer blocks than the options ask for.
    """
    blocks = transformer_blocks(encoder)
    if options.blocks > len(blocks):
        raise RecipeError(
            f"The recipe wants modules in the last {options.blocks} blocks, but this encoder has "
            f"{len(blocks)}: lower 'blocks'."
        )
    for block in blocks[-options.blocks :]:
        kind = _TINY_VIT if hasattr(block.mlp, "norm") else _VIT
        width = int(block.attn.qkv.in_features)  # type: ignore[union-attr,arg-type]
        if method.inserts_lora:
            _insert_lora(block.attn, kind, options)  # type: ignore[arg-type]
        if method.inserts_experts:
            _insert_experts(block, width, kind, options)


def _insert_lora(attention: nn.Module, kind: _BlockKind, options: MethodOptions) -> None:
    attention.qkv = LoraQkv(
        attention.qkv,  # type: ignore[arg-type]
        heads=int(attention.num_heads),  # type: ignore[arg-type]
        rank=options.lora_rank,
        alpha=options.lora_alpha,
        layout=kind.layout,
    )


def _insert_experts(block: nn.Module, width: int, kind: _BlockKind, options: MethodOptions) -> None:
    experts = MixtureOfExperts(
        width,
        experts=options.experts,
        hidden=options.expert_width,
        top_k=options.top_k,
        gate=options.gate,
    )
    block.mlp = MlpWithExperts(block.mlp, experts, norm_inside=kind.mlp_has_norm)  # type: ignore[arg-type]
