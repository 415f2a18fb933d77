"""The localized mixture of experts (L-MoE): bottlenecks in parallel with a block's MLP.

Experts and gate are local parameters: they stay on the site. The output begins at zero, so that
insertion leaves the base model as it was.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F


class MixtureOfExperts(nn.Module):
    """Bottleneck experts under a softmax gate, of which the top k answer.

    Parameters
    ----------
    width : int
        Features d of a token.
    experts, hidden, top_k : int
        Number of experts, their hidden width, and how many answer.
    gate : {"image", "token"}
        Whether the gate looks at the mean token or at every token.
    """

    def __init__(
        self, width: int, *, experts: int, hidden: int, top_k: int, gate: Literal["image", "token"]
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts)
        self.per_image = gate == "image"
        self.top_k = top_k
        self.down = nn.Parameter(torch.empty(experts, hidden, width))
        self.down_bias = nn.Parameter(torch.zeros(experts, hidden))
        self.up = nn.Parameter(torch.zeros(experts, width, hidden))
        for expert in self.down:
            nn.init.xavier_uniform_(expert)
        # Of the last forward pass; 1 when all experts answer equally often.
        self.imbalance: torch.Tensor | None = None

    def gate_weights(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gate's probabilities, and the weights of the experts that answer.

        The weights sum to 1, but where a single expert answers: there its probability is the
        weight, as in Switch Transformers, for a weight of 1 would teach the gate nothing.

        Parameters
        ----------
        x : tensor of shape (B, n, d)

        Returns
        -------
        two float32 tensors of shape (B, 1 or n, experts)
        """
        seen = x.mean(dim=1, keepdim=True) if self.per_image else x
        probabilities = self.gate(seen).float().softmax(dim=-1)
        kept, chosen = probabilities.topk(self.top_k, dim=-1)
        weights = torch.zeros_like(probabilities).scatter(-1, chosen, kept)
        if self.top_k > 1:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return probabilities, weights

    def _imbalance(self, probabilities: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return experts * sum(share of answers * mean probability), as in Switch Transformers.

        The probabilities are those before the cut, so that experts that do not answer learn, too.
        """
        used = (weights > 0).float().mean(dim=(0, 1)) / self.top_k
        return len(used) * (used * probabilities.mean(dim=(0, 1))).sum()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, n, d) to (B, n, d)."""
        probabilities, weights = self.gate_weights(x)
        learns = torch.is_grad_enabled()
        self.imbalance = self._imbalance(probabilities, weights) if learns else None
        weights = weights.to(x.dtype)
        experts, hidden, width = self.down.shape
        # All experts as one wide bottleneck: two matrix products, then the gate in between.
        activity = F.gelu(
            F.linear(x, self.down.reshape(-1, width), self.down_bias.reshape(-1))
        ).unflatten(-1, (experts, hidden))
        activity = (activity * weights[..., None]).flatten(-2)
        return F.linear(activity, self.up.permute(1, 0, 2).reshape(width, -1))


class MlpWithExperts(nn.Module):
    """A block's MLP with experts in parallel.

    Parameters
    ----------
    mlp : torch.nn.Module
        The block's own MLP.
    experts : MixtureOfExperts
    norm_inside : bool
        Whether the MLP normalises its input itself (TinyViT), so that the experts, which read the
        same normalised tokens, must apply its norm too.
    """

    def __init__(self, mlp: nn.Module, experts: MixtureOfExperts, *, norm_inside: bool) -> None:
        super().__init__()
        self.mlp = mlp
        self.experts = experts
        self.norm_inside = norm_inside
        self.bypassed = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, ..., d) to the same shape."""
        base: torch.Tensor = self.mlp(x)
        if self.bypassed:
            return base
        tokens = self.mlp.norm(x) if self.norm_inside else x  # type: ignore[operator]
        answer: torch.Tensor = self.experts(tokens.reshape(len(x), -1, x.shape[-1]))
        return base + answer.reshape(base.shape)
