"""An image encoder prepared for inference, anew whenever its weights have changed."""

from collections.abc import Sequence

import torch

from napari_fedsam.sam import fast_tiny_vit, fast_vit
from napari_fedsam.sam.fused_ops import LiveModule
from napari_fedsam.sam.prepared import Prepared
from napari_fedsam.sam.protocol import PromptableModel, Stage


def fast_stages(stages: Sequence[Stage], dtype: torch.dtype) -> list[Stage]:
    """Return an encoder's stages on fused operators, with copies of their weights.

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


class FastEncoder:
    """A model's image encoder on fused operators.

    Its weights are copies, made anew when the model's have changed.

    Parameters
    ----------
    model : PromptableModel
        In evaluation mode.
    bf16 : bool
        Compute in bfloat16, else in float32.
    """

    def __init__(self, model: PromptableModel, *, bf16: bool) -> None:
        dtype = torch.bfloat16 if bf16 else torch.float32
        self._stages = Prepared(
            lambda: [model.image_encoder], lambda: fast_stages(model.encoder_stages(), dtype)
        )

    @torch.no_grad()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the float32 embedding (B, 256, h, w) of the encoder's input (B, 3, S, S)."""
        x = pixels
        for stage in self._stages.get():
            x = stage(x)
        return x.float()
