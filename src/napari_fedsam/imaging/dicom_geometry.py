"""From slice positions to one regular voxel grid, or a sentence why there is none."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.dicom_headers import FramePlace
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry

_ORIENTATION_TOLERANCE = 1e-3
"""Headers round direction cosines; two slices this close are parallel."""

_DUPLICATE = 1e-3
"""Slices closer than this (mm) are at the same place."""

_UNEVEN = 0.1
"""Largest deviation of a slice from even spacing, as a part of the spacing."""

_SIDEWAYS = 0.25
"""Largest in-plane drift of the slices, in pixels."""


def stack_geometry(
    places: Sequence[FramePlace],
    rows: int,
    columns: int,
    thickness: float | None,
    name: str,
) -> tuple[Geometry, list[int]]:
    """Arrange slices by their position along the normal.

    Parameters
    ----------
    places : sequence of FramePlace
        One for each slice, in any order; all placed.
    rows, columns : int
        Size of each slice.
    thickness : float or None
        Distance between slices where there is only one; None: 1 mm.
    name : str
        The file or folder, for the error messages.

    Returns
    -------
    (Geometry, list of int)
        The grid, whose z grows along the normal (row direction x column direction), and the
        order of the slices.

    Raises
    ------
    ImagingError
        If orientations or pixel spacings differ, two slices share a place, one is missing, they
        are unevenly spaced, or shifted sideways (gantry tilt).
    """
    direction = _direction(places, name)
    row_spacing, column_spacing = _pixel_spacing(places, name)
    positions = np.array([place.position for place in places], dtype=np.float64)
    along = positions @ direction[:, 2]
    order = np.argsort(along, kind="stable")
    spacing = _slice_spacing(along[order], thickness, name)
    drift = (positions[order] - positions[order[0]]) @ direction[:, :2]
    if np.abs(drift).max() > _SIDEWAYS * min(row_spacing, column_spacing):
        raise ImagingError(
            f"{name} has slices that are shifted sideways from one to the next (a tilted gantry, "
            "perhaps): resample it to a rectangular grid and open that."
        )
    geometry = Geometry(
        (columns, rows, len(places)),
        (column_spacing, row_spacing, spacing),
        tuple(float(v) for v in positions[order[0]]),
        tuple(float(v) + 0.0 for v in direction.ravel()),
    )
    return geometry, [int(i) for i in order]


def _direction(places: Sequence[FramePlace], name: str) -> NDArray[np.float64]:
    """Return the orthonormal direction matrix that all slices share."""
    cosines = np.array([place.orientation for place in places], dtype=np.float64)
    if np.abs(cosines - cosines[0]).max() > _ORIENTATION_TOLERANCE:
        raise ImagingError(
            f"{name} mixes slices of different orientations (a localizer, perhaps): open them as "
            "series of their own."
        )
    row, column = cosines[0, :3], cosines[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(n - 1) for n in lengths) > 0.01 or abs(row @ column) > 0.01:
        raise ImagingError(
            f"{name} has image directions that are not at right angles: export it again, or "
            "convert it to NIfTI with a tool that repairs the header."
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _pixel_spacing(places: Sequence[FramePlace], name: str) -> tuple[float, float]:
    spacings = [place.pixel_spacing for place in places]
    first = spacings[0]
    if first is None or any(spacing is None for spacing in spacings):
        raise ImagingError(
            f"{name} does not say how large its pixels are (no PixelSpacing): export it again "
            "with its complete header."
        )
    values = np.array(spacings, dtype=np.float64)
    if np.abs(values - values[0]).max() > 1e-3 * values[0].min():
        raise ImagingError(
            f"{name} mixes slices of different pixel spacing: open them as series of their own."
        )
    return first[0], first[1]


def _slice_spacing(along: NDArray[np.float64], thickness: float | None, name: str) -> float:
    """Return the even spacing of sorted slice positions (mm along the normal)."""
    if len(along) == 1:
        return thickness or 1.0
    steps = np.diff(along)
    if steps.min() < _DUPLICATE:
        where = float(along[int(steps.argmin())])
        raise ImagingError(
            f"{name} has several slices at the same place ({where:.1f} mm): if they are time "
            "points, echoes or copies, export one set alone."
        )
    spacing = float(along[-1] - along[0]) / (len(along) - 1)
    expected = along[0] + spacing * np.arange(len(along))
    if np.abs(along - expected).max() <= _UNEVEN * spacing:
        return spacing
    widest = int(steps.argmax())
    usual = float(np.median(steps))
    if len(along) > 2 and steps[widest] > 1.5 * usual:
        raise ImagingError(
            f"{name} has a slice missing between {along[widest]:.1f} and {along[widest + 1]:.1f} "
            f"mm (the others are {usual:.2f} mm apart): copy or export the whole series again."
        )
    raise ImagingError(
        f"{name} has unevenly spaced slices ({steps.min():.2f} to {steps.max():.2f} mm): "
        "resample it to even spacing, or export the series again."
    )
