"""segment-anything's ViT stages on fused operators.

The relative position bias of a query q and a key at (row, column) is q . R_row + q . R_column.
Appending these products to q, and one-hot rows and columns to k, lets one matrix product give the
scores with their bias: the passes over the large score matrix that adding it takes are saved.
"""

from typing import Any

import torch
from torch import nn

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
from napari_fedsam.sam.protocol import Stage
from napari_fedsam.sam.segment_anything_models import NeckStage, PatchStage

_SCORES_AT_ONCE = 2**21
"""Score elements computed before they are used: they stay in the processor's cache."""


def fast_stage(stage: Stage, dtype: torch.dtype) -> Stage | None:
    """Return a stage of segment-anything's ViT on fused operators; None where it is none.

    Parameters
    ----------
    stage : callable
        One of `SegmentAnything.encoder_stages()`.
    dtype : torch.dtype
        What to compute in: bfloat16 or float32.
    """
    from segment_anything.modeling import image_encoder as kinds
    from segment_anything.modeling.common import LayerNorm2d

    if type(stage) is PatchStage and type(stage.patches) is kinds.PatchEmbed:
        return _Patches(stage, dtype)
    if type(stage) is kinds.Block:
        return _Block(stage, dtype)
    if type(stage) is NeckStage:
        kinds_inside = [type(part) for part in stage.neck.children()]
        if kinds_inside == [nn.Conv2d, LayerNorm2d] * 2:
            return _Neck(stage, dtype)
    return None


def fast_learning_stage(stage: Stage, dtype: torch.dtype) -> Stage | None:
    """Return a block or the neck that gradients go through; see `fast_tiny_vit`'s function."""
    from segment_anything.modeling import image_encoder as kinds

    block: Any = stage
    if type(block) is kinds.Block and is_frozen(block.norm1) and is_frozen(block.norm2):
        return _Block(block, dtype, learns=True)
    if type(stage) is NeckStage and is_frozen(stage.neck):
        return fast_stage(stage, dtype)
    return None


class _Patches:
    def __init__(self, stage: Any, dtype: torch.dtype) -> None:
        self._patches = Convolution(stage.patches.proj, None, dtype)
        self._position = stage.pos_embed.detach().to(dtype)
        self._dtype = dtype

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.to(self._dtype).contiguous(memory_format=torch.channels_last)
        tokens: torch.Tensor = self._patches(x).permute(0, 2, 3, 1) + self._position
        return tokens


class _Attention:
    """Attention over a map: (B, H, W, C) to (B, H, W, C)."""

    def __init__(self, attention: Any, dtype: torch.dtype) -> None:
        self._heads = int(attention.num_heads)
        self._scale = float(attention.scale)
        with torch.no_grad():
            # The queries take the scale along; the positions, which do not want it, undo it.
            weight, bias = (
                tensor.view(3, -1, *tensor.shape[1:]).clone()
                for tensor in (attention.qkv.weight, attention.qkv.bias)
            )
            weight[0] *= self._scale
            bias[0] *= self._scale
        self._qkv = Linear(weight.flatten(0, 1), bias.flatten(), dtype)
        self._project = Linear(attention.proj.weight, attention.proj.bias, dtype)
        self._rows: torch.Tensor = attention.rel_pos_h.detach()
        self._columns: torch.Tensor = attention.rel_pos_w.detach()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, _ = x.shape
        count = height * width
        qkv = self._qkv(x).view(batch, count, 3, self._heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2)
        q = torch.cat([q, *self._position_products(q, height, width)], dim=-1)
        k = torch.cat([k, _one_hot_places(height, width, k).expand(len(k), -1, -1)], dim=-1)
        mixed = _attended(q, k, v).view(batch, self._heads, height, width, -1)
        return self._project(mixed.permute(0, 2, 3, 1, 4).reshape(batch, height, width, -1))

    def _position_products(
        self, q: torch.Tensor, height: int, width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return every query's products with the relative rows (B, N, H) and columns (B, N, W)."""
        from segment_anything.modeling.image_encoder import get_rel_pos

        grid = q.view(len(q), height, width, -1)
        rows = (get_rel_pos(height, height, self._rows) / self._scale).to(q.dtype)
        columns = (get_rel_pos(width, width, self._columns) / self._scale).to(q.dtype)
        by_row = torch.einsum("bhwc,hkc->bhwk", grid, rows)
        by_column = torch.einsum("bhwc,wkc->bhwk", grid, columns)
        return by_row.flatten(1, 2), by_column.flatten(1, 2)


def _one_hot_places(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Return for each place of a map a 1 at its row and one at its column: (H W, H + W)."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device)
    columns = torch.eye(width, dtype=like.dtype, device=like.device)
    return torch.cat([rows.repeat_interleave(width, 0), columns.repeat(height, 1)], dim=1)


def _attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return softmax(q k) v for (B, N, .) each, in pieces of `_SCORES_AT_ONCE`."""
    batch, count, _ = q.shape
    result = torch.empty_like(v)
    together = max(1, _SCORES_AT_ONCE // (count * count))
    queries = max(1, min(count, _SCORES_AT_ONCE // count))
    for first in range(0, batch, together):
        some = slice(first, first + together)
        keys = k[some].transpose(1, 2)
        for start in range(0, count, queries):
            part = slice(start, start + queries)
            result[some, part] = (q[some, part] @ keys).softmax(-1) @ v[some]
    return result


class _Block:
    def __init__(self, block: Any, dtype: torch.dtype, *, learns: bool = False) -> None:
        from segment_anything.modeling import image_encoder as kinds
        from segment_anything.modeling.common import MLPBlock

        attention, mlp = block.attn, block.mlp
        self._dtype = dtype
        self._window = int(block.window_size)
        self._before = Norm(block.norm1, dtype)
        self._between = Norm(block.norm2, dtype)
        self._attention: Stage = LiveModule(attention, dtype)
        if (
            not learns
            and type(attention) is kinds.Attention
            and attention.use_rel_pos
            and exact_types([(attention.qkv, nn.Linear), (attention.proj, nn.Linear)])
        ):
            self._attention = _Attention(attention, dtype)
        self._mlp: Stage | None = None
        if (
            not learns
            and type(mlp) is MLPBlock
            and exact_types([(mlp.lin1, nn.Linear), (mlp.act, nn.GELU), (mlp.lin2, nn.Linear)])
        ):
            self._widen = Linear(mlp.lin1.weight, mlp.lin1.bias, dtype)
            self._narrow = Linear(mlp.lin2.weight, mlp.lin2.bias, dtype)
        else:
            self._mlp = LiveModule(mlp, dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self._dtype)
        y = self._before(x)
        y = windowed(self._attention, y, self._window) if self._window else self._attention(y)
        x = x + y
        y = self._between(x)
        if self._mlp is not None:
            return x + self._mlp(y)
        return self._narrow(self._widen(y, "gelu"), plus=x)


class _Neck:
    def __init__(self, stage: Any, dtype: torch.dtype) -> None:
        self._neck = Neck(stage.neck, dtype)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._neck(tokens.permute(0, 3, 1, 2))
