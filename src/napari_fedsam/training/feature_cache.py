"""The frozen prefix of the encoder, computed once per image and variant.

The modules of a method sit in the last blocks, so everything before the first trainable stage
gives the same output in every epoch and every round.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import nn

from napari_fedsam.sam.predictor import has_fast_bf16
from napari_fedsam.sam.protocol import PromptableModel, Stage


class EncoderSplit:
    """An image encoder cut before its first trainable stage.

    Parameters
    ----------
    model : PromptableModel
        With `requires_grad` set on what is to be trained.
    """

    def __init__(self, model: PromptableModel) -> None:
        stages = list(model.encoder_stages())
        cut = next((i for i, stage in enumerate(stages) if _is_trainable(stage)), len(stages))
        self._prefix: Sequence[Stage] = stages[:cut]
        self._suffix: Sequence[Stage] = stages[cut:]
        self._model = model
        self.device = next(model.mask_decoder.parameters()).device
        self.bf16 = has_fast_bf16(self.device)

    @torch.no_grad()
    def prefix(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the frozen stages on the encoder's input (B, 3, S, S); bfloat16 where it gains."""
        x = pixels.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            for stage in self._prefix:
                x = stage(x)
        return x

    def suffix(self, features: torch.Tensor) -> torch.Tensor:
        """Run the trainable stages to the embedding (B, 256, h, w)."""
        x = features
        for stage in self._suffix:
            x = stage(x)
        return x


def _is_trainable(stage: Stage) -> bool:
    return isinstance(stage, nn.Module) and any(p.requires_grad for p in stage.parameters())


class FeatureCache:
    """Prefix outputs in memory, within a budget.

    What does not fit is computed anew each time it is asked for.

    Parameters
    ----------
    budget_bytes : int
    """

    def __init__(self, budget_bytes: int = 2 * 1024**3) -> None:
        self._features: dict[Hashable, torch.Tensor] = {}
        self._free = budget_bytes

    def get(self, key: Hashable) -> torch.Tensor | None:
        """Return a cached output of shape (1, ...), or None."""
        return self._features.get(key)

    def put(self, key: Hashable, features: torch.Tensor) -> None:
        """Keep an output as bfloat16 on the CPU, if there is room."""
        kept = features.to("cpu", torch.bfloat16)
        size = kept.numel() * kept.element_size()
        if size <= self._free:
            self._features[key] = kept
            self._free -= size
