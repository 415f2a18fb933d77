"""Where a point of the patient lies among the voxels of a scan as it is shown."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.placement import as_volume
from napari_fedsam.imaging.scan import Scan

Point = tuple[float, float, float]
"""A physical point: x, y, z in mm, growing to the Left, Posterior and Superior."""


@dataclass(frozen=True)
class DisplayGrid:
    """A scan's voxels in display order (see `imaging.orientation`), and where they lie.

    Positions are continuous display indices (z, y, x); whole numbers are voxel centres.

    Attributes
    ----------
    geometry : Geometry
        Of the display array, three-dimensional.
    """

    geometry: Geometry

    @classmethod
    def of(cls, scan: Scan) -> Self:
        """Return the display grid of a scan; a picture counts as a volume of one slice."""
        turned = scan.orientation
        # Geometry counts axes from x, the display from z.
        axes = tuple(2 - axis for axis in reversed(turned.permutation))
        return cls(as_volume(scan.geometry).reindexed(axes, turned.flipped[::-1]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The display array's (z, y, x) shape."""
        return self.geometry.array_shape

    def to_point(self, position: ArrayLike) -> Point:
        """Return the physical point (mm) at a display position (z, y, x)."""
        x, y, z = self.geometry.index_to_world(np.asarray(position, np.float64)[::-1])
        return float(x), float(y), float(z)

    def to_position(self, point: ArrayLike) -> NDArray[np.float64]:
        """Return the display position (z, y, x) of a physical point (mm), also outside."""
        return self.geometry.world_to_index(point)[::-1]

    def nearest_slice(self, point: ArrayLike, axis: int) -> int:
        """Return the slice across a display axis whose plane is nearest to a physical point.

        Parameters
        ----------
        point : (x, y, z) in mm
        axis : int
            0 axial, 1 coronal, 2 sagittal.

        Returns
        -------
        int
            The first or last slice where the point lies beyond them.
        """
        index = int(np.rint(self.to_position(point)[axis]))
        return min(max(index, 0), self.shape[axis] - 1)

    def holds(self, point: ArrayLike) -> bool:
        """Whether a physical point (mm) lies within the voxels, up to their outer faces."""
        position = self.to_position(point)
        return bool(((position >= -0.5) & (position <= np.array(self.shape) - 0.5)).all())
