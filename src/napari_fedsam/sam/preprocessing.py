"""From an image to the encoder's input, and from low-resolution logits back to the image.

The base models differ only in their input size and pixel normalisation:

* LiteMedSAM (published inference of the MedSAM repository's LiteMedSAM branch): long side to 256,
  per-image min-max to 0..1, zero padding at the right and bottom.
* segment-anything (Kirillov et al. 2023): long side to 1024, ImageNet mean and standard
  deviation in 0..255 units, zero padding at the right and bottom.
* MedSAM (Ma et al. 2024): LiteMedSAM's normalisation, long side to 1024. Its published inference
  stretches the image to the square instead; here images keep their proportions for every model.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from napari_fedsam.sam.errors import PromptError

SAM_PIXEL_MEAN = (123.675, 116.28, 103.53)
SAM_PIXEL_STD = (58.395, 57.12, 57.375)


def resized_shape(shape: tuple[int, int], long_side: int) -> tuple[int, int]:
    """Return (h, w) of an image of shape (H, W) once its long side is `long_side` pixels."""
    scale = long_side / max(shape)
    return max(1, int(shape[0] * scale + 0.5)), max(1, int(shape[1] * scale + 0.5))


@dataclass(frozen=True)
class PixelPreprocessing:
    """A base model's own pixel preprocessing.

    Parameters
    ----------
    long_side : int
        The encoder's input size in pixels.
    mean, std : 3 floats or None
        Fixed normalisation in 0..255 units; None for a per-image min-max to 0..1.
    """

    long_side: int
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __call__(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the encoder's input for one image.

        Parameters
        ----------
        image : uint8 array of shape (H, W) or (H, W, 3)

        Returns
        -------
        torch.Tensor
            float32, shape (1, 3, long_side, long_side).

        Raises
        ------
        PromptError
            When the image has another shape or no pixels.
        """
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or not image.size:
            raise PromptError(
                f"An image of shape {image.shape} cannot be segmented: give one slice, "
                "(rows, columns) or (rows, columns, 3)."
            )
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        height, width = resized_shape((image.shape[0], image.shape[1]), self.long_side)
        pixels = self._normalise(self._resized(pixels, (height, width)))
        return F.pad(pixels, (0, self.long_side - width, 0, self.long_side - height))

    def _resized(self, pixels: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        # The published LiteMedSAM inference averages areas when it shrinks (OpenCV's INTER_AREA).
        if self.mean is None and max(shape) <= max(pixels.shape[-2:]):
            return F.interpolate(pixels, shape, mode="area")
        return F.interpolate(pixels, shape, mode="bilinear", antialias=True)

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.mean is None or self.std is None:
            low, high = pixels.min(), pixels.max()
            return (pixels - low) / (high - low).clamp_min(1e-8)
        mean = torch.tensor(self.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.std).view(1, 3, 1, 1)
        return (pixels - mean) / std


def logits_to_image(logits: torch.Tensor, shape: tuple[int, int], input_size: int) -> torch.Tensor:
    """Bring low-resolution logits back to the image: up-sample, crop the padding, resize.

    Parameters
    ----------
    logits : float tensor of shape (B, C, h, w)
        The decoder's output, covering the padded square.
    shape : (H, W)
        The image's size in pixels.
    input_size : int
        The encoder's input size in pixels.

    Returns
    -------
    torch.Tensor
        float32, shape (B, C, H, W).
    """
    height, width = resized_shape(shape, input_size)
    full = logits.float()
    if full.shape[-1] != input_size:
        full = F.interpolate(full, (input_size, input_size), mode="bilinear", align_corners=False)
    full = full[..., :height, :width]
    return F.interpolate(full, shape, mode="bilinear", align_corners=False)


def mask_to_input(mask: NDArray[np.bool_], input_size: int) -> torch.Tensor:
    """Resize and pad a mask of shape (H, W) as its image: float32 in 0..1, (1, S, S)."""
    height, width = resized_shape((mask.shape[0], mask.shape[1]), input_size)
    pixels = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
    pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return F.pad(pixels, (0, input_size - width, 0, input_size - height))[0]
