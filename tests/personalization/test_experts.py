"""The localized mixture of experts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from napari_fedsam.personalization.experts import MixtureOfExperts, MlpWithExperts


def make(gate="token", *, experts=4, top_k=2, width=12, hidden=5) -> MixtureOfExperts:
    torch.manual_seed(2)
    mixture = MixtureOfExperts(width, experts=experts, hidden=hidden, top_k=top_k, gate=gate)
    nn.init.normal_(mixture.up)
    nn.init.normal_(mixture.down_bias)
    return mixture


@pytest.mark.parametrize("gate", ["image", "token"])
def test_the_output_is_zero_at_the_start(gate: str) -> None:
    fresh = MixtureOfExperts(12, experts=4, hidden=5, top_k=2, gate=gate)  # type: ignore[arg-type]
    assert not fresh(torch.randn(2, 6, 12)).any()
    assert all(expert.abs().sum() > 0 for expert in fresh.down)


@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(["image", "token"]),
    st.data(),
)
def test_the_gate_keeps_the_top_k(batch, tokens, experts, gate, data) -> None:
    top_k = data.draw(st.integers(1, experts))
    mixture = make(gate, experts=experts, top_k=top_k)
    x = torch.randn(batch, tokens, 12)
    _, weights = mixture.gate_weights(x)
    assert weights.shape == (batch, 1 if gate == "image" else tokens, experts)
    if top_k > 1:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert ((weights > 0).sum(dim=-1) == top_k).all()
    everyone = mixture.gate(x.mean(dim=1, keepdim=True) if gate == "image" else x)
    least_kept = torch.where(weights > 0, everyone, torch.inf).min(dim=-1).values
    most_dropped = torch.where(weights > 0, -torch.inf, everyone).max(dim=-1).values
    assert (least_kept >= most_dropped).all()
    assert mixture(x).shape == x.shape


@pytest.mark.parametrize("gate", ["image", "token"])
def test_the_answer_is_the_weighted_sum_of_the_experts(gate: str) -> None:
    mixture = make(gate)
    x = torch.randn(2, 6, 12)
    weights = mixture.gate_weights(x)[1].expand(2, 6, 4)
    expected = torch.zeros_like(x)
    for expert in range(4):
        hidden = F.gelu(x @ mixture.down[expert].T + mixture.down_bias[expert])
        expected += weights[..., expert : expert + 1] * (hidden @ mixture.up[expert].T)
    torch.testing.assert_close(mixture(x), expected, atol=1e-5, rtol=1e-4)


class NormedMlp(nn.Sequential):
    """TinyViT's kind of MLP: it normalises its own input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        nn.init.constant_(self.norm.bias, 0.3)
        self.linear = nn.Linear(12, 12)


@pytest.mark.parametrize("norm_inside", [True, False])
def test_experts_run_beside_the_mlp_on_the_same_normalised_tokens(norm_inside: bool) -> None:
    mlp, mixture = NormedMlp(), make("image")
    layer = MlpWithExperts(mlp, mixture, norm_inside=norm_inside)
    x = torch.randn(2, 3, 4, 12)  # ViT's tokens lie on a grid
    seen = (mlp.norm(x) if norm_inside else x).reshape(2, 12, 12)
    torch.testing.assert_close(layer(x), mlp(x) + mixture(seen).reshape(x.shape))


def test_bypassed_experts_do_not_answer() -> None:
    layer = MlpWithExperts(NormedMlp(), make(), norm_inside=True)
    x = torch.randn(1, 4, 12)
    answer = layer(x)
    layer.bypassed = True
    assert torch.equal(layer(x), layer.mlp(x))
    layer.bypassed = False
    assert torch.equal(layer(x), answer)
    assert not torch.allclose(answer, layer.mlp(x))


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_loss_teaches_the_gate_however_many_experts_answer(top_k: int) -> None:
    mixture = make(top_k=top_k)
    mixture(torch.randn(2, 6, 12)).square().sum().backward()
    assert mixture.gate.weight.grad is not None
    assert mixture.gate.weight.grad.abs().max() > 1e-4


def imbalance(logits: list[list[list[float]]], *, gate: str, top_k: int) -> float:
    """Answer images of tokens whose features are the gate's logits."""
    experts = len(logits[0][0])
    mixture = make(gate, experts=experts, top_k=top_k, width=experts)
    with torch.no_grad():
        mixture.gate.weight.copy_(torch.eye(experts))
        mixture.gate.bias.zero_()
    mixture(torch.tensor(logits))
    assert mixture.imbalance is not None
    return float(mixture.imbalance.detach())


def test_the_imbalance_of_three_tokens_worked_out_by_hand() -> None:
    # Probabilities 3/4 and 1/4, the other way round, and 3/4 again; one expert answers.
    odds = math.log(3)
    value = imbalance([[[odds, 0.0], [0.0, odds], [odds, 0.0]]], gate="token", top_k=1)
    assert value == pytest.approx(2 * (2 / 3 * 7 / 12 + 1 / 3 * 5 / 12))


def test_the_imbalance_of_two_answering_experts_worked_out_by_hand() -> None:
    # Probabilities 1/2, 1/3 and 1/6. The first two answer, the third never.
    value = imbalance([[[math.log(3), math.log(2), 0.0]]], gate="image", top_k=2)
    assert value == pytest.approx(3 * (1 / 2 * 1 / 2 + 1 / 2 * 1 / 3))


@pytest.mark.parametrize("gate", ["image", "token"])
def test_experts_that_answer_equally_often_have_imbalance_one(gate: str) -> None:
    images = [[[90.0, 0.0]], [[0.0, 90.0]]]
    assert imbalance(images, gate=gate, top_k=1) == pytest.approx(1.0)
    one_for_all = [[[90.0, 0.0]], [[90.0, 0.0]]]
    assert imbalance(one_for_all, gate=gate, top_k=1) == pytest.approx(2.0)


def test_the_imbalance_teaches_the_gate_and_costs_nothing_in_use() -> None:
    mixture = make(top_k=2)
    x = torch.randn(2, 6, 12)
    mixture(x)
    mixture.imbalance.backward()
    assert mixture.gate.weight.grad.abs().sum() > 0
    with torch.no_grad():
        mixture(x)
    assert mixture.imbalance is None


def test_less_imbalance_means_a_more_even_use() -> None:
    mixture = make(experts=3, top_k=1)
    x = torch.randn(1, 200, 12)
    nn.init.constant_(mixture.gate.bias, 0.0)
    with torch.no_grad():
        mixture.gate.bias[0] = 3.0
    optimizer = torch.optim.Adam(mixture.gate.parameters(), lr=0.2)

    def shares() -> torch.Tensor:
        return (mixture.gate_weights(x)[1] > 0).float().mean(dim=(0, 1))

    before = shares().max()
    for _ in range(15):
        mixture(x)
        optimizer.zero_grad()
        mixture.imbalance.backward()
        optimizer.step()
    assert shares().max() < before - 0.2
