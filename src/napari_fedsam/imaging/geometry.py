"""Where a voxel grid lies in the patient."""

import itertools
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

LENGTH_TOLERANCE = 1e-5
"""Spacings and origins closer than this (mm) are the same."""

DIRECTION_TOLERANCE = 1e-6
"""Direction cosines closer than this are the same."""


@dataclass(frozen=True)
class Geometry:
    """Size, spacing, origin and direction of a voxel grid, as SimpleITK has them.

    Everything is in SimpleITK's order (x, y, z), the reverse of the order of array axes, and in
    the patient coordinates of DICOM: millimetres, growing to the Left, Posterior and Superior.

    Attributes
    ----------
    size : tuple of int
        Number of voxels along x, y (, z); 2 or 3 entries.
    spacing : tuple of float
        Distance between voxel centres in mm, positive.
    origin : tuple of float
        Position of the centre of the first voxel in mm.
    direction : tuple of float
        Direction cosines, row-major; column i is the unit vector along which index i grows.

    Raises
    ------
    ValueError
        If the lengths disagree, a number is not finite, a size or a spacing is not positive, or
        the direction is singular.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def __post_init__(self) -> None:
        n = len(self.size)
        if n not in (2, 3):
            raise ValueError(f"a geometry has 2 or 3 dimensions, not {n}")
        if (len(self.spacing), len(self.origin), len(self.direction)) != (n, n, n * n):
            raise ValueError("size, spacing, origin and direction disagree in dimension")
        if not np.isfinite([*self.spacing, *self.origin, *self.direction]).all():
            raise ValueError("spacing, origin and direction must be finite")
        if min(self.size) < 1 or min(self.spacing) <= 0:
            raise ValueError("sizes and spacings must be positive")
        if abs(np.linalg.det(self.matrix)) < 1e-6:
            raise ValueError("the direction cosines must not be singular")

    @classmethod
    def identity(cls, size: tuple[int, ...]) -> Self:
        """Return a grid with unit spacing at the origin, as pictures have it."""
        n = len(size)
        direction = tuple(float(v) for v in np.eye(n).ravel())
        return cls(tuple(size), (1.0,) * n, (0.0,) * n, direction)

    @classmethod
    def from_image(cls, image: Any) -> Self:
        """Take the geometry of a `SimpleITK.Image` (or of a reader that has read its header)."""
        return cls(
            tuple(int(v) for v in image.GetSize()),
            # Adding zero turns ITK's negative zeros into plain ones.
            tuple(float(v) for v in image.GetSpacing()),
            tuple(float(v) + 0.0 for v in image.GetOrigin()),
            tuple(float(v) + 0.0 for v in image.GetDirection()),
        )

    def stamp(self, image: Any) -> None:
        """Give this spacing, origin and direction to a `SimpleITK.Image` of the same size.

        Raises
        ------
        ValueError
            If the image has another size.
        """
        if tuple(image.GetSize()) != self.size:
            raise ValueError(f"an image of size {image.GetSize()} is not one of {self.size}")
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.size)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The direction cosines as a (dimension, dimension) matrix; column i belongs to index i."""
        return np.array(self.direction, dtype=np.float64).reshape(self.dimension, self.dimension)

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """The (z, y, x) shape of the array of this grid; z is 1 for a 2-D grid."""
        return (self.size[2] if self.dimension == 3 else 1, self.size[1], self.size[0])

    def index_to_world(self, index: ArrayLike) -> NDArray[np.float64]:
        """Map indices (..., dimension), in the order (x, y, z), to positions in mm."""
        scaled = np.asarray(index, dtype=np.float64) * np.array(self.spacing)
        world: NDArray[np.float64] = scaled @ self.matrix.T + np.array(self.origin)
        return world

    def world_to_index(self, world: ArrayLike) -> NDArray[np.float64]:
        """Map positions (..., dimension) in mm to continuous indices in the order (x, y, z)."""
        offset = np.asarray(world, dtype=np.float64) - np.array(self.origin)
        index: NDArray[np.float64] = offset @ np.linalg.inv(self.matrix).T / np.array(self.spacing)
        return index

    def matches(
        self,
        other: "Geometry",
        *,
        length: float = LENGTH_TOLERANCE,
        direction: float = DIRECTION_TOLERANCE,
        single_precision: bool = False,
    ) -> bool:
        """Say whether two grids are the same voxels at the same places.

        Parameters
        ----------
        other : Geometry
            The grid to compare with.
        length : float
            Tolerance of spacing and origin in mm.
        direction : float
            Tolerance of each direction cosine.
        single_precision : bool
            Allow in addition what a 32-bit number cannot tell apart, as in NIfTI headers:
            beyond about 170 mm that is more than 1e-5 mm.
        """
        if self.size != other.size:
            return False
        mine = np.array([*self.spacing, *self.origin])
        theirs = np.array([*other.spacing, *other.origin])
        allowed = np.full(mine.shape, length)
        if single_precision:
            allowed = np.maximum(allowed, np.spacing(np.abs(mine).astype(np.float32)))
        same_direction = np.allclose(self.direction, other.direction, rtol=0, atol=direction)
        return bool((np.abs(mine - theirs) <= allowed).all()) and same_direction

    def reindexed(self, axes: tuple[int, ...], flipped: tuple[bool, ...]) -> "Geometry":
        """Describe the same voxels after permuting and flipping their indices.

        Parameters
        ----------
        axes : tuple of int
            The present index (x = 0) that becomes each new index.
        flipped : tuple of bool
            Whether each new index runs backwards.
        """
        corner = np.zeros(self.dimension)
        for axis, flip in zip(axes, flipped, strict=True):
            corner[axis] = self.size[axis] - 1 if flip else 0
        signs = np.where(flipped, -1.0, 1.0)
        matrix = self.matrix[:, list(axes)] * signs
        return Geometry(
            tuple(self.size[axis] for axis in axes),
            tuple(self.spacing[axis] for axis in axes),
            tuple(float(v) for v in self.index_to_world(corner)),
            tuple(float(v) + 0.0 for v in matrix.ravel()),
        )

    def reindexing_to(
        self, other: "Geometry", *, length: float, direction: float
    ) -> tuple[tuple[int, ...], tuple[bool, ...]] | None:
        """Find how to permute and flip this grid's indices so that it becomes `other`.

        Returns
        -------
        tuple or None
            (axes, flipped) for `reindexed`, or None where the voxels are not the same ones.
        """
        if self.dimension != other.dimension:
            return None
        for axes in itertools.permutations(range(self.dimension)):
            for flipped in itertools.product((False, True), repeat=self.dimension):
                candidate = self.reindexed(axes, flipped)
                if candidate.matches(other, length=length, direction=direction):
                    return axes, flipped
        return None
