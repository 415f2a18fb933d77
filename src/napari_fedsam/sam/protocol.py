"""The promptable-model protocol: what the predictor and the trainer ask of a model."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

PromptKind = Literal["none", "point", "box"]
Stage = Callable[[torch.Tensor], torch.Tensor]


@runtime_checkable
class PromptableModel(Protocol):
    """A Segment Anything model: image encoder, prompt encoder and mask decoder.

    Attributes
    ----------
    name : str
        The registry's name, or the file it was loaded from.
    input_size : int
        Side in pixels of the square that the image encoder takes.
    prompt_kinds : frozenset of {"none", "point", "box"}
        The prompts that the decoder was trained for. Others still work: the predictor turns a
        click into boxes for a model that knows only boxes.
    image_encoder, prompt_encoder, mask_decoder : torch.nn.Module
        The parts, with the interfaces of segment-anything's modules.
    detail_branch : torch.nn.Module or None
        From the image encoder's input to what is added to its embedding; None in base models.
    """

    name: str
    input_size: int

    @property
    def prompt_kinds(self) -> frozenset[PromptKind]:
        """The prompts that the decoder was trained for."""
        ...

    @property
    def image_encoder(self) -> nn.Module:
        """Module from (B, 3, input_size, input_size) to an embedding (B, 256, h, w)."""
        ...

    @property
    def prompt_encoder(self) -> nn.Module:
        """Module from points, boxes and masks to sparse and dense embeddings."""
        ...

    @property
    def mask_decoder(self) -> nn.Module:
        """Module from embeddings to low-resolution mask logits and predicted IoU."""
        ...

    @property
    def detail_branch(self) -> nn.Module | None:
        """Module from (B, 3, input_size, input_size) to what is added to the embedding."""
        ...

    def preprocess(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Resize, normalise and pad one image of shape (H, W[, 3]) to (1, 3, S, S) float32."""
        ...

    def encoder_stages(self) -> Sequence[Stage]:
        """Return the image encoder as a chain of stages, for reuse of a frozen prefix."""
        ...

    def structure_tokens(self, structure: int | Sequence[int] | None, batch: int) -> torch.Tensor:
        """Return (batch, n, 256) extra sparse tokens for a structure; n is 0 in base models."""
        ...

    def to(self, device: torch.device | str) -> "PromptableModel":
        """Move the model to a device and return it."""
        ...
