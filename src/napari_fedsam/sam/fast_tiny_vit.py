"""TinyViT's stages (LiteMedSAM's encoder) on fused operators.

Every part that is exactly what TinyViT was published with is prepared. A part that a method
has put something else into is run as it is.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from napari_fedsam.sam.fused_ops import (
    Convolution,
    Linear,
    LiveModule,
    Neck,
    Norm,
    exact_types,
    is_frozen,
    windowed,
)
from napari_fedsam.sam.lite_medsam import TokensToMap, tiny_vit
from napari_fedsam.sam.protocol import Stage


def fast_stage(stage: Stage, dtype: torch.dtype) -> Stage | None:
    """Return a stage of TinyViT on fused operators, or None where it is none of TinyViT's.

    Parameters
    ----------
    stage : callable
        One of `LiteMedSam.encoder_stages()`.
    dtype : torch.dtype
        What to compute in: bfloat16 or float32.
    """
    kinds = tiny_vit()
    makers: dict[type, Callable[[Any, torch.dtype], Stage]] = {
        kinds.PatchEmbed: _PatchEmbed,
        kinds.MBConv: _MBConv,
        kinds.PatchMerging: _PatchMerging,
        kinds.TinyViTBlock: _Block,
        TokensToMap: _Neck,
    }
    found = makers.get(type(stage))
    if found is None or not _is_as_published(stage, kinds):
        return None
    return found(stage, dtype)


def fast_learning_stage(stage: Stage, dtype: torch.dtype) -> Stage | None:
    """Return a block or the neck on fused operators that gradients go through.

    Attention and MLP are run as they are, with whatever a method has put into them.

    Parameters
    ----------
    stage : callable
        One of `LiteMedSam.encoder_stages()`.
    dtype : torch.dtype
        See `fast_stage`.

    Returns
    -------
    callable or None
        None where it is another stage, or something else in it is trained.
    """
    kinds = tiny_vit()
    if not _is_as_published(stage, kinds):
        return None
    block: Any = stage
    if type(block) is kinds.TinyViTBlock and is_frozen(block.local_conv):
        return _Block(block, dtype, learns=True)
    if type(stage) is TokensToMap and is_frozen(stage.neck):
        return _Neck(stage, dtype)
    return None


def _is_as_published(stage: Stage, kinds: ModuleType) -> bool:
    """Whether everything but a block's attention and MLP is what TinyViT has there."""
    if not isinstance(stage, nn.Module):
        return False
    if type(stage) is kinds.TinyViTBlock:
        return type(stage.local_conv) is kinds.Conv2d_BN
    if type(stage) is TokensToMap:
        return [type(part) for part in stage.neck.children()] == [nn.Conv2d, kinds.LayerNorm2d] * 2
    known = (kinds.Conv2d_BN, nn.GELU, nn.Identity, kinds.DropPath, nn.Sequential)
    return all(type(part) in known for part in stage.children())


def _convolution(pair: Any, dtype: torch.dtype) -> Convolution:
    convolution, norm = pair.children()
    return Convolution(convolution, norm, dtype)


class _PatchEmbed:
    def __init__(self, stage: Any, dtype: torch.dtype) -> None:
        first, _, second = stage.seq.children()
        self._first, self._second = _convolution(first, dtype), _convolution(second, dtype)
        self._dtype = dtype

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.to(self._dtype).contiguous(memory_format=torch.channels_last)
        return self._second(self._first(x, "gelu"))


class _MBConv:
    def __init__(self, stage: Any, dtype: torch.dtype) -> None:
        self._convolutions = [
            _convolution(part, dtype) for part in (stage.conv1, stage.conv2, stage.conv3)
        ]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        widen, across, narrow = self._convolutions
        y = narrow(across(widen(x, "gelu"), "gelu"))
        return F.gelu(y.add_(x))


class _PatchMerging:
    def __init__(self, stage: Any, dtype: torch.dtype) -> None:
        self._convolutions = [
            _convolution(part, dtype) for part in (stage.conv1, stage.conv2, stage.conv3)
        ]
        self._resolution: tuple[int, int] = stage.input_resolution

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 3:
            x = x.view(len(x), *self._resolution, -1).permute(0, 3, 1, 2)
        first, across, last = self._convolutions
        x = last(across(first(x, "gelu"), "gelu"))
        return x.permute(0, 2, 3, 1).flatten(1, 2)


class _Attention:
    """Attention in windows: tokens (B, N, C) to (B, N, C)."""

    def __init__(self, attention: Any, dtype: torch.dtype) -> None:
        self._norm = Norm(attention.norm, dtype)
        self._heads, self._width = int(attention.num_heads), int(attention.key_dim)
        heads, width = self._heads, self._width
        with torch.no_grad():
            # From [q|k|v] of each head to all heads' q, k, v; q takes the scale along.
            weight, bias = (
                tensor.view(heads, 3, width, -1).transpose(0, 1).clone()
                for tensor in (attention.qkv.weight, attention.qkv.bias)
            )
            weight[0] *= float(attention.scale)
            bias[0] *= float(attention.scale)
            self._qkv = Linear(weight.flatten(0, 2), bias.flatten(), dtype)
        self._project = Linear(attention.proj.weight, attention.proj.bias, dtype)
        # Read from the parameter itself: the module's own copy is as old as its last eval().
        biases = attention.attention_biases[:, attention.attention_bias_idxs]
        self._biases = biases.detach().to(dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        batch, count, _ = x.shape
        qkv = self._qkv(self._norm(x)).view(batch, count, 3, self._heads, self._width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)).add_(self._biases)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2)
        return self._project(mixed.flatten(2))


class _Block:
    def __init__(self, block: Any, dtype: torch.dtype, *, learns: bool = False) -> None:
        kinds = tiny_vit()
        attention, mlp = block.attn, block.mlp
        self._resolution: tuple[int, int] = block.input_resolution
        self._window = int(block.window_size)
        self._dtype = dtype
        self._attention: Stage = LiveModule(attention, dtype)
        if (
            not learns
            and type(attention) is kinds.Attention
            and exact_types([(attention.qkv, nn.Linear), (attention.proj, nn.Linear)])
        ):
            self._attention = _Attention(attention, dtype)
        self._local = _convolution(block.local_conv, dtype)
        self._live_mlp: Stage | None = None
        if (
            not learns
            and type(mlp) is kinds.Mlp
            and exact_types([(mlp.fc1, nn.Linear), (mlp.fc2, nn.Linear)])
        ):
            self._norm = Norm(mlp.norm, dtype)
            self._widen = Linear(mlp.fc1.weight, mlp.fc1.bias, dtype)
            self._narrow = Linear(mlp.fc2.weight, mlp.fc2.bias, dtype)
        else:
            self._live_mlp = LiveModule(mlp, dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self._resolution
        x = x.to(self._dtype).view(len(x), height, width, -1)
        if (height, width) == (self._window, self._window):
            x = x + self._attend(x)
        else:
            x = x + windowed(self._attend, x, self._window)
        x = self._local(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
        if self._live_mlp is not None:
            return x + self._live_mlp(x)
        return self._narrow(self._widen(self._norm(x), "gelu"), plus=x)

    def _attend(self, windows: torch.Tensor) -> torch.Tensor:
        return self._attention(windows.flatten(1, 2)).view(windows.shape)


class _Neck:
    def __init__(self, stage: Any, dtype: torch.dtype) -> None:
        self._neck = Neck(stage.neck, dtype)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        side = int(tokens.shape[1] ** 0.5)
        return self._neck(tokens.view(len(tokens), side, side, -1).permute(0, 3, 1, 2))
