"""Encode an image once, answer many prompts."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from napari_fedsam.sam.click_search import (
    agreement,
    candidate_boxes,
    clicked_components,
    clipped,
    is_too_coarse,
    most_consistent,
    most_supported,
    overlapping_components,
    self_consistency,
)
from napari_fedsam.sam.corrections import corrected
from napari_fedsam.sam.decoding import FastDecoder, Points
from napari_fedsam.sam.errors import PromptError
from napari_fedsam.sam.fast_encoder import FastEncoder
from napari_fedsam.sam.host_memory import keep_freed_memory
from napari_fedsam.sam.negative_clicks import anchored_clicks, unclicked_components
from napari_fedsam.sam.prediction import DecodedMasks, DraftedMasks, ImageEmbedding, Prediction
from napari_fedsam.sam.preprocessing import mask_to_input
from napari_fedsam.sam.prompts import Box, Prompts, box_of_mask
from napari_fedsam.sam.protocol import PromptableModel

_AMPERE = 8
"""Compute capability of the first of NVIDIA's GPUs with bfloat16 products."""

FOLLOW_MARGINS = (-0.1, -0.05, 0.0, 0.05, 0.1, 0.2)
"""How much larger than a mask's box the true one may be, as a part of its width and height."""


class Predictor:
    """Prompts in, masks out, for any promptable model.

    `encode` is slow (run it in a worker) and `predict` is fast; both leave the predictor's state
    alone.

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
        self.encoder = FastEncoder(self.model, bf16=self._bf16)
        self._decoder = FastDecoder(self.model, bf16=self._bf16)

    @torch.no_grad()
    def encode(
        self, image: NDArray[np.uint8], between: Callable[[], None] | None = None
    ) -> ImageEmbedding:
        """Encode one image.

        Parameters
        ----------
        image : uint8 array of shape (H, W) or (H, W, 3)
            Already windowed to 0..255.
        between : callable, optional
            Called between stages; it may wait.

        Raises
        ------
        PromptError
            When the array is no such image.
        """
        pixels = self.model.preprocess(image).to(self.device)
        return ImageEmbedding(self.encoder(pixels, between), (image.shape[0], image.shape[1]))

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
            What the clicks are meant to correct. Models whose published weights have learnt clicks
            answer as they learnt to; of others' answers what is joined to a click that this mask
            was wrong about is taken over, and clicks that it agrees with change nothing.

        Raises
        ------
        PromptError
            When a prompt lies outside the image, or only negative clicks are given.
        """
        prompts.check_within(embedding.image_shape)
        clicked = len(prompts.points) > 0
        if previous is None and prompts.mask is not None:
            # No model was trained on a mask alone: its box says where to look.
            if prompts.box is None and prompts.mask.any():
                previous = self.follow(embedding, prompts.mask, structure=structure)
                if not clicked:
                    return previous
            else:
                previous = self._from_mask(prompts.mask)
        if clicked and not len(prompts.positives) and previous is None and prompts.box is None:
            raise PromptError(
                "Only negative clicks were given: add a positive click or a box first."
            )
        learnt = self.model.prompt_kinds
        if not clicked or ("point" in learnt and "none" not in learnt):
            return self._decode_one(embedding, prompts, structure, previous)
        if previous is not None and agreement(previous.mask, prompts) == 1.0:
            return previous
        answer = self._answer_clicks(embedding, prompts, structure, previous)
        if previous is None:
            return answer
        mask = corrected(previous.mask, answer.mask, prompts)
        return answer if np.array_equal(mask, answer.mask) else self.redrawn(mask, answer)

    def _answer_clicks(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        structure: int | None,
        previous: Prediction | None,
    ) -> Prediction:
        """Answer clicks with a model that need not have learnt them well."""
        learnt = self.model.prompt_kinds
        if "point" not in learnt and not len(prompts.positives):
            return self._without_negatives(embedding, prompts, structure, previous)
        if "none" in learnt:
            return self._best_way(embedding, prompts, structure, previous)
        return self._search(embedding, prompts, structure, previous)

    def _best_way(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        structure: int | None,
        previous: Prediction | None,
    ) -> Prediction:
        """Answer clicks in several ways, for a personalised model may have learnt little of one."""
        ways: list[Prediction] = []
        if "point" in self.model.prompt_kinds:
            ways.append(self._decode_one(embedding, prompts, structure, previous))
        if len(prompts.positives):
            ways.append(self._proposed(embedding, structure, prompts, previous))
            ways.append(self._search(embedding, prompts, structure, previous))
        else:
            ways += self._without_positives(embedding, prompts, structure, previous)
        masks, scores = [way.mask for way in ways], [way.score for way in ways]
        return ways[most_supported(masks, scores, prompts)]

    def _without_positives(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        structure: int | None,
        previous: Prediction | None,
    ) -> list[Prediction]:
        """Answer negative clicks otherwise than by the decoder's own understanding of them."""
        if previous is None or prompts.box is not None:
            return []
        kept = unclicked_components(previous.mask, prompts)
        ways = [] if kept is previous.mask else [self.redrawn(kept, previous)]
        anchored = anchored_clicks(previous.mask, prompts)
        if anchored is not None:
            # From nothing: what is wrong with the answer so far would only come back.
            ways.append(self.predict(embedding, anchored, structure=structure))
        return ways

    def follow(
        self,
        embedding: ImageEmbedding,
        mask: NDArray[np.bool_],
        *,
        structure: int | None = None,
    ) -> Prediction:
        """Find in an image what a rough mask, or that of the neighbouring slice, shows.

        The mask's box, a little smaller and larger, is the prompt: with LiteMedSAM this mended
        grown, shrunk and shifted masks better than mask prompts did, and followed the spleen of a
        CT from end to end where they drifted away. Of the answers the one with the highest
        predicted IoU times the root of its Dice with the mask is taken.

        Parameters
        ----------
        embedding : ImageEmbedding
        mask : bool array of shape (H, W)
            One object; not empty.
        structure : int, optional
            The structure's value, for a personalised model.
        """
        box = box_of_mask(mask)
        if box is None:
            raise PromptError("An empty mask cannot be followed: give one that shows something.")
        boxes = list(dict.fromkeys(clipped(_grown(box, by), mask.shape) for by in FOLLOW_MARGINS))
        found = self._decode(embedding, structure, boxes=self._box_tensor(boxes, embedding))
        answers = [found.prediction(index) for index in range(len(boxes))]
        best = max(answers, key=lambda each: each.score * self_consistency(each.mask, mask))
        return replace(best, mask=overlapping_components(best.mask, mask))

    def redrawn(self, mask: NDArray[np.bool_], previous: Prediction | None) -> Prediction:
        """Return an answer with another mask, as something that further prompts may correct.

        Parameters
        ----------
        mask : bool array of shape (H, W)
            What the answer shall be, for instance after painting on it.
        previous : Prediction or None
            The answer that was changed: where the two agree, its logits are kept.
        """
        drawn = self._from_mask(mask)
        if previous is None:
            return drawn
        changed = mask_to_input(mask != previous.mask, self.model.input_size)[None]
        low_res = torch.nn.functional.adaptive_max_pool2d(changed, self._mask_input_size())
        logits = np.where(low_res[0, 0].numpy() > 0, drawn.low_res_logits, previous.low_res_logits)
        return Prediction(mask, previous.score, logits)

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
        boxes = None if prompts.box is None else self._box_tensor([prompts.box], embedding)
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
        """Answer clicks by boxes."""
        start = None if previous is None else previous.mask
        boxes = candidate_boxes(prompts, embedding.image_shape, start)
        found = self._draft(embedding, structure, boxes)
        coarse = found.coarse
        is_fine = is_too_coarse(coarse.grid_masks, coarse.scores, coarse.on_grid(prompts))
        compared = found.finish(range(len(boxes))) if is_fine else coarse

        def repeat(indices: list[int]) -> list[NDArray[np.bool_]]:
            masks = found.finish(indices)
            tight = [masks.tight_box(n) or boxes[index] for n, index in enumerate(indices)]
            again = self._draft(embedding, structure, tight)
            return (again.finish(range(len(tight))) if is_fine else again.coarse).grid_masks

        best = most_consistent(
            compared.grid_masks, compared.scores, compared.on_grid(prompts), repeat
        )
        answer = found.finish([best]).prediction(0)
        # A box of our own making may have caught more than the object that was clicked.
        return answer if prompts.box else self._clicked_part(answer, prompts, previous)

    def _proposed(
        self,
        embedding: ImageEmbedding,
        structure: int | None,
        prompts: Prompts,
        previous: Prediction | None,
    ) -> Prediction:
        """Return what the proposal has at the clicks."""
        return self._clicked_part(
            self._decode(embedding, structure).prediction(0), prompts, previous
        )

    def _clicked_part(
        self, found: Prediction, prompts: Prompts, previous: Prediction | None
    ) -> Prediction:
        start = None if previous is None else previous.mask
        mask = clicked_components(found.mask, prompts, start)
        return found if mask is found.mask else self.redrawn(mask, found)

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
        anchored = anchored_clicks(previous.mask, prompts)
        if anchored is None:
            return Prediction(np.zeros_like(previous.mask), previous.score, previous.low_res_logits)
        return self.predict(embedding, anchored, structure=structure, previous=previous)

    def _decode(
        self,
        embedding: ImageEmbedding,
        structure: int | None,
        *,
        points: Points | None = None,
        boxes: torch.Tensor | None = None,
        logits: torch.Tensor | None = None,
    ) -> DecodedMasks:
        low_res, scores = self._decoder(
            embedding.features, points=points, boxes=boxes, logits=logits, structure=structure
        )
        return self._decoded(embedding, low_res, scores)

    def _draft(
        self, embedding: ImageEmbedding, structure: int | None, boxes: list[Box]
    ) -> DraftedMasks:
        drafts = self._decoder.draft(
            embedding.features, self._box_tensor(boxes, embedding), structure
        )

        def finish(indices: Sequence[int]) -> DecodedMasks:
            scores = drafts.scores[list(indices)]
            return self._decoded(embedding, drafts.finish(indices), scores)

        return DraftedMasks(self._decoded(embedding, drafts.coarse, drafts.scores), finish)

    def _decoded(
        self, embedding: ImageEmbedding, low_res: torch.Tensor, scores: torch.Tensor
    ) -> DecodedMasks:
        """Return logits (B, 1, h, w) and scores (B, 1) as masks of an image."""
        return DecodedMasks(
            low_res[:, 0], scores[:, 0].tolist(), embedding.image_shape, self.model.input_size
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

    def _box_tensor(self, boxes: list[Box], embedding: ImageEmbedding) -> torch.Tensor:
        scale = self._scale(embedding.image_shape)
        return torch.tensor(boxes, dtype=torch.float32, device=self.device) * scale


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are native on a device (AVX-512 BF16 or AMX; CUDA)."""
    if device.type == "cuda":
        # torch.cuda.is_bf16_supported() counts emulation, and asks about the current device.
        is_rocm = torch.version.hip is not None
        return is_rocm or torch.cuda.get_device_properties(device).major >= _AMPERE
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def _scaled(points: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    return (points * scale).astype(np.float32)


def _grown(box: Box, by: float) -> Box:
    """Grow a box on each side by a part of its width and height."""
    across, down = (by * (high - low) for low, high in ((box[0], box[2]), (box[1], box[3])))
    return box[0] - across, box[1] - down, box[2] + across, box[3] + down
