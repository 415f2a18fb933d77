"""Low-rank updates of queries and values, in both layouts of the projection."""

import pytest
import torch
from torch import nn

from napari_fedsam.personalization.insertion import transformer_blocks
from napari_fedsam.personalization.lora import LoraQkv

HEADS, WIDTH, RANK, ALPHA = 4, 24, 3, 6.0
PER_HEAD = WIDTH // HEADS


def make(layout: str, *, trained: bool) -> LoraQkv:
    torch.manual_seed(1)
    lora = LoraQkv(
        nn.Linear(WIDTH, 3 * WIDTH),
        heads=HEADS,
        rank=RANK,
        alpha=ALPHA,
        layout=layout,  # type: ignore[arg-type]
    )
    if trained:
        nn.init.normal_(lora.lora_b)
    return lora


def rows(layout: str, part: int, head: int) -> slice:
    """Where the outputs of query (0), key (1) or value (2) of a head lie."""
    first = 3 * head + part if layout == "per_head" else part * HEADS + head
    return slice(first * PER_HEAD, (first + 1) * PER_HEAD)


@pytest.mark.parametrize("layout", ["per_head", "blocks"])
def test_step_zero_is_the_projection(layout: str) -> None:
    lora = make(layout, trained=False)
    x = torch.randn(2, 5, WIDTH)
    assert torch.equal(lora(x), lora.projection(x))
    assert lora.lora_a.abs().sum() > 0


@pytest.mark.parametrize("layout", ["per_head", "blocks"])
@pytest.mark.parametrize("shape", [(2, 5), (1, 3, 4)])
def test_only_queries_and_values_change_as_an_explicit_loop_says(layout, shape) -> None:
    lora = make(layout, trained=True)
    x = torch.randn(*shape, WIDTH)
    change = lora(x) - lora.projection(x)
    for head in range(HEADS):
        assert not change[..., rows(layout, 1, head)].any()
        for row, part in enumerate((0, 2)):
            b = lora.lora_b[row][head * PER_HEAD : (head + 1) * PER_HEAD]
            expected = x @ lora.lora_a[row].T @ b.T * (ALPHA / RANK)
            seen = change[..., rows(layout, part, head)]
            assert seen.abs().sum() > 0
            torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-4)


def test_the_layout_is_that_of_tiny_vit(personalise) -> None:
    """Only the queries of the second head move; TinyViT's own split must see just that."""
    attention = transformer_blocks(personalise().image_encoder)[-1].attn
    heads, width = attention.num_heads, attention.key_dim
    with torch.no_grad():
        attention.qkv.lora_b[0, width : 2 * width] = 1.0
        x = torch.randn(1, 7, attention.qkv.projection.in_features)
        change = attention.qkv(x) - attention.qkv.projection(x)
    parts = change.view(1, 7, heads, -1).split([width, width, attention.d], dim=3)
    moved = [part.abs().sum(dim=(0, 1, 3)) > 0 for part in parts]
    assert moved[0].tolist() == [head == 1 for head in range(heads)]
    assert not moved[1].any()
    assert not moved[2].any()


def test_gradients_reach_the_update_and_scale_with_alpha() -> None:
    lora = make("blocks", trained=True)
    lora(torch.randn(2, 5, WIDTH)).square().sum().backward()
    assert lora.lora_a.grad is not None
    assert lora.lora_b.grad is not None
    assert lora.lora_a.grad.abs().sum() > 0
    x = torch.randn(1, 2, WIDTH)
    change = lora(x) - lora.projection(x)
    lora.scale *= 2
    torch.testing.assert_close(lora(x) - lora.projection(x), 2 * change, atol=1e-5, rtol=1e-4)
