"""The detail branch: a site's own small convolutional network beside the image encoder.

The encoder's tokens stand for patches, and what is trained in its last blocks sees the pixels only
through frozen ones: fine structures such as vessels are learnt sooner from the pixels themselves.
Our addition to the two papers; after the idea of HQ-SAM (Ke et al. 2023, arXiv 2306.01567), which
gives the decoder early features of the encoder, but from the pixels and local to the site.
"""

import torch
from torch import nn
from torch.nn import functional as F

# Side in pixels of the decoder's low-resolution masks: finer detail would be lost there.
_SIDE = 256
_EMBEDDING_SIDE = 64
_EMBEDDING_WIDTH = 256
_LEAST_CONTRAST = 1e-3


class DetailBranch(nn.Module):
    """Maps the encoder's input to what is added to its embedding; zero at the start.

    Parameters
    ----------
    width : int
        Channels of its three convolutions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Dilated, to see 15 pixels across: the width of a large vessel with its surroundings.
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(3, width, 3, padding=1),
                nn.Conv2d(width, width, 3, padding=2, dilation=2),
                nn.Conv2d(width, width, 3, padding=4, dilation=4),
            ]
        )
        cell = _SIDE // _EMBEDDING_SIDE
        self.project = nn.Conv2d(width * cell**2, _EMBEDDING_WIDTH, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels (B, 3, S, S), whose scale does not matter, to (B, 256, 64, 64)."""
        x = F.adaptive_avg_pool2d(pixels, _SIDE)
        spread, mean = torch.std_mean(x, dim=(2, 3), keepdim=True)
        x = ((x - mean) / (spread + _LEAST_CONTRAST)).contiguous(memory_format=torch.channels_last)
        for convolution in self.convolutions:
            x = F.gelu(convolution(x))
        # Every cell of the embedding receives all of its pixels.
        answer: torch.Tensor = self.project(F.pixel_unshuffle(x, _SIDE // _EMBEDDING_SIDE))
        return answer
