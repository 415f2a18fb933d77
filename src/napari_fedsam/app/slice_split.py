"""Which slices of one scan the demo's sites learn from, and which are kept for the measurement."""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from napari_fedsam.errors import FedSamError

GAP_MM = 10.0
"""Tissue that must lie between a held-out slice and every training slice."""


class SliceSplitError(FedSamError):
    """A scan has too few slices with the structure for training and measurement."""


@dataclasses.dataclass(frozen=True)
class SliceSplit:
    """A division of slices into training slices per site and one held-out slab.

    Attributes
    ----------
    train : tuple of tuple of int
        For each site, rising indices of its training slices; no slice belongs to two sites.
    held_out : tuple of int
        Rising indices of the slab that nobody trains on.
    """

    train: tuple[tuple[int, ...], ...]
    held_out: tuple[int, ...]


def split_slices(
    foreground: ArrayLike,
    spacing_mm: float,
    *,
    sites: int = 3,
    held_out_share: float = 0.2,
    gap_mm: float = GAP_MM,
) -> SliceSplit:
    """Divide the slices that show the structure between the sites and a held-out slab.

    The slab lies in the middle of the structure. At least `gap_mm` of tissue, measured between the
    faces of the slices, separates it from every training slice, because neighbouring slices show
    almost the same anatomy. The training slices on both sides of it are dealt to the sites in
    turn, so that every site sees all levels but no two sites the same slice.

    Parameters
    ----------
    foreground : array of bool, (slices,)
        Which slices show the structure, in the order of their positions.
    spacing_mm : float
        Distance between the centres of neighbouring slices in mm, > 0; slices are taken to be as
        thick as this.
    sites : int
        Number of sites, at least 1.
    held_out_share : float
        Share of the slices with the structure that the slab should have, between 0 and 1.
    gap_mm : float
        Required distance in mm, at least 0.

    Returns
    -------
    SliceSplit

    Raises
    ------
    SliceSplitError
        When the gap leaves fewer training slices than sites.
    ValueError
        For arguments outside their ranges.
    """
    if sites < 1 or spacing_mm <= 0 or gap_mm < 0 or not 0 < held_out_share < 1:
        raise ValueError(
            f"Cannot split for {sites} sites, {spacing_mm} mm spacing, {gap_mm} mm gap and a "
            f"held-out share of {held_out_share}."
        )
    shown = np.flatnonzero(np.asarray(foreground, dtype=bool))
    slab_size = max(1, round(held_out_share * shown.size))
    start = (shown.size - slab_size) // 2
    held_out = shown[start : start + slab_size]
    between = math.ceil(gap_mm / spacing_mm)
    if held_out.size:
        apart = (held_out[0] - shown > between) | (shown - held_out[-1] > between)
        shown = shown[apart]
    if shown.size < sites or not held_out.size:
        raise SliceSplitError(
            f"The scan shows the structure on too few slices: {sites} sites need a training slice "
            f"each, {gap_mm:g} mm away from the slices kept for the measurement; use a scan that "
            "covers more of it, or fewer sites."
        )
    return SliceSplit(
        train=tuple(tuple(int(k) for k in shown[site::sites]) for site in range(sites)),
        held_out=tuple(int(k) for k in held_out),
    )
