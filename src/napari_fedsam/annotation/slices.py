"""Slices of a displayed scan, and where a place in the volume lies on one.

Arrays and positions are in display order (see `imaging.orientation`): axis 0 runs from superior
to inferior, 1 from anterior to posterior, 2 from right to left. A slice across one axis shows the
two others in that order: the first runs down the screen (y), the second to the right (x).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Position = tuple[float, float, float]


@dataclass(frozen=True)
class SliceKey:
    """One slice of a displayed scan.

    Attributes
    ----------
    axis : int
        The display axis across which it lies: 0 axial, 1 coronal, 2 sagittal.
    index : int
        Its place along that axis.
    """

    axis: int
    index: int

    @property
    def in_plane(self) -> tuple[int, int]:
        """The display axes that run down (y) and to the right (x)."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second

    def pixels(self, display: NDArray[Any]) -> NDArray[Any]:
        """Return this slice, a view of shape (H, W) or (H, W, 3), of a display array."""
        return display[(slice(None),) * self.axis + (self.index,)]

    def shape(self, volume: tuple[int, int, int]) -> tuple[int, int]:
        """Return (H, W) of this slice in a volume of a display shape."""
        down, right = self.in_plane
        return volume[down], volume[right]

    def place(self, x: float, y: float) -> Position:
        """Return the display position of the pixel position (x, y) of this slice."""
        position = [float(self.index)] * 3
        down, right = self.in_plane
        position[down], position[right] = float(y), float(x)
        return position[0], position[1], position[2]

    def locate(self, position: NDArray[np.float64]) -> tuple[float, float]:
        """Return the pixel position (x, y) of a display position (z, y, x)."""
        down, right = self.in_plane
        return float(position[right]), float(position[down])

    def holds(self, position: NDArray[np.float64]) -> bool:
        """Whether a display position lies on this slice, to the nearest slice."""
        return int(np.rint(position[self.axis])) == self.index

    def volume_indices(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], ...]:
        """Return the display indices (z, y, x) of the pixels of a mask of shape (H, W)."""
        rows, columns = np.nonzero(mask)
        indices: list[NDArray[np.intp]] = [np.full(rows.shape, self.index, np.intp)] * 3
        down, right = self.in_plane
        indices[down], indices[right] = rows, columns
        return tuple(indices)
