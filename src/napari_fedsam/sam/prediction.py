"""An encoded image, and the answers to prompts on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from napari_fedsam.sam.preprocessing import logits_to_image, resized_shape
from napari_fedsam.sam.prompts import Box, Prompts, box_of_mask


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
class DecodedMasks:
    """Decoded masks for a batch of B prompts on one image.

    They are compared with each other on the decoder's own grid, the image's part of the padded
    square; only what is answered is brought to the image's resolution.

    Parameters
    ----------
    low_res : float32 tensor of shape (B, h, w)
    scores : list of B floats
    image_shape : (H, W)
    input_size : int
        The encoder's input size in pixels.
    """

    low_res: torch.Tensor
    scores: list[float]
    image_shape: tuple[int, int]
    input_size: int

    @property
    def _scale(self) -> float:
        """Grid pixels in an image pixel."""
        return float(self.low_res.shape[-1]) / max(self.image_shape)

    @cached_property
    def grid_masks(self) -> list[NDArray[np.bool_]]:
        """The masks on the grid."""
        height, width = resized_shape(self.image_shape, self.low_res.shape[-1])
        return list((self.low_res[:, :height, :width] > 0).cpu().numpy())

    def on_grid(self, prompts: Prompts) -> Prompts:
        """Return the clicks in pixels of the grid."""
        return Prompts((prompts.points + 0.5) * self._scale - 0.5, prompts.labels)

    def tight_box(self, index: int) -> Box | None:
        """Return the box of a mask in pixels of the image; None for an empty mask."""
        box = box_of_mask(self.grid_masks[index])
        if box is None:
            return None
        x0, y0, x1, y1 = ((edge + 0.5) / self._scale - 0.5 for edge in box)
        return x0, y0, x1, y1

    def prediction(self, index: int) -> Prediction:
        """Return one of the answers at the image's resolution."""
        low_res = self.low_res[index]
        full = logits_to_image(low_res[None, None], self.image_shape, self.input_size)
        return Prediction((full[0, 0] > 0).cpu().numpy(), self.scores[index], low_res.cpu().numpy())


@dataclass(frozen=True, eq=False)
class DraftedMasks:
    """Decoded masks that are compared before any is answered.

    Parameters
    ----------
    coarse : DecodedMasks
        On a grid of one pixel in sixteen.
    finish : callable
        Returns some of them, by their indices, on the decoder's own grid.
    """

    coarse: DecodedMasks
    finish: Callable[[Sequence[int]], DecodedMasks]
