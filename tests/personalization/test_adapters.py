"""Medical SAM Adapters: where they sit and what they compute."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_fedsam.personalization.adapters import (
    AttentionWithAdapter,
    BottleneckAdapter,
    MlpWithAdapter,
)
from napari_fedsam.personalization.insertion import transformer_blocks

WIDTH = 12


def drawn(adapter: BottleneckAdapter) -> BottleneckAdapter:
    torch.manual_seed(3)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    return adapter


def by_hand(adapter: BottleneckAdapter, x: torch.Tensor) -> torch.Tensor:
    inner = F.gelu(x @ adapter.down.weight.T + adapter.down.bias)
    answer: torch.Tensor = inner @ adapter.up.weight.T + adapter.up.bias
    return answer


class NormedMlp(nn.Sequential):
    """TinyViT's kind of MLP: it normalises its own input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.constant_(self.norm.bias, 0.3)
        self.linear = nn.Linear(WIDTH, WIDTH)


def test_the_bottleneck_is_a_quarter_wide_and_begins_at_zero() -> None:
    adapter = BottleneckAdapter(WIDTH)
    assert adapter.down.weight.shape == (WIDTH // 4, WIDTH)
    assert adapter.up.weight.shape == (WIDTH, WIDTH // 4)
    assert not adapter(torch.randn(2, 5, WIDTH)).any()
    assert adapter.down.weight.any()


def test_the_bottleneck_follows_its_formula() -> None:
    adapter, x = drawn(BottleneckAdapter(WIDTH)), torch.randn(2, 5, WIDTH)
    torch.testing.assert_close(adapter(x), by_hand(adapter, x), atol=1e-5, rtol=1e-4)


def test_the_attentions_adapter_reads_its_answer_and_has_a_skip_connection() -> None:
    layer = AttentionWithAdapter(nn.Linear(WIDTH, WIDTH), WIDTH)
    drawn(layer.attention_adapter)
    x = torch.randn(2, 5, WIDTH)
    attended = layer.attention(x)
    expected = attended + by_hand(layer.attention_adapter, attended)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm_inside", [True, False])
def test_the_mlps_adapter_reads_what_the_mlp_reads_at_half_weight(norm_inside: bool) -> None:
    layer = MlpWithAdapter(NormedMlp(), WIDTH, norm_inside=norm_inside)
    drawn(layer.mlp_adapter)
    x = torch.randn(2, 3, 4, WIDTH)
    seen = layer.mlp.norm(x) if norm_inside else x
    expected = layer.mlp(x) + 0.5 * by_hand(layer.mlp_adapter, seen)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "blocks", "norm_inside"), [("lite_medsam", 10, True), ("vit_b", 12, False)]
)
def test_every_block_has_two_adapters(outline, size: str, blocks: int, norm_inside: bool) -> None:
    found = transformer_blocks(outline(size, method="fedmsa").image_encoder)
    assert len(found) == blocks
    for block in found:
        assert isinstance(block.attn, AttentionWithAdapter)
        assert isinstance(block.mlp, MlpWithAdapter)
        assert block.mlp.norm_inside == norm_inside
        assert block.attn.attention_adapter.up.out_features == block.attn.attention.qkv.in_features


def test_insertion_leaves_one_view_of_the_blocks(base, outline) -> None:
    """What looks for blocks later finds the same ones, whatever was put into them."""
    bare = len(transformer_blocks(base.image_encoder))
    for method in ("pfedsam", "fedmsa", "lora_fedavg"):
        assert len(transformer_blocks(outline("lite_medsam", method=method).image_encoder)) == bare
