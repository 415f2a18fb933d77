"""Weights prepared for inference, with activations and additions fused into the products.

oneDNN computes a convolution or matrix product with its activation or residual addition in one
pass over memory. Where torch has no such operator (another processor, a GPU) the same is computed
step by step.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from napari_fedsam.sam.protocol import Stage

Activation = Literal["none", "gelu"]


def _has_fused_operators() -> bool:
    operators = torch.ops.mkldnn
    return torch.backends.mkldnn.is_available() and all(
        hasattr(operators, name) for name in ("_linear_pointwise", "_convolution_pointwise")
    )


FUSED = _has_fused_operators()
"""Whether torch has oneDNN's fused operators on this machine."""


class Linear:
    """A matrix product, its bias, and an activation or a residual addition.

    Parameters
    ----------
    weight : float tensor of shape (out, in)
    bias : float tensor of shape (out,) or None
    dtype : torch.dtype
        What it computes in.
    learns : bool
        Whether gradients go through it, as they cannot through fused steps.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        *,
        learns: bool = False,
    ) -> None:
        if not learns:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        self.weight = weight.to(dtype).contiguous()
        self.bias = None if bias is None else bias.to(dtype).contiguous()
        self._fused = FUSED and weight.device.type == "cpu" and not learns

    def __call__(
        self,
        x: torch.Tensor,
        activation: Activation = "none",
        plus: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return activation(x W + b), or x W + b + plus; shape (..., out)."""
        if not self._fused:
            y = F.linear(x, self.weight, self.bias)
            y = F.gelu(y) if activation == "gelu" else y
            return y if plus is None else y + plus
        operators = torch.ops.mkldnn
        result: torch.Tensor
        if plus is not None:
            result = operators._linear_pointwise.binary(x, plus, self.weight, self.bias, "add")
        else:
            result = operators._linear_pointwise(x, self.weight, self.bias, activation, [], "none")
        return result


class Convolution:
    """A convolution with its batch norm folded in, and an activation.

    Parameters
    ----------
    convolution : torch.nn.Conv2d
    norm : torch.nn.BatchNorm2d or None
        What follows it, in evaluation mode.
    dtype : torch.dtype
        What it computes in.
    """

    def __init__(
        self, convolution: nn.Conv2d, norm: nn.BatchNorm2d | None, dtype: torch.dtype
    ) -> None:
        with torch.no_grad():
            folded = (
                convolution
                if norm is None
                else torch.nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)
            )
        weight = folded.weight.detach().to(dtype)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = None if folded.bias is None else folded.bias.detach().to(dtype)
        self._stride = list(folded.stride)
        self._padding = [int(side) for side in folded.padding]
        self._groups = folded.groups
        self._fused = FUSED and weight.device.type == "cpu"

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        """Return activation(convolution(x)) for a channels-last x of shape (B, C, H, W)."""
        if activation == "none" or not self._fused:
            y = F.conv2d(
                x, self.weight, self.bias, self._stride, self._padding, groups=self._groups
            )
            return F.gelu(y) if activation == "gelu" else y
        result: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x,
            self.weight,
            self.bias,
            self._padding,
            self._stride,
            [1, 1],
            self._groups,
            activation,
            [],
            "none",
        )
        return result


class Norm:
    """A layer norm over the last dimension."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self._shape = list(norm.normalized_shape)
        self._weight = norm.weight.detach().to(dtype)
        self._bias = norm.bias.detach().to(dtype)
        self._eps = norm.eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised x of shape (..., C)."""
        return F.layer_norm(x, self._shape, self._weight, self._bias, self._eps)


class ChannelNorm:
    """segment-anything's layer norm over the channels of a map, as one over its last dimension.

    Parameters
    ----------
    norm : torch.nn.Module
        A `LayerNorm2d`.
    dtype : torch.dtype
    """

    def __init__(self, norm: Any, dtype: torch.dtype) -> None:
        self._weight: torch.Tensor = norm.weight.detach().to(dtype)
        self._bias: torch.Tensor = norm.bias.detach().to(dtype)
        self._eps = float(norm.eps)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised map of shape (B, C, H, W), channels last."""
        y = F.layer_norm(x.permute(0, 2, 3, 1), [x.shape[1]], self._weight, self._bias, self._eps)
        return y.permute(0, 3, 1, 2)


class Neck:
    """The two convolutions after an encoder's last block, each with its norm.

    Parameters
    ----------
    neck : torch.nn.Sequential
        A convolution and a `LayerNorm2d`, twice.
    dtype : torch.dtype
        Of all but the last norm, which is float32.
    """

    def __init__(self, neck: nn.Module, dtype: torch.dtype) -> None:
        first, norm, second, last = neck.children()
        self._first = Convolution(first, None, dtype)  # type: ignore[arg-type]
        self._norm = ChannelNorm(norm, dtype)
        self._second = Convolution(second, None, dtype)  # type: ignore[arg-type]
        self._last = ChannelNorm(last, torch.float32)
        self._dtype = dtype

    def __call__(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the float32 embedding of a channels-last map (B, C, H, W)."""
        return self._last(self._second(self._norm(self._first(grid.to(self._dtype)))).float())


def exact_types(pairs: Iterable[tuple[object, type]]) -> bool:
    """Whether every object is exactly of its type: not a subclass, not a stand-in."""
    return all(type(thing) is kind for thing, kind in pairs)


def is_frozen(part: nn.Module) -> bool:
    """Whether none of a part's parameters is trained."""
    return not any(parameter.requires_grad for parameter in part.parameters())


class LiveModule:
    """A part that is run as it is, with the weights that it has at the time.

    Parameters
    ----------
    part : callable
        Usually a torch.nn.Module that a method has inserted something into.
    dtype : torch.dtype
        Of what goes in and comes out; bfloat16 runs under autocast.
    """

    def __init__(self, part: Stage, dtype: torch.dtype) -> None:
        self._part = part
        self._dtype = dtype

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the part's output."""
        bf16 = self._dtype == torch.bfloat16
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            return self._part(x.to(self._dtype)).to(self._dtype)


def windowed(attention: Stage, x: torch.Tensor, side: int) -> torch.Tensor:
    """Run attention in square windows, the last ones padded with zeros.

    Parameters
    ----------
    attention : callable
        From windows (B, side, side, C) to the same shape.
    x : tensor of shape (B, H, W, C)
    side : int
        Of a window, in tokens.
    """
    batch, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    rows, columns = x.shape[1] // side, x.shape[2] // side
    windows = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
    y = attention(windows.reshape(-1, side, side, channels))
    y = y.view(batch, rows, columns, side, side, channels).transpose(2, 3)
    y = y.reshape(batch, rows * side, columns * side, channels)
    return y[:, :height, :width]
