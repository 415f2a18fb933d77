"""Distances between the outlines of masks, computed by MONAI.

In millimetres where the spacing is known, else in pixels. Where the prediction is empty and the
truth is not, the Hausdorff distance is the image's diagonal and the surface Dice 0; an empty truth
has neither, as it has no Dice.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray

# How far apart, in millimetres or pixels, outlines may lie and still agree.
TOLERANCE = 2.0


@dataclass(frozen=True)
class SurfaceMetrics:
    """How well two outlines agree.

    Parameters
    ----------
    hd95 : float
        95th percentile of the Hausdorff distance, 0 or more.
    surface_dice : float
        The normalised surface Dice (Nikolov et al. 2021) at `TOLERANCE`, 0..1.
    """

    hd95: float
    surface_dice: float


def surface_metrics(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: tuple[float, float] | None = None,
) -> SurfaceMetrics | None:
    """Compare two masks of shape (H, W); None when the truth is empty.

    Parameters
    ----------
    prediction, truth : bool arrays of shape (H, W)
    spacing : (row, column), optional
        Pixel size in millimetres; distances are in pixels without.
    """
    if not truth.any():
        return None
    if not prediction.any():
        sides = np.array(truth.shape) * np.array(spacing or (1.0, 1.0))
        return SurfaceMetrics(float(np.hypot(*sides)), 0.0)
    one, other = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
    with warnings.catch_warnings():
        # MONAI calls a function of its own by an argument that it deprecates.
        warnings.filterwarnings(
            "ignore", message=".*always_return_as_numpy", category=FutureWarning
        )
        distance = compute_hausdorff_distance(
            one, other, include_background=True, percentile=95, spacing=spacing
        )
        agreement = compute_surface_dice(
            one,
            other,
            class_thresholds=[TOLERANCE],
            include_background=True,
            spacing=spacing,
            use_subvoxels=spacing is not None,
        )
    return SurfaceMetrics(float(distance), float(agreement))
