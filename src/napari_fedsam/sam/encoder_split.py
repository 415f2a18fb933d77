"""An image encoder cut before its first trainable stage.

The modules of a method sit in the last blocks, so everything before the first trainable stage
gives the same output in every epoch and every round.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from napari_fedsam.sam.fast_encoder import (
    add_details,
    content_hash,
    fast_learning_stages,
    fast_stages,
    first_trainable,
)
from napari_fedsam.sam.predictor import has_fast_bf16
from napari_fedsam.sam.protocol import PromptableModel


class EncoderSplit:
    """The frozen prefix of an image encoder, and the rest, both on fused operators.

    Parameters
    ----------
    model : PromptableModel
        With `requires_grad` set on what is to be trained.
    bf16 : bool, optional
        Compute in bfloat16; by default where the processor has native bfloat16 products.
    """

    def __init__(self, model: PromptableModel, *, bf16: bool | None = None) -> None:
        self._model = model
        stages = list(model.encoder_stages())
        found = first_trainable(stages)
        cut = len(stages) if found is None else found
        self.device = next(model.mask_decoder.parameters()).device
        self.bf16 = has_fast_bf16(self.device) if bf16 is None else bf16
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        # Frozen stages are the base model's, whatever the method inserts after them.
        self._content = content_hash(model, stages[:cut], f"{dtype} {cut}")
        self._prefix = fast_stages(stages[:cut], dtype)
        self._suffix = fast_learning_stages(stages[cut:], dtype)

    @property
    def has_prefix(self) -> bool:
        """Whether anything comes before the first trainable stage."""
        return bool(self._prefix)

    def key(self, image: NDArray[np.uint8]) -> str:
        """Return what an image's prefix output is cached under: model, precision and content."""
        content = f"{self._content}:{image.shape}:".encode() + image.tobytes()
        return hashlib.sha256(content).hexdigest()

    @torch.no_grad()
    def prefix(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the frozen stages on the encoder's input (B, 3, S, S)."""
        x = pixels.to(self.device)
        for stage in self._prefix:
            x = stage(x)
        return x

    def suffix(self, features: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Run the trainable stages to the embedding (B, 256, h, w), details included."""
        x = features
        for stage in self._suffix:
            x = stage(x)
        return add_details(self._model, x, pixels)
