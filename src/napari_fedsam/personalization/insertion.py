"""Putting modules into an image encoder's transformer blocks and into the mask decoder.

TinyViT (LiteMedSAM) and ViT (segment-anything) differ in where attention and MLP sit and in how
the query-key-value projection is laid out; the rest of the package need not know.
"""

from dataclasses import dataclass

from torch import nn

from napari_fedsam.personalization.adapters import AttentionWithAdapter, MlpWithAdapter
from napari_fedsam.personalization.errors import RecipeError
from napari_fedsam.personalization.experts import MixtureOfExperts, MlpWithExperts
from napari_fedsam.personalization.lora import LoraLinear, LoraQkv, QkvLayout
from napari_fedsam.personalization.method_options import MethodOptions
from napari_fedsam.personalization.methods import Method


@dataclass(frozen=True)
class _BlockKind:
    """What insertion must know of a kind of transformer block."""

    layout: QkvLayout
    mlp_has_norm: bool
    norm: type[nn.Module]


_TINY_VIT = _BlockKind("per_head", mlp_has_norm=True, norm=nn.BatchNorm2d)
_VIT = _BlockKind("blocks", mlp_has_norm=False, norm=nn.LayerNorm)


def transformer_blocks(encoder: nn.Module) -> list[nn.Module]:
    """Return an encoder's attention blocks, with or without adapters, in the order they run."""
    return [
        module
        for module in encoder.modules()
        if hasattr(module, "attn") and hasattr(module, "mlp") and _has_queries(module.attn)
    ]


def _has_queries(attention: object) -> bool:
    # An adapter keeps the attention that it follows under this name.
    return hasattr(getattr(attention, "attention", attention), "qkv")


def insert_modules(encoder: nn.Module, method: Method, options: MethodOptions) -> None:
    """Insert a method's modules into the encoder, in place: adapters everywhere, others last.

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
    last = blocks[-options.blocks :]
    for block in last if "lora" in method.inserts else []:
        _insert_lora(block, options)
    has_experts = "experts" in method.inserts and options.experts > 0
    for block in last[-options.expert_blocks :] if has_experts else []:
        _insert_experts(block, options)
    for block in blocks if "adapters" in method.inserts else []:
        _insert_adapters(block)


def insert_decoder_lora(decoder: nn.Module, options: MethodOptions) -> None:
    """Give the queries and values of the decoder's attention layers low-rank updates."""
    layers = [module for module in decoder.modules() if hasattr(module, "q_proj")]
    for layer in layers:
        for name in ("q_proj", "v_proj"):
            projection = getattr(layer, name)
            update = LoraLinear(projection, rank=options.lora_rank, alpha=options.lora_alpha)
            setattr(layer, name, update)


def normalisation_layers(encoder: nn.Module, blocks: int) -> list[nn.Module]:
    """Return the norms of the last blocks: batch norms in TinyViT, layer norms in ViT."""
    return [
        module
        for block in transformer_blocks(encoder)[-blocks:]
        for module in block.modules()
        if isinstance(module, _kind(block).norm)
    ]


def _kind(block: nn.Module) -> _BlockKind:
    # Whatever is inserted beside the MLP keeps it under this name.
    mlp = getattr(block.mlp, "mlp", block.mlp)
    return _TINY_VIT if hasattr(mlp, "norm") else _VIT


def _width(block: nn.Module) -> int:
    return int(block.attn.qkv.in_features)  # type: ignore[union-attr,arg-type]


def _insert_lora(block: nn.Module, options: MethodOptions) -> None:
    attention = block.attn
    attention.qkv = LoraQkv(  # type: ignore[union-attr]
        attention.qkv,  # type: ignore[union-attr,arg-type]
        heads=int(attention.num_heads),  # type: ignore[union-attr,arg-type]
        rank=options.lora_rank,
        alpha=options.lora_alpha,
        targets=options.lora_targets,
        layout=_kind(block).layout,
    )


def _insert_experts(block: nn.Module, options: MethodOptions) -> None:
    width = int(block.attn.proj.out_features)  # type: ignore[union-attr,arg-type]
    experts = MixtureOfExperts(
        width,
        experts=options.experts,
        hidden=options.expert_width,
        top_k=options.top_k,
        gate=options.gate,
    )
    kind = _kind(block)
    block.mlp = MlpWithExperts(block.mlp, experts, norm_inside=kind.mlp_has_norm)  # type: ignore[arg-type]


def _insert_adapters(block: nn.Module) -> None:
    width, kind = _width(block), _kind(block)
    block.mlp = MlpWithAdapter(block.mlp, width, norm_inside=kind.mlp_has_norm)  # type: ignore[arg-type]
    block.attn = AttentionWithAdapter(block.attn, width)  # type: ignore[arg-type]
