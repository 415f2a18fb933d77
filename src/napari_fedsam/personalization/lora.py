"""Low-rank updates of the queries and values (LoRA, Hu et al. 2022)."""

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

QkvLayout = Literal["per_head", "blocks"]


class LoraQkv(nn.Module):
    """A frozen query-key-value projection with low-rank updates of its queries and values.

    The output at the start equals the projection's: `lora_b` begins at zero.

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
    layout : {"per_head", "blocks"}
        Order of the outputs: TinyViT lays out [q | k | v] for each head in turn, ViT all queries,
        then all keys, then all values.
    """

    def __init__(
        self, projection: nn.Linear, *, heads: int, rank: int, alpha: float, layout: QkvLayout
    ) -> None:
        super().__init__()
        width = projection.in_features
        self.projection = projection
        self.heads = heads
        self.layout = layout
        self.scale = alpha / rank
        # Queries and values have a pair each: rows 0 and 1.
        self.lora_a = nn.Parameter(torch.empty(2, rank, width))
        self.lora_b = nn.Parameter(torch.zeros(2, projection.out_features // 3, rank))
        for row in self.lora_a:
            nn.init.kaiming_uniform_(row, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project (..., d) to (..., 3 * d)."""
        base: torch.Tensor = self.projection(x)
        queries, values = (
            F.linear(F.linear(x, a), b) * self.scale
            for a, b in zip(self.lora_a, self.lora_b, strict=True)
        )
        keys = torch.zeros_like(queries)
        update = torch.stack([queries, keys, values], dim=-2)
        if self.layout == "per_head":
            # (..., 3, heads * d_h) -> (..., heads, 3, d_h)
            update = update.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            update = update.flatten(-2)
        projected: torch.Tensor = base + update.flatten(-2)
        return projected
