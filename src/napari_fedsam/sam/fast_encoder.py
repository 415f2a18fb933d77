"""An image encoder prepared for inference, anew whenever its weights have changed."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from napari_fedsam.sam import fast_tiny_vit, fast_vit
from napari_fedsam.sam.fused_ops import LiveModule
from napari_fedsam.sam.prepared import Prepared
from napari_fedsam.sam.protocol import PromptableModel, Stage

# Models that prepare it alike prepare every image alike.
_PROBE = (np.arange(8 * 12 * 3) % 251).astype(np.uint8).reshape(8, 12, 3)


def fast_stages(stages: Sequence[Stage], dtype: torch.dtype) -> list[Stage]:
    """Return an encoder's stages on fused operators, with their weights as they are now.

    A stage of an unknown kind, and any part that a method has inserted, is run as it is.

    Parameters
    ----------
    stages : sequence of callable
        From `PromptableModel.encoder_stages`, in evaluation mode.
    dtype : torch.dtype
        What to compute in: bfloat16 or float32.
    """
    return [
        fast_tiny_vit.fast_stage(stage, dtype)
        or fast_vit.fast_stage(stage, dtype)
        or LiveModule(stage, dtype)
        for stage in stages
    ]


def fast_learning_stages(stages: Sequence[Stage], dtype: torch.dtype) -> list[Stage]:
    """Return an encoder's trainable stages with what is frozen in them on fused operators.

    Gradients go through them, and what is trained is used with the weights that it has at the time.

    Parameters
    ----------
    stages, dtype
        See `fast_stages`.
    """
    return [
        fast_tiny_vit.fast_learning_stage(stage, dtype)
        or fast_vit.fast_learning_stage(stage, dtype)
        or stage
        for stage in stages
    ]


class FastEncoder:
    """A model's image encoder on fused operators.

    What it has made of the model's weights is made anew when they have changed.

    Parameters
    ----------
    model : PromptableModel
        In evaluation mode.
    bf16 : bool
        Compute in bfloat16, else in float32.
    """

    def __init__(self, model: PromptableModel, *, bf16: bool) -> None:
        dtype = torch.bfloat16 if bf16 else torch.float32

        def encoder() -> list[nn.Module]:
            branch = model.detail_branch
            return [model.image_encoder] if branch is None else [model.image_encoder, branch]

        self._model = model
        self._dtype = dtype
        self._stages = Prepared(encoder, lambda: fast_stages(model.encoder_stages(), dtype))
        self._content = Prepared(encoder, lambda: self._hashes(str(dtype)))

    def __call__(
        self, pixels: torch.Tensor, between: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """Return the float32 embedding (B, 256, h, w) of the encoder's input (B, 3, S, S).

        `between` is called between stages; it may wait.
        """
        return self._with_details(self._run(pixels, 0, None, between), pixels)

    def prefix(
        self, pixels: torch.Tensor, between: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """Run the frozen stages alone."""
        return self._run(pixels, 0, self.frozen_stages, between)

    def suffix(
        self,
        features: torch.Tensor,
        pixels: torch.Tensor,
        between: Callable[[], None] | None = None,
    ) -> torch.Tensor:
        """Run the rest on what `prefix` made of the same pixels, as if calling the encoder."""
        return self._with_details(self._run(features, self.frozen_stages, None, between), pixels)

    @torch.no_grad()
    def _with_details(self, embedding: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        bf16 = self._dtype == torch.bfloat16
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
            return add_details(self._model, embedding, pixels).float()

    @property
    def frozen_stages(self) -> int:
        """How many stages come before the first trainable one; 0 in a model not set up so."""
        return first_trainable(self._model.encoder_stages()) or 0

    @property
    def content(self) -> tuple[str, str]:
        """SHA-256 of all weights, and of those of the frozen stages, with the precision."""
        return self._content.get()

    @torch.no_grad()
    def _run(
        self, x: torch.Tensor, first: int, last: int | None, between: Callable[[], None] | None
    ) -> torch.Tensor:
        for stage in self._stages.get()[first:last]:
            if between is not None:
                between()
            x = stage(x)
        return x

    def _hashes(self, precision: str) -> tuple[str, str]:
        stages = self._model.encoder_stages()
        frozen = f"{precision} {self.frozen_stages}"
        branch = self._model.detail_branch
        beside: list[Stage] = [] if branch is None else [branch]
        whole = content_hash(self._model, [*stages, *beside], precision)
        return whole, content_hash(self._model, stages[: self.frozen_stages], frozen)


def add_details(
    model: PromptableModel, embedding: torch.Tensor, pixels: torch.Tensor
) -> torch.Tensor:
    """Return an embedding with what the model's detail branch makes of the encoder's input."""
    branch = model.detail_branch
    return embedding if branch is None else embedding + branch(pixels)


def first_trainable(stages: Sequence[Stage]) -> int | None:
    """Return the index of the first stage with a parameter that is to be trained, or None."""
    for index, stage in enumerate(stages):
        if isinstance(stage, nn.Module) and any(p.requires_grad for p in stage.parameters()):
            return index
    return None


def content_hash(model: PromptableModel, stages: Sequence[Stage], precision: str) -> str:
    """Return the SHA-256 of what stages make of an image.

    That is how the model prepares images, the stages' weights, and the precision they run in.
    """
    digest = hashlib.sha256(precision.encode())
    digest.update(model.preprocess(_PROBE).numpy().tobytes())
    for stage in stages:
        if isinstance(stage, nn.Module):
            for name, value in stage.state_dict().items():
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().numpy())
    return digest.hexdigest()
