"""Medical SAM Adapters, as FedFMS places them (Wu et al. 2023, arXiv 2304.12620).

A bottleneck d -> d/4 -> d with GELU, after the attention with a skip connection, and beside the MLP
at half weight without one. The output begins at zero, so that insertion leaves the base model as it
was (the papers' code begins at random).
"""

import torch
from torch import nn
from torch.nn import functional as F

_MLP_SCALE = 0.5


class BottleneckAdapter(nn.Module):
    """Linear d -> d/4, GELU, Linear d/4 -> d.

    Parameters
    ----------
    width : int
        Features d of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // 4)
        self.up = nn.Linear(width // 4, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., d) to (..., d)."""
        answer: torch.Tensor = self.up(F.gelu(self.down(x)))
        return answer


class AttentionWithAdapter(nn.Module):
    """A block's attention, followed by an adapter with a skip connection.

    Parameters
    ----------
    attention : torch.nn.Module
    width : int
        Features of a token.
    """

    def __init__(self, attention: nn.Module, width: int) -> None:
        super().__init__()
        self.attention = attention
        self.attention_adapter = BottleneckAdapter(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (..., d) to the same shape."""
        attended: torch.Tensor = self.attention(x)
        adapted: torch.Tensor = attended + self.attention_adapter(attended)
        return adapted


class MlpWithAdapter(nn.Module):
    """A block's MLP with an adapter beside it.

    Parameters
    ----------
    mlp : torch.nn.Module
    width : int
        Features of a token.
    norm_inside : bool
        Whether the MLP normalises its input itself (TinyViT): the adapter reads the same tokens.
    """

    def __init__(self, mlp: nn.Module, width: int, *, norm_inside: bool) -> None:
        super().__init__()
        self.mlp = mlp
        self.mlp_adapter = BottleneckAdapter(width)
        self.norm_inside = norm_inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (..., d) to the same shape."""
        tokens = self.mlp.norm(x) if self.norm_inside else x  # type: ignore[operator]
        answer: torch.Tensor = self.mlp(x) + _MLP_SCALE * self.mlp_adapter(tokens)
        return answer
