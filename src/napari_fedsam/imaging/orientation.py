"""Scans as radiologists look at them, without resampling a voxel."""

import itertools
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.geometry import Geometry

_DISPLAY_DIRECTIONS = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Where the three display axes should run in LPS: to Inferior, to Posterior, to Left."""

_PATIENT_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))
"""Letters for growing and falling x, y and z of the patient coordinates (LPS)."""

_SECOND_LETTER = float(np.sin(np.radians(15)))
"""A second letter is shown once the axis is tilted by more than 15 degrees."""

_ANATOMICAL_LABELS = ("S-I", "A-P", "R-L")
_PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class EdgeLetters:
    """The patient directions at the four edges of a displayed slice; "" when unknown."""

    left: str = ""
    right: str = ""
    top: str = ""
    bottom: str = ""


@dataclass(frozen=True)
class DisplayOrientation:
    """How the axes of a scan's array are permuted and flipped for display.

    The display array has the axes (superior to inferior, anterior to posterior, right to left),
    as near as the scan's own axes come to them, so that indexing axis 0, 1 or 2 gives an axial,
    coronal or sagittal slice in radiological convention: the patient's right is at the left of
    the screen. Nothing is resampled: every displayed voxel is an acquired one. Where the
    anatomical directions are unknown (pictures, cine) the array is shown as it is.

    Attributes
    ----------
    permutation : tuple of int
        The array axis that each display axis shows.
    flipped : tuple of bool
        Whether each display axis runs against its array axis.
    display_spacing : tuple of float
        Distance between voxels along the display axes, in mm (in pixels where unknown).
    directions : tuple of (float, float, float), or None
        The LPS unit vector along which each display axis grows; None when unknown.
    axis_labels : tuple of str
        Short names for the display axes.
    """

    permutation: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    display_spacing: tuple[float, float, float]
    directions: tuple[tuple[float, float, float], ...] | None
    axis_labels: tuple[str, str, str]

    @classmethod
    def unchanged(
        cls,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        axis_labels: tuple[str, str, str] = ("z", "y", "x"),
    ) -> Self:
        """Show the array as it is, without edge letters.

        Parameters
        ----------
        spacing : tuple of float
            Distance between voxels along z, y and x.
        axis_labels : tuple of str
            Names of these axes.
        """
        return cls((0, 1, 2), (False, False, False), spacing, None, axis_labels)

    @classmethod
    def from_geometry(cls, geometry: Geometry, spacing_known: bool = True) -> Self:
        """Choose the permutation and flips that come nearest to the anatomical axes.

        Parameters
        ----------
        geometry : Geometry
            The scan's grid; its direction must refer to the patient for the letters to be true.
        spacing_known : bool
            False where nothing is known of the patient: the array is shown as it is.
        """
        if geometry.dimension == 2:
            return cls.unchanged((1.0, geometry.spacing[1], geometry.spacing[0]))
        spacing = geometry.spacing[::-1]
        if not spacing_known:
            return cls.unchanged((spacing[0], spacing[1], spacing[2]))
        # Columns of the direction matrix belong to x, y, z; rows here to the axes z, y, x.
        towards = geometry.matrix.T[::-1]
        alignment = _DISPLAY_DIRECTIONS @ towards.T
        permutation = max(
            itertools.permutations(range(3)),
            # Rounding keeps ties (45 degree obliques) in the order of the permutations.
            key=lambda axes: round(sum(abs(alignment[i, axis]) for i, axis in enumerate(axes)), 9),
        )
        flips = [bool(alignment[i, axis] < 0) for i, axis in enumerate(permutation)]
        signed = towards[list(permutation)] * np.where(flips, -1.0, 1.0)[:, None]
        return cls(
            (permutation[0], permutation[1], permutation[2]),
            (flips[0], flips[1], flips[2]),
            (spacing[permutation[0]], spacing[permutation[1]], spacing[permutation[2]]),
            tuple((float(v[0]), float(v[1]), float(v[2])) for v in signed + np.zeros(3)),
            _ANATOMICAL_LABELS,
        )

    @property
    def is_anatomical(self) -> bool:
        """Whether the patient directions are known."""
        return self.directions is not None

    def to_display(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a (z, y, x, ...) array with the display axes first.

        Further axes (colour) stay where they are.
        """
        trailing = range(3, array.ndim)
        turned = array.transpose(*self.permutation, *trailing)
        return turned[self._flips]

    def from_display(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a (z, y, x, ...) view of a display array: the exact inverse of `to_display`."""
        back = [self.permutation.index(axis) for axis in range(3)]
        return array[self._flips].transpose(*back, *range(3, array.ndim))

    @property
    def _flips(self) -> tuple[slice, slice, slice]:
        steps = [slice(None, None, -1) if flip else slice(None) for flip in self.flipped]
        return (steps[0], steps[1], steps[2])

    def display_axis(self, array_axis: int) -> int:
        """Return the display axis that shows an axis (0 = z) of the scan's array."""
        return self.permutation.index(array_axis)

    def edge_letters(self, plane_axis: int) -> EdgeLetters:
        """Return the patient directions at the edges of the slices across a display axis.

        Parameters
        ----------
        plane_axis : int
            The display axis that is indexed (0 axial, 1 coronal, 2 sagittal); of the two others,
            the first runs down the screen and the second to the right.

        Returns
        -------
        EdgeLetters
            One letter an edge, or two for an axis tilted by more than 15 degrees, the dominant
            one first (DICOM PS3.3 C.7.6.1.1.1); empty where the directions are unknown.
        """
        if self.directions is None:
            return EdgeLetters()
        down, right = (np.array(self.directions[i]) for i in range(3) if i != plane_axis % 3)
        return EdgeLetters(
            left=_letters(-right), right=_letters(right), top=_letters(-down), bottom=_letters(down)
        )

    def plane_name(self, plane_axis: int) -> str:
        """Name the slices across a display axis: axial, coronal, sagittal or just "slice"."""
        return _PLANES[plane_axis % 3] if self.is_anatomical else "slice"


def _letters(vector: NDArray[np.float64]) -> str:
    """Name an LPS vector by its one or two dominant components."""
    unit = vector / np.linalg.norm(vector)
    order = sorted(range(3), key=lambda i: -round(abs(float(unit[i])), 9))
    shown = [order[0]]
    if abs(unit[order[1]]) > _SECOND_LETTER:
        shown.append(order[1])
    return "".join(_PATIENT_LETTERS[i][0 if unit[i] > 0 else 1] for i in shown)
