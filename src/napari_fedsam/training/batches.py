"""From training samples to batches of cached features, targets and simulated boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_fedsam.sam.preprocessing import mask_to_input, resized_shape
from napari_fedsam.sam.prompts import box_of_mask
from napari_fedsam.training.feature_cache import TrainingEncoder
from napari_fedsam.training.samples import TrainingSample, grouped_by_image
from napari_fedsam.training.variants import variant

# Side in pixels of the decoder's low-resolution masks, for every Segment Anything model here.
MASK_SIDE = 256
# The same in every round and for every seed: variants are encoded only once.
_VARIANT_SEED = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images with their structures, B masks in all.

    Parameters
    ----------
    features : float tensor of shape (I, ...)
        The frozen prefix's output for each image.
    pixels : float tensor of shape (I, 3, S, S)
        The encoder's input for each image.
    image_of : int tensor of shape (B,)
        Which of the images a mask belongs to.
    targets : float tensor of shape (B, 1, 256, 256)
        In {0, 1}, covering the padded square.
    extents : list of (int, int)
        Rows and columns of the targets that the image fills; the rest is padding.
    boxes : float tensor of shape (B, 4)
        Shifted boxes in pixels of the encoder's input; of no use where the structure is absent.
    structures : list of int
    present : bool tensor of shape (B,)
    """

    features: torch.Tensor
    pixels: torch.Tensor
    image_of: torch.Tensor
    targets: torch.Tensor
    extents: list[tuple[int, int]]
    boxes: torch.Tensor
    structures: list[int]
    present: torch.Tensor


class Batches:
    """Draws batches so that every structure comes up equally often, whatever its share of cases.

    Structures that were segmented in the same image are trained on together.

    Parameters
    ----------
    samples : sequence of TrainingSample
    encoder : TrainingEncoder
    seed : int or sequence of int
        None of them negative; sequences that differ anywhere draw independently.
    augmentations : int
        Variants per image beside the original.
    box_jitter : float
        Largest shift of a box's edge, as a fraction of the side.
    """

    def __init__(
        self,
        samples: Sequence[TrainingSample],
        encoder: TrainingEncoder,
        *,
        seed: int | Sequence[int],
        augmentations: int,
        box_jitter: float,
    ) -> None:
        self._images = grouped_by_image(samples)
        self._encoder = encoder
        self._augmentations = augmentations
        self._box_jitter = box_jitter
        self.random = np.random.default_rng(seed)
        self._with_structure: dict[int, list[int]] = {}
        for index, group in enumerate(self._images):
            for sample in group:
                self._with_structure.setdefault(sample.structure, []).append(index)
        self._queues: dict[int, list[int]] = {value: [] for value in self._with_structure}
        self._turns: list[int] = []

    def __len__(self) -> int:
        """Return the number of different images."""
        return len(self._images)

    def draw(self, images: int) -> Batch:
        """Return a batch of a number of images."""
        return self._batch([self._next_image() for _ in range(images)])

    def state(self) -> dict[str, Any]:
        """Return what an exact resume needs, fit for JSON."""
        queues = [[value, queue] for value, queue in self._queues.items()]
        return {
            "random": self.random.bit_generator.state,
            "queues": queues,
            "turns": self._turns,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.random.bit_generator.state = state["random"]
        self._queues = {int(value): list(queue) for value, queue in state["queues"]}
        self._turns = list(state["turns"])

    def _next_image(self) -> int:
        """Give every structure its turn, and every image of a structure its turn in that."""
        if not self._turns:
            values = list(self._with_structure)
            self._turns = [values[i] for i in self.random.permutation(len(values))]
        structure = self._turns.pop()
        queue = self._queues[structure]
        if not queue:
            images = self._with_structure[structure]
            queue.extend(images[i] for i in self.random.permutation(len(images)))
        return queue.pop()

    def _batch(self, indices: Sequence[int]) -> Batch:
        features, pixels, image_of, samples = [], [], [], []
        for position, index in enumerate(indices):
            number = int(self.random.integers(self._augmentations + 1))
            varied = [variant(sample, number, seed=_VARIANT_SEED) for sample in self._images[index]]
            features.append(self._encoder.prefix(varied[0].image))
            pixels.append(self._encoder.pixels(varied[0].image))
            image_of += [position] * len(varied)
            samples += varied
        device = self._encoder.device
        targets = [_target(sample.mask) for sample in samples]
        return Batch(
            torch.cat(features),
            torch.cat(pixels),
            torch.tensor(image_of, device=device),
            torch.stack(targets).to(device),
            [resized_shape(sample.mask.shape, MASK_SIDE) for sample in samples],
            torch.from_numpy(np.stack([self._box(sample) for sample in samples])).to(device),
            [sample.structure for sample in samples],
            torch.tensor([not sample.absent for sample in samples], device=device),
        )

    def _box(self, sample: TrainingSample) -> NDArray[np.float32]:
        box = np.array(box_of_mask(sample.mask) or (0, 0, 1, 1), np.float32)
        sides = np.tile(box[2:] - box[:2], 2)
        shift = self.random.uniform(-1, 1, 4) * self._box_jitter * sides
        height, width = sample.mask.shape
        limits = np.array([width - 1, height - 1] * 2)
        scale = self._encoder.input_size / max(height, width)
        shifted: NDArray[np.float32] = np.clip(box + shift, 0, limits) * scale
        return shifted.astype(np.float32)


def _target(mask: NDArray[np.bool_]) -> torch.Tensor:
    """Return a mask as the decoder is to answer it, (1, 256, 256) of 0 and 1.

    What fills no pixel there by half keeps those that it fills at least half as much as any.
    """
    covered = mask_to_input(mask, MASK_SIDE)
    most = float(covered.max())
    return (covered > (0.5 if most > 0.5 else most / 2)).float()
