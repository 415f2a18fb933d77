"""What all base models have in common: three parts, and nothing that a method adds."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_fedsam.sam.preprocessing import PixelPreprocessing
from napari_fedsam.sam.protocol import PromptKind

_TOKEN_WIDTH = 256


class PublishedModel(nn.Module):
    """A model as it was published, with what a `PromptableModel` has but its encoder's stages.

    Parameters
    ----------
    name : str
        The registry's name.
    network : torch.nn.Module
        With the parts `image_encoder`, `prompt_encoder` and `mask_decoder`.
    prompt_kinds : set of {"none", "point", "box"}
        The prompts that it was trained for.
    preprocessing : PixelPreprocessing
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        prompt_kinds: frozenset[PromptKind],
        preprocessing: PixelPreprocessing,
    ) -> None:
        super().__init__()
        self.name = name
        self.input_size = preprocessing.long_side
        self.prompt_kinds = prompt_kinds
        self.image_encoder: nn.Module = network.image_encoder  # type: ignore[assignment]
        self.prompt_encoder: nn.Module = network.prompt_encoder  # type: ignore[assignment]
        self.mask_decoder: nn.Module = network.mask_decoder  # type: ignore[assignment]
        self.preprocessing = preprocessing

    @property
    def detail_branch(self) -> None:
        """None: a base model sees no pixels beside its encoder."""
        return None

    def preprocess(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the encoder's input; see `PixelPreprocessing`."""
        return self.preprocessing(image)

    def structure_tokens(self, structure: int | Sequence[int] | None, batch: int) -> torch.Tensor:
        """Return no tokens: a base model knows no structures."""
        del structure
        return torch.zeros(batch, 0, _TOKEN_WIDTH, device=next(self.parameters()).device)
