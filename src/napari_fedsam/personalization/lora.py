"""Low-rank updates (LoRA, Hu et al. 2022, arXiv 2106.09685). They begin at zero."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

QkvLayout = Literal["per_head", "blocks"]
_QKV = ("q", "k", "v")


class LoraQkv(nn.Module):
    """A frozen query-key-value projection with low-rank updates of some of the three.

    Parameters
    ----------
    projection : torch.nn.Linear
        From d to 3 * d features.
    heads : int
        Attention heads.
    rank : int
        Rank r of each update.
    alpha : float
        Scale: the update is multiplied by alpha / r.
    targets : sequence of {"q", "k", "v"}
        What is updated.
    layout : {"per_head", "blocks"}
        Order of the outputs: TinyViT lays out [q | k | v] for each head in turn, ViT all queries,
        then all keys, then all values.
    """

    def __init__(
        self,
        projection: nn.Linear,
        *,
        heads: int,
        rank: int,
        alpha: float,
        targets: Sequence[Literal["q", "k", "v"]],
        layout: QkvLayout,
    ) -> None:
        super().__init__()
        width = projection.in_features
        self.projection = projection
        self.heads = heads
        self.layout = layout
        self.scale = alpha / rank
        self.targets = tuple(name for name in _QKV if name in targets)
        # One pair of matrices per target, in the order q, k, v.
        self.lora_a = nn.Parameter(torch.empty(len(self.targets), rank, width))
        self.lora_b = nn.Parameter(
            torch.zeros(len(self.targets), projection.out_features // 3, rank)
        )
        _begin(self.lora_a)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (..., d) to (..., 3 * d)."""
        base: torch.Tensor = self.projection(x)
        return base + F.linear(F.linear(x, self.lora_a.flatten(0, 1)), self._up())

    def _up(self) -> torch.Tensor:
        """Return all second matrices as one, (3 * d, targets * rank), in the outputs' order."""
        count, width, rank = self.lora_b.shape
        # Small matrices are put in order, so that the many tokens need not be.
        up = self.lora_b.new_zeros(3, width, count, rank)
        for number, name in enumerate(self.targets):
            up[_QKV.index(name), :, number] = self.lora_b[number] * self.scale
        if self.layout == "per_head":
            # (3, heads * d_h) -> (heads, 3, d_h)
            up = up.unflatten(1, (self.heads, -1)).transpose(0, 1)
        return up.reshape(3 * width, count * rank)


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank update.

    Parameters
    ----------
    projection : torch.nn.Linear
    rank : int
        Rank r of the update.
    alpha : float
        Scale: the update is multiplied by alpha / r.
    """

    acts_as = nn.Linear

    def __init__(self, projection: nn.Linear, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.projection = projection
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(torch.empty(rank, projection.in_features))
        self.lora_b = nn.Parameter(torch.zeros(projection.out_features, rank))
        _begin(self.lora_a[None])

    @property
    def weight(self) -> torch.Tensor:
        """The updated weight, (out, in)."""
        return self.projection.weight + self.scale * (self.lora_b @ self.lora_a)

    @property
    def bias(self) -> torch.Tensor:
        """The projection's bias, (out,)."""
        return self.projection.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (..., in) to (..., out)."""
        base: torch.Tensor = self.projection(x)
        return base + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale


def _begin(matrices: torch.Tensor) -> None:
    for matrix in matrices:
        nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))
