"""From prompts on an encoded image to low-resolution masks."""

from collections.abc import Sequence

import torch

from napari_fedsam.sam.fast_decoder import DraftLogits, FastMaskDecoder, is_as_published
from napari_fedsam.sam.prepared import Prepared
from napari_fedsam.sam.protocol import PromptableModel

Points = tuple[torch.Tensor, torch.Tensor]


def decode(
    model: PromptableModel,
    features: torch.Tensor,
    *,
    points: Points | None = None,
    boxes: torch.Tensor | None = None,
    logits: torch.Tensor | None = None,
    structure: int | Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode a batch of prompts of one image, or one prompt for each of several images.

    Parameters
    ----------
    model : PromptableModel
    features : float tensor of shape (1 or B, 256, h, w)
    points : ((B, n, 2) coordinates, (B, n) labels) or None
        In pixels of the encoder's input.
    boxes : float tensor of shape (B, 4) or None
        In pixels of the encoder's input.
    logits : float tensor of shape (1 or B, 1, h', w') or None
        A mask prompt.
    structure : int, sequence of int, or None
        The structure's value, or one for each of the batch.

    Returns
    -------
    low_res : float tensor of shape (B, 1, h', w')
        Mask logits.
    scores : float tensor of shape (B, 1)
        Predicted IoU.
    """
    encoder = model.prompt_encoder
    sparse, dense = _embed(
        model, len(features), structure, points=points, boxes=boxes, logits=logits
    )
    batch = len(sparse)
    # Decoders begin with the sum of both. segment-anything's repeats the images for every prompt,
    # so that several of them can only be handed over within the other.
    low_res, scores = model.mask_decoder(
        image_embeddings=torch.zeros_like(features[:1]),
        image_pe=encoder.get_dense_pe(),  # type: ignore[operator]
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=features + dense.expand(batch, -1, -1, -1),
        multimask_output=False,
    )
    return low_res, scores


def _embed(
    model: PromptableModel,
    images: int,
    structure: int | Sequence[int] | None,
    *,
    points: Points | None,
    boxes: torch.Tensor | None,
    logits: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sparse and dense embeddings of a batch of prompts, the structure's token first.

    A structure without a place is looked for in the whole image: the models were trained with
    boxes, so this box is a better start than none.
    """
    encoder = model.prompt_encoder
    known = model.structure_tokens(structure, 1 if isinstance(structure, int) else images)
    if known.shape[1] and points is None and boxes is None:
        side = float(model.input_size)
        boxes = torch.tensor([[0.0, 0.0, side, side]], device=known.device)
    sparse, dense = encoder(points=points, boxes=boxes, masks=logits)
    # One prompt, or none, for several images: follow the images.
    batch = max(len(sparse), images)
    tokens = model.structure_tokens(structure, batch)
    return torch.cat([tokens, sparse.expand(batch, -1, -1)], dim=1), dense


def decode_in_training(
    model: PromptableModel,
    features: torch.Tensor,
    *,
    points: Points | None = None,
    boxes: torch.Tensor | None = None,
    logits: torch.Tensor | None = None,
    structure: int | Sequence[int] | None = None,
    bf16: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what `decode` does, and let gradients through, with less to compute and to keep.

    Where the decoder is not segment-anything's, it is `decode` under autocast.

    Parameters
    ----------
    model, features, points, boxes, logits, structure
        See `decode`.
    bf16 : bool
        Compute the image's side in bfloat16, else in float32.
    """
    if not is_as_published(model.mask_decoder):
        with torch.autocast(features.device.type, torch.bfloat16, enabled=bf16):
            return decode(
                model, features, points=points, boxes=boxes, logits=logits, structure=structure
            )
    sparse, dense = _embed(
        model, len(features), structure, points=points, boxes=boxes, logits=logits
    )
    decoder = FastMaskDecoder(model, torch.bfloat16 if bf16 else torch.float32)
    return decoder(features.float(), dense, sparse)


class FastDecoder:
    """`decode` for inference: prepared weights where the decoder is segment-anything's.

    Parameters
    ----------
    model : PromptableModel
        In evaluation mode.
    bf16 : bool
        Compute in bfloat16, else in float32.
    """

    def __init__(self, model: PromptableModel, *, bf16: bool) -> None:
        self._model = model
        self._bf16 = bf16
        dtype = torch.bfloat16 if bf16 else torch.float32
        self._prepared = Prepared(
            lambda: [model.mask_decoder, model.prompt_encoder],
            lambda: FastMaskDecoder(model, dtype) if is_as_published(model.mask_decoder) else None,
        )

    @torch.no_grad()
    def __call__(
        self,
        features: torch.Tensor,
        *,
        points: Points | None = None,
        boxes: torch.Tensor | None = None,
        logits: torch.Tensor | None = None,
        structure: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode a batch of prompts of one image; see `decode`. Both results are float32."""
        fast = self._prepared.get()
        if fast is None:
            return self._as_it_is(features, structure, points=points, boxes=boxes, logits=logits)
        sparse, dense = _embed(self._model, 1, structure, points=points, boxes=boxes, logits=logits)
        # Without a mask prompt the dense embedding is the same for every prompt.
        dense = dense[:1] if logits is None else dense
        return fast(features, dense, sparse)

    @torch.no_grad()
    def draft(
        self, features: torch.Tensor, boxes: torch.Tensor, structure: int | None = None
    ) -> DraftLogits:
        """Decode the masks of boxes (B, 4) on one image as far as it takes to compare them."""
        fast = self._prepared.get()
        if fast is None:
            low_res, scores = self._as_it_is(features, structure, boxes=boxes)
            return DraftLogits(
                low_res[..., 2::4, 2::4], scores, lambda chosen: low_res[list(chosen)]
            )
        sparse, dense = _embed(self._model, 1, structure, points=None, boxes=boxes, logits=None)
        return fast.draft(features, dense[:1], sparse)

    def _as_it_is(
        self,
        features: torch.Tensor,
        structure: int | None,
        *,
        points: Points | None = None,
        boxes: torch.Tensor | None = None,
        logits: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode with the model's own decoder."""
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self._bf16):
            low_res, scores = decode(
                self._model,
                features,
                points=points,
                boxes=boxes,
                logits=logits,
                structure=structure,
            )
        return low_res.float(), scores.float()
