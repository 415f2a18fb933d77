"""Frozen batch norms folded into the convolutions before them."""

import copy

import torch
from torch import nn

from napari_fedsam.sam.protocol import Stage


def with_fused_norms(stage: Stage) -> Stage:
    """Return a copy of a frozen stage whose batch norms are part of its convolutions.

    The output is the same up to rounding. A stage without batch norms is returned as it is.

    Parameters
    ----------
    stage : callable or torch.nn.Module
        In evaluation mode.
    """
    if not isinstance(stage, nn.Module):
        return stage
    if not any(isinstance(module, nn.BatchNorm2d) for module in stage.modules()):
        return stage
    fused = copy.deepcopy(stage)
    for parent in list(fused.modules()):
        for name, child in list(parent.named_children()):
            parts = list(child.children())
            if [type(part) for part in parts] == [nn.Conv2d, nn.BatchNorm2d]:
                setattr(parent, name, _folded(*parts))  # type: ignore[arg-type]
    return fused.requires_grad_(False)


@torch.no_grad()
def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    return torch.nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)
