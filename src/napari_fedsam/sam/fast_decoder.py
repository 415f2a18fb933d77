"""segment-anything's mask decoder, arranged for few prompts on a large image.

Made without gradients it is for inference; made with them it is part of the graph, for one step.

Prompts are some ten tokens, the image is 4096. So wherever one attends to the other, the
projections are moved to the side of the tokens: q . (W k) is (q W) . k. Biases that a softmax
cancels are left out. The up-scaling's transposed convolutions do not overlap and are matrix
products, and only the one mask that is asked for is computed; of masks that are merely compared,
one pixel in sixteen (`DraftLogits`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from napari_fedsam.sam.fused_ops import Linear
from napari_fedsam.sam.lite_medsam import decoder_classes as lite_medsam_classes
from napari_fedsam.sam.protocol import PromptableModel
from napari_fedsam.sam.segment_anything_models import decoder_classes as segment_anything_classes


def is_as_published(decoder: nn.Module) -> bool:
    """Whether a mask decoder is one of segment-anything's.

    Nothing may be put into it but what says by `acts_as` whose weight and bias it has.
    """
    allowed = (lite_medsam_classes(), segment_anything_classes())
    kinds = {getattr(part, "acts_as", type(part)) for part in decoder.modules()}
    return any(kinds <= classes for classes in allowed)


@dataclass(frozen=True, eq=False)
class DraftLogits:
    """The masks of B prompts, as far as it takes to compare them.

    Parameters
    ----------
    coarse : float32 tensor of shape (B, 1, h, w)
        Of one pixel in sixteen: the one in the third row and column of every four by four.
    scores : float32 tensor of shape (B, 1)
        Predicted IoU.
    finish : callable
        Returns all logits (n, 1, 4 h, 4 w) of some of the masks, by their indices.
    """

    coarse: torch.Tensor
    scores: torch.Tensor
    finish: Callable[[Sequence[int]], torch.Tensor]


class FastMaskDecoder:
    """A mask decoder's weights, prepared.

    Parameters
    ----------
    model : PromptableModel
        Its decoder `is_as_published`.
    dtype : torch.dtype
        What the image's side is computed in; the tokens' side is float32.
    """

    def __init__(self, model: PromptableModel, dtype: torch.dtype) -> None:
        decoder: Any = model.mask_decoder
        encoder: Any = model.prompt_encoder
        transformer = decoder.transformer
        self._decoder = decoder
        self._dtype = dtype
        places: torch.Tensor = encoder.get_dense_pe()
        self._places = places.detach().flatten(2).transpose(1, 2).to(dtype).contiguous()
        self._layers = [_Layer(layer, dtype) for layer in transformer.layers]
        self._last = _TokensToImage(transformer.final_attn_token_to_image, dtype)
        self._upscaling = _Upscaling(decoder.output_upscaling, dtype)

    def __call__(
        self, features: torch.Tensor, dense: torch.Tensor, sparse: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode the first mask of every prompt.

        Parameters
        ----------
        features : float tensor of shape (1 or B, 256, h, w)
        dense : float tensor of shape (1 or B, 256, h, w)
        sparse : float tensor of shape (B, n, 256)

        Returns
        -------
        low_res : float32 tensor of shape (B, 1, 4 h, 4 w)
        scores : float32 tensor of shape (B, 1)
        """
        keys, mask_of, scores = self._attend(features, dense, sparse)
        return self._upscaling(keys, mask_of, *features.shape[-2:]), scores

    def draft(
        self, features: torch.Tensor, dense: torch.Tensor, sparse: torch.Tensor
    ) -> DraftLogits:
        """Decode one pixel in sixteen of the first mask of every prompt, and the rest on demand.

        Parameters
        ----------
        features, dense, sparse
            See `__call__`.
        """
        keys, mask_of, scores = self._attend(features, dense, sparse)
        height, width = features.shape[-2:]
        upscaling = self._upscaling

        @torch.no_grad()
        def finish(indices: Sequence[int]) -> torch.Tensor:
            chosen = list(indices)
            return upscaling(keys[chosen], mask_of[chosen], height, width)

        return DraftLogits(upscaling.coarse(keys, mask_of, height, width), scores, finish)

    def _attend(
        self, features: torch.Tensor, dense: torch.Tensor, sparse: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the image as each prompt sees it (B, h w, 256), its mask's token, its score."""
        decoder = self._decoder
        output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        prompt = torch.cat([output.expand(len(sparse), -1, -1), sparse], dim=1)
        keys = (features + dense).flatten(2).transpose(1, 2).to(self._dtype).contiguous()
        placed = keys + self._places
        tokens = prompt
        for layer in self._layers:
            tokens, keys = layer(tokens, prompt, keys, placed)
            placed = keys + self._places
        tokens = tokens + self._last(tokens + prompt, keys, placed)
        tokens = decoder.transformer.norm_final_attn(tokens)
        mask_of = decoder.output_hypernetworks_mlps[0](tokens[:, 1]).to(self._dtype)
        scores = decoder.iou_prediction_head(tokens[:, 0])[:, :1]
        return keys, mask_of, scores


class _Layer:
    """One two-way block: tokens (B, T, C) and keys (1 or B, N, C) to both, (B, ., C)."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        self._layer = layer
        self._to_image = _TokensToImage(layer.cross_attn_token_to_image, dtype)
        self._to_tokens = _ImageToTokens(layer.cross_attn_image_to_token, dtype)
        norm: nn.LayerNorm = layer.norm4
        self._weight, self._bias = norm.weight.to(dtype), norm.bias.to(dtype)
        self._eps = norm.eps

    def __call__(
        self, tokens: torch.Tensor, prompt: torch.Tensor, keys: torch.Tensor, placed: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        layer = self._layer
        if layer.skip_first_layer_pe:
            tokens = layer.self_attn(q=tokens, k=tokens, v=tokens)
        else:
            q = tokens + prompt
            tokens = tokens + layer.self_attn(q=q, k=q, v=tokens)
        tokens = layer.norm1(tokens)
        tokens = layer.norm2(tokens + self._to_image(tokens + prompt, keys, placed))
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        moved = self._to_tokens(keys, placed, tokens + prompt, tokens)
        return tokens, F.layer_norm(moved, [moved.shape[-1]], self._weight, self._bias, self._eps)


class _CrossAttention:
    """The projections of an attention layer, one matrix a head."""

    def __init__(self, attention: Any, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._heads = heads = int(attention.num_heads)
        self._attention = attention
        self._width = int(attention.internal_dim) // heads
        self._scale = self._width**-0.5

    def _per_head(self, name: str) -> torch.Tensor:
        """Return a projection's weight as (heads, width, C)."""
        weight: torch.Tensor = getattr(self._attention, name).weight
        return weight.view(self._heads, self._width, -1)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, T, heads * width) as (B, heads, T, width)."""
        heads: torch.Tensor = x.unflatten(-1, (self._heads, self._width)).transpose(1, 2)
        return heads


def _scores(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the products of rows (K, R, C) with places (K, N, C), (K, R, N)."""
    if len(places) == 1:
        # As a product of two matrices it takes an eighth of the time of a batch of one.
        return F.linear(rows[0], places[0])[None]
    return rows @ places.transpose(1, 2)


class _TokensToImage(_CrossAttention):
    def __init__(self, attention: Any, dtype: torch.dtype) -> None:
        super().__init__(attention, dtype)
        self._keys = self._per_head("k_proj") * self._scale
        self._values = self._per_head("v_proj").transpose(1, 2)

    def __call__(
        self, tokens: torch.Tensor, keys: torch.Tensor, placed: torch.Tensor
    ) -> torch.Tensor:
        """Return what the tokens (B, T, C) gather from the image, (B, T, C)."""
        batch, count, _ = tokens.shape
        queries = self._split(self._attention.q_proj(tokens)) @ self._keys
        # Prompts on one image are asked together.
        rows = queries.to(self._dtype).reshape(len(keys), -1, queries.shape[-1])
        weights = _scores(rows, placed).softmax(-1)
        gathered = (weights @ keys).float().view(batch, self._heads, count, -1) @ self._values
        gathered = gathered.transpose(1, 2).flatten(2)
        attention = self._attention
        answer: torch.Tensor = attention.out_proj(gathered + attention.v_proj.bias)
        return answer


class _ImageToTokens(_CrossAttention):
    def __init__(self, attention: Any, dtype: torch.dtype) -> None:
        super().__init__(attention, dtype)
        self._queries = self._per_head("q_proj") * self._scale
        bias: torch.Tensor = attention.q_proj.bias
        self._query_bias = bias.view(self._heads, self._width, 1) * self._scale
        out: nn.Linear = attention.out_proj
        self._out = out.weight.view(-1, self._heads, self._width).permute(1, 2, 0)
        # Each head's weights sum to one, so each brings its share of the bias.
        self._share = out.bias / self._heads

    def __call__(
        self, keys: torch.Tensor, placed: torch.Tensor, asked: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Return the image (1 or B, N, C) with what it gathers from the tokens, (B, N, C)."""
        attention = self._attention
        batch, count, _ = tokens.shape
        heads_keys = self._split(attention.k_proj(asked))
        rows = (heads_keys @ self._queries).to(self._dtype)
        bias = (heads_keys @ self._query_bias).to(self._dtype)
        scores = _scores(rows.reshape(len(placed), -1, rows.shape[-1]), placed)
        scores = scores.view(batch, self._heads, count, -1) + bias
        weights = scores.softmax(2).flatten(1, 2).transpose(1, 2)
        values = self._split(attention.v_proj(tokens)) @ self._out + self._share
        values = values.to(self._dtype).flatten(1, 2)
        moved: torch.Tensor = torch.baddbmm(keys.expand(batch, -1, -1), weights, values)
        return moved


class _Upscaling:
    def __init__(self, upscaling: Any, dtype: torch.dtype) -> None:
        first, norm, _, second, _ = upscaling.children()
        self._convolutions = first, second
        self._first, self._second = _as_linear(first, dtype), _as_linear(second, dtype)
        self._weight: torch.Tensor = norm.weight.to(dtype)
        self._bias: torch.Tensor = norm.bias.to(dtype)
        self._eps = float(norm.eps)
        self._dtype = dtype

    def __call__(
        self, keys: torch.Tensor, mask_of: torch.Tensor, height: int, width: int
    ) -> torch.Tensor:
        """Return the logits (B, 1, 4 h, 4 w) of the keys (B, h w, C) and a token (B, c)."""
        batch = len(keys)
        x = self._normed(self._first(keys).unflatten(-1, (4, -1)))
        x = self._second(x, "gelu").view(batch, -1, mask_of.shape[-1])
        logits = (x @ mask_of[:, :, None]).float()
        # (row, column, then twice a row and column of two) back to a picture.
        logits = logits.view(batch, height, width, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return logits.reshape(batch, 1, 4 * height, 4 * width)

    def coarse(
        self, keys: torch.Tensor, mask_of: torch.Tensor, height: int, width: int
    ) -> torch.Tensor:
        """Return one pixel in sixteen, (B, 1, h, w); see `DraftLogits`."""
        first, second = self._of_one_pixel
        x = second(self._normed(first(keys)), "gelu")
        return (x @ mask_of[:, :, None]).float().view(len(keys), 1, height, width)

    @cached_property
    def _of_one_pixel(self) -> tuple[Linear, Linear]:
        """The two steps' products for the lower right of each four, then for its upper left."""
        first, second = self._convolutions
        return _as_linear(first, self._dtype, (1, 1)), _as_linear(second, self._dtype, (0, 0))

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(F.layer_norm(x, [x.shape[-1]], self._weight, self._bias, self._eps))


def _as_linear(convolution: Any, dtype: torch.dtype, only: tuple[int, int] | None = None) -> Linear:
    """Return a transposed convolution of kernel and stride 2 as a product to (2, 2, out).

    With `only` (a row and column of the two by two) as one to (out,).
    """
    weight: torch.Tensor = convolution.weight.permute(2, 3, 1, 0)
    bias: torch.Tensor = convolution.bias
    learns = torch.is_grad_enabled()
    if only is not None:
        return Linear(weight[only], bias, dtype, learns=learns)
    return Linear(weight.flatten(0, 2), bias.repeat(4), dtype, learns=learns)
