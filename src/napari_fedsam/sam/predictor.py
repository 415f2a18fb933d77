"""Encode an image once, answer many prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from napari_fedsam.sam.click_search import (
    agreement,
    best_candidate,
    candidate_boxes,
    clicked_components,
    self_consistency,
    steadiness,
)
from napari_fedsam.sam.errors import PromptError
from napari_fedsam.sam.host_memory import keep_freed_memory
from napari_fedsam.sam.preprocessing import logits_to_image, mask_to_input
from napari_fedsam.sam.prompts import Box, Prompts, box_of_mask
from napari_fedsam.sam.protocol import PromptableModel


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """An encoded image.

    Parameters
    ----------
    features : float32 tensor of shape (1, 256, h, w)
    image_shape : (H, W)
        The image's size in pixels.
    """

    features: torch.Tensor
    image_shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer to a prompt.

    Parameters
    ----------
    mask : bool array of shape (H, W)
        At the image's resolution.
    score : float
        The IoU that the model predicts for its own mask.
    low_res_logits : float32 array of shape (h, w)
        The decoder's output, covering the padded square; 0 is the mask's edge.
    """

    mask: NDArray[np.bool_]
    score: float
    low_res_logits: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Decoded masks for a batch of prompts: (B, H, W), scores (B,), logits (B, h, w)."""

    masks: NDArray[np.bool_]
    scores: list[float]
    logits: NDArray[np.float32]

    def prediction(self, index: int, mask: NDArray[np.bool_] | None = None) -> Prediction:
        return Prediction(
            self.masks[index] if mask is None else mask, self.scores[index], self.logits[index]
        )


class Predictor:
    """Prompts in, masks out, for any promptable model.

    `encode` is slow (run it in a worker) and `predict` is fast; both leave the predictor's state
    alone. `set_image` and `predict_current` are the same two steps for scripts.

    Parameters
    ----------
    model : PromptableModel
        In evaluation mode.
    device : str
        "cpu", "cuda" or "mps".
    bf16 : bool, optional
        Encode and decode under bfloat16 autocast; by default where the processor has native
        bfloat16 products.
    """

    def __init__(
        self, model: PromptableModel, *, device: str = "cpu", bf16: bool | None = None
    ) -> None:
        keep_freed_memory()
        self.model = model.to(device)
        self.device = torch.device(device)
        self._bf16 = has_fast_bf16(self.device) if bf16 is None else bf16
        self._current: ImageEmbedding | None = None

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode one image.

        Parameters
        ----------
        image : uint8 array of shape (H, W) or (H, W, 3)
            Already windowed to 0..255.

        Raises
        ------
        PromptError
            When the array is no such image.
        """
        pixels = self.model.preprocess(image).to(self.device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            features = self.model.image_encoder(pixels)
        return ImageEmbedding(features.float(), (image.shape[0], image.shape[1]))

    def predict(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        *,
        structure: int | None = None,
        previous: Prediction | None = None,
    ) -> Prediction:
        """Answer a prompt.

        Parameters
        ----------
        embedding : ImageEmbedding
            From `encode`.
        prompts : Prompts
            In pixels of the encoded image; empty for a proposal.
        structure : int, optional
            The structure's value, for a personalised model.
        previous : Prediction, optional
            What the clicks are meant to correct.

        Raises
        ------
        PromptError
            When a prompt lies outside the image, or only negative clicks are given.
        """
        prompts.check_within(embedding.image_shape)
        if previous is None and prompts.mask is not None:
            previous = self._from_mask(prompts.mask)
            if prompts.box is None and not len(prompts.points):
                # No model was trained on a mask alone: its box says where to look.
                prompts = replace(prompts, box=box_of_mask(prompts.mask))
        clicked = len(prompts.points) > 0
        if clicked and not len(prompts.positives) and previous is None and prompts.box is None:
            raise PromptError(
                "Only negative clicks were given: add a positive click or a box first."
            )
        if not clicked or "point" in self.model.prompt_kinds:
            return self._decode_one(embedding, prompts, structure, previous)
        if not len(prompts.positives):
            return self._without_negatives(embedding, prompts, structure, previous)
        return self._search(embedding, prompts, structure, previous)

    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Encode an image and keep it for `predict_current`."""
        self._current = self.encode(image)

    def predict_current(
        self,
        prompts: Prompts,
        *,
        structure: int | None = None,
        previous: Prediction | None = None,
    ) -> Prediction:
        """Answer a prompt on the image given to `set_image`; see `predict`.

        Raises
        ------
        PromptError
            When no image was set.
        """
        if self._current is None:
            raise PromptError("No image is set: call set_image first.")
        return self.predict(self._current, prompts, structure=structure, previous=previous)

    def _decode_one(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        structure: int | None,
        previous: Prediction | None,
    ) -> Prediction:
        scale = self._scale(embedding.image_shape)
        points = None
        if len(prompts.points):
            coordinates = torch.from_numpy(_scaled(prompts.points, scale))[None]
            labels = torch.from_numpy(prompts.labels.astype(np.int64))[None]
            points = (coordinates.to(self.device), labels.to(self.device))
        boxes = None if prompts.box is None else self._box_tensor([prompts.box], scale)
        logits = None
        if previous is not None:
            logits = torch.from_numpy(previous.low_res_logits)[None, None].to(self.device)
        return self._decode(
            embedding, structure, points=points, boxes=boxes, logits=logits
        ).prediction(0)

    def _search(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        structure: int | None,
        previous: Prediction | None,
    ) -> Prediction:
        """Answer clicks by boxes; a personalised model's own proposal competes too."""
        start = None if previous is None else previous.mask
        boxes = candidate_boxes(prompts, embedding.image_shape, start)
        scale = self._scale(embedding.image_shape)
        found = self._decode(embedding, structure, boxes=self._box_tensor(boxes, scale))
        tight = [box_of_mask(mask) or box for mask, box in zip(found.masks, boxes, strict=True)]
        again = self._decode(embedding, structure, boxes=self._box_tensor(tight, scale))
        candidates = [found.prediction(index) for index in range(len(boxes))]
        ranks = [
            score * self_consistency(mask, repeated) * steady
            for score, mask, repeated, steady in zip(
                found.scores, found.masks, again.masks, steadiness(list(found.masks)), strict=True
            )
        ]
        if "none" in self.model.prompt_kinds:
            proposal = self._decode(embedding, structure)
            mask = clicked_components(proposal.masks[0], prompts)
            candidates.append(proposal.prediction(0, mask))
            ranks.append(proposal.scores[0])
        best = best_candidate([candidate.mask for candidate in candidates], ranks, prompts)
        return candidates[best]

    def _without_negatives(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        structure: int | None,
        previous: Prediction | None,
    ) -> Prediction:
        """Take negative clicks away from a box or an earlier mask: cut or drop what they hit."""
        base = Prompts(box=prompts.box)
        if previous is None:
            previous = self._decode_one(embedding, base, structure, None)
        if agreement(previous.mask, prompts) == 1.0:
            return previous
        anchor = _far_point(previous.mask, prompts)
        if anchor is None:
            return Prediction(np.zeros_like(previous.mask), previous.score, previous.low_res_logits)
        anchored = Prompts(
            points=np.concatenate([[anchor], prompts.negatives]),
            labels=np.array([True] + [False] * len(prompts.negatives)),
            box=prompts.box,
        )
        return self.predict(embedding, anchored, structure=structure, previous=previous)

    @torch.no_grad()
    def _decode(
        self,
        embedding: ImageEmbedding,
        structure: int | None,
        *,
        points: tuple[torch.Tensor, torch.Tensor] | None = None,
        boxes: torch.Tensor | None = None,
        logits: torch.Tensor | None = None,
    ) -> _Candidates:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            low_res, scores = decode(
                self.model,
                embedding.features,
                points=points,
                boxes=boxes,
                logits=logits,
                structure=structure,
            )
        full = logits_to_image(low_res, embedding.image_shape, self.model.input_size)
        return _Candidates(
            (full[:, 0] > 0).cpu().numpy(),
            scores[:, 0].float().tolist(),
            low_res[:, 0].float().cpu().numpy(),
        )

    def _from_mask(self, mask: NDArray[np.bool_]) -> Prediction:
        """Turn a drawn mask into logits that the mask prompt understands."""
        padded = mask_to_input(mask, self.model.input_size)[None]
        low_res = torch.nn.functional.interpolate(
            padded, size=self._mask_input_size(), mode="bilinear"
        )
        # SAM's masks saturate near +-10; a drawn mask is certain of itself.
        return Prediction(mask, 1.0, (low_res[0, 0].numpy() * 20 - 10).astype(np.float32))

    def _mask_input_size(self) -> tuple[int, int]:
        height, width = self.model.prompt_encoder.mask_input_size  # type: ignore[misc]
        return int(height), int(width)

    def _scale(self, shape: tuple[int, int]) -> float:
        return self.model.input_size / max(shape)

    def _box_tensor(self, boxes: list[Box], scale: float) -> torch.Tensor:
        return torch.tensor(boxes, dtype=torch.float32, device=self.device) * scale


def decode(
    model: PromptableModel,
    features: torch.Tensor,
    *,
    points: tuple[torch.Tensor, torch.Tensor] | None = None,
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
    sparse, dense = encoder(points=points, boxes=boxes, masks=logits)
    # No prompt at all leaves the prompt encoder's batch at one: follow the images.
    batch = max(len(sparse), len(features))
    sparse = sparse.expand(batch, -1, -1)
    sparse = torch.cat([model.structure_tokens(structure, batch), sparse], dim=1)
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


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are native on a device (AVX-512 BF16 or AMX; CUDA)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def _scaled(points: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    return (points * scale).astype(np.float32)


def _far_point(mask: NDArray[np.bool_], prompts: Prompts) -> NDArray[np.float32] | None:
    """Return a point of the mask that is deep inside and far from the negative clicks."""
    from scipy import ndimage

    height, width = mask.shape
    free = np.pad(mask, 1)
    columns = np.clip(np.rint(prompts.negatives[:, 0]).astype(int), 0, width - 1) + 1
    rows = np.clip(np.rint(prompts.negatives[:, 1]).astype(int), 0, height - 1) + 1
    free[rows, columns] = False
    if box_of_mask(free) is None:
        return None
    depth = ndimage.distance_transform_edt(free)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return np.array([x, y], np.float32)
