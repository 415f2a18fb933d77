"""Low-rank updates of queries, keys and values, in both layouts of the projection."""

import pytest
import torch
from torch import nn

from napari_fedsam.personalization import MethodOptions
from napari_fedsam.personalization.insertion import transformer_blocks
from napari_fedsam.personalization.lora import LoraLinear, LoraQkv

HEADS, WIDTH, RANK, ALPHA = 4, 24, 3, 6.0
PER_HEAD = WIDTH // HEADS


def make(layout: str, *, trained: bool, targets: str = "qv") -> LoraQkv:
    torch.manual_seed(1)
    lora = LoraQkv(
        nn.Linear(WIDTH, 3 * WIDTH),
        heads=HEADS,
        rank=RANK,
        alpha=ALPHA,
        targets=tuple(targets),  # type: ignore[arg-type]
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


@pytest.mark.parametrize("targets", ["q", "k", "v", "qk", "qv", "vq", "qkv"])
@pytest.mark.parametrize("layout", ["per_head", "blocks"])
@pytest.mark.parametrize("shape", [(2, 5), (1, 3, 4)])
def test_only_the_targets_change_as_an_explicit_loop_says(layout, shape, targets: str) -> None:
    lora = make(layout, trained=True, targets=targets)
    x = torch.randn(*shape, WIDTH)
    change = lora(x) - lora.projection(x)
    updated = [name for name in "qkv" if name in targets]
    assert lora.lora_a.shape == (len(updated), RANK, WIDTH)
    for head in range(HEADS):
        for part, name in enumerate("qkv"):
            seen = change[..., rows(layout, part, head)]
            if name not in targets:
                assert not seen.any()
                continue
            row = updated.index(name)
            b = lora.lora_b[row][head * PER_HEAD : (head + 1) * PER_HEAD]
            expected = x @ lora.lora_a[row].T @ b.T * (ALPHA / RANK)
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


def trained_linear() -> LoraLinear:
    torch.manual_seed(4)
    lora = LoraLinear(nn.Linear(6, 10), rank=RANK, alpha=ALPHA)
    nn.init.normal_(lora.lora_b)
    return lora


def test_a_linear_layer_begins_unchanged() -> None:
    lora = LoraLinear(nn.Linear(6, 10), rank=RANK, alpha=ALPHA)
    x = torch.randn(2, 5, 6)
    assert torch.equal(lora(x), lora.projection(x))
    assert lora.lora_a.abs().sum() > 0


def test_a_linear_layers_update_is_a_product_of_two_small_matrices() -> None:
    lora = trained_linear()
    x = torch.randn(2, 5, 6)
    weight = lora.projection.weight + ALPHA / RANK * lora.lora_b @ lora.lora_a
    expected = x @ weight.T + lora.projection.bias
    torch.testing.assert_close(lora(x), expected, atol=1e-5, rtol=1e-4)
    lora(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in (lora.lora_a, lora.lora_b))


def test_the_decoders_queries_and_values_get_updates_of_the_recipes_rank(personalise) -> None:
    options = MethodOptions(decoder="lora", lora_rank=3, lora_alpha=6)
    decoder = personalise(options=options).mask_decoder
    layers = [module for module in decoder.modules() if hasattr(module, "q_proj")]
    assert len(layers) == 7  # two blocks with three attentions, and a last one
    for layer in layers:
        for name in ("q_proj", "v_proj"):
            update = getattr(layer, name)
            assert isinstance(update, LoraLinear)
            assert update.lora_a.shape[0] == 3
            assert update.scale == 2
        assert isinstance(layer.k_proj, nn.Linear)
        assert isinstance(layer.out_proj, nn.Linear)


@pytest.mark.parametrize("decoder", ["frozen", "shared", "local"])
def test_only_a_recipe_that_says_so_changes_the_decoder(personalise, decoder: str) -> None:
    model = personalise(options=MethodOptions(decoder=decoder))
    assert not any(isinstance(module, LoraLinear) for module in model.mask_decoder.modules())
