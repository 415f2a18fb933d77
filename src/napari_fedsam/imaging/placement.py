"""Putting a block of voxels where it lies on a scan's grid, without interpolating."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.geometry import Geometry

_SINGLE_SLICE_TILT = 1e-2
"""Largest sideways part of the unit normal, in voxels, of a block that is one voxel thick."""


@dataclass(frozen=True)
class Placement:
    """How a block's array is turned, and where it then lies in the scan's array.

    Attributes
    ----------
    axes : tuple of int
        The block's array axis (0 = z) that runs along each array axis of the scan.
    flipped : tuple of bool
        Whether it runs backwards.
    start : tuple of int
        Index (z, y, x) of the turned block's first voxel; it may lie outside the scan.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]
    start: tuple[int, ...]

    def turned(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a view of the block's values (z, y, x) with the scan's axes."""
        steps = tuple(slice(None, None, -1 if flip else None) for flip in self.flipped)
        return values.transpose(self.axes)[steps]

    def within(
        self, values: NDArray[Any], shape: tuple[int, int, int]
    ) -> tuple[tuple[slice, ...], NDArray[Any]] | None:
        """Return the region of the scan that a block covers, and the block's values there.

        Returns
        -------
        tuple or None
            (region, values), or None where values other than 0 lie outside the scan.
        """
        turned = self.turned(values)
        first = [max(0, start) for start in self.start]
        last = [
            max(low, min(extent, start + length))
            for low, extent, start, length in zip(
                first, shape, self.start, turned.shape, strict=True
            )
        ]
        inside = turned[
            tuple(
                slice(max(0, low - start), max(0, high - start))
                for low, high, start in zip(first, last, self.start, strict=True)
            )
        ]
        if inside.size != turned.size and np.count_nonzero(inside) != np.count_nonzero(turned):
            return None
        return tuple(slice(low, high) for low, high in zip(first, last, strict=True)), inside


def place_block(block: Geometry, grid: Geometry, tolerance: float) -> Placement | None:
    """Find where a block of voxels lies on a grid.

    Parameters
    ----------
    block : Geometry
        The block's own grid.
    grid : Geometry
        The scan's; pictures count as volumes of one slice.
    tolerance : float
        How far, in voxels of the grid, the block's corners may be from voxel centres.

    Returns
    -------
    Placement or None
        None where the block's voxels are not voxels of the (endless) grid.
    """
    block, grid = as_volume(block), as_volume(grid)
    first = grid.world_to_index(block.origin)
    last = first.copy()
    turns = np.zeros((3, 3), dtype=np.int64)
    for axis, extent in enumerate(block.size):
        step = grid.world_to_index(block.index_to_world(np.eye(3)[axis])) - first
        if extent == 1:
            # Of an axis without a second voxel only the direction means anything.
            step /= np.abs(step).max()
        turns[:, axis] = np.rint(step)
        drift = np.abs(step - turns[:, axis]).max() * max(1, extent - 1)
        if drift > (_SINGLE_SLICE_TILT if extent == 1 else tolerance):
            return None
        last += step * (extent - 1)
    corners = np.stack([first, last])
    if np.abs(corners - np.rint(corners)).max() > tolerance or not _is_turn(turns):
        return None
    return _placement(turns, np.rint(corners).min(axis=0))


def _is_turn(turns: NDArray[np.int64]) -> bool:
    """Say whether each axis runs along exactly one other."""
    used = np.abs(turns)
    return bool((used.sum(axis=0) == 1).all() and (used.sum(axis=1) == 1).all())


def as_volume(geometry: Geometry) -> Geometry:
    """Return a picture's grid as a volume of one slice; a volume's as it is."""
    if geometry.dimension == 3:
        return geometry
    direction = np.eye(3)
    direction[:2, :2] = geometry.matrix
    return Geometry(
        (*geometry.size, 1),
        (*geometry.spacing, 1.0),
        (*geometry.origin, 0.0),
        tuple(float(value) for value in direction.ravel()),
    )


def _placement(turns: NDArray[np.int64], corner: NDArray[np.float64]) -> Placement:
    # Geometry counts axes from x, arrays from z.
    by_array_axis = turns[::-1, ::-1]
    axes = np.abs(by_array_axis).argmax(axis=1)
    return Placement(
        tuple(int(axis) for axis in axes),
        tuple(bool(by_array_axis[row, axis] < 0) for row, axis in enumerate(axes)),
        tuple(int(value) for value in corner[::-1]),
    )
