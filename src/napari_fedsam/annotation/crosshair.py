"""The linked cursor: one physical point that every open scan of a patient shows."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.imaging.display_grid import DisplayGrid, Point
from napari_fedsam.imaging.physical_space import PhysicalSpace
from napari_fedsam.imaging.scan import Scan


class Crosshair:
    """Evented state of the linked cursor.

    The point always lies on the slice on screen: stepping through slices takes it along, and
    moving it goes to the slice that was acquired nearest to it. A scan that is opened or chosen
    shows its slice nearest to the point as long as it shares the physical space of the one before;
    the point itself stays, so that going back leads to the very slice that one came from.

    Parameters
    ----------
    view : Viewpoint
        What is being looked at.

    Attributes
    ----------
    is_on : bool
        Whether scans are linked.
    point : Point or None
        The physical point; None while off, or in a scan without a place in the patient.
    space : PhysicalSpace or None
        That of the open scan.
    grid : DisplayGrid or None
        That of the open scan; None where it has no place in the patient.
    """

    changed: ClassVar[Signal] = Signal()

    def __init__(self, view: Viewpoint) -> None:
        self._view = view
        self.is_on = False
        self.point: Point | None = None
        self.space: PhysicalSpace | None = None
        self.grid: DisplayGrid | None = None
        view.scan_changed.connect(self._scan_changed)
        view.slice_changed.connect(self._follow)

    @property
    def position(self) -> NDArray[np.float64] | None:
        """The point in the open scan, as a display position (z, y, x); None outside of it."""
        if self.point is None or self.grid is None or not self.grid.holds(self.point):
            return None
        return self.grid.to_position(self.point)

    def turn(self, on: bool) -> None:
        """Link the open scans, beginning in the middle of the slice on screen, or stop that."""
        if on != self.is_on:
            self.is_on = on
            self.point = self._middle() if on else None
            self.changed.emit()

    def move_to(self, point: Point) -> None:
        """Put the crosshair at a physical point (mm) and go to the slice nearest to it.

        Does nothing while off, or in a scan without a place in the patient.
        """
        if not self.is_on or self.grid is None or point == self.point:
            return
        self.point = point
        axis = self._view.slice.axis
        self._view.show_slice(axis, self.grid.nearest_slice(point, axis))
        self.changed.emit()

    def index_along(self, axis: int) -> int | None:
        """Return the open scan's slice across a display axis that is nearest; None while off."""
        if self.point is None or self.grid is None:
            return None
        return self.grid.nearest_slice(self.point, axis)

    def start_of(self, scan: Scan) -> SliceKey | None:
        """Return the acquired slice of a scan that is nearest to the point; None when unlinked."""
        if self.point is None or self.space is None:
            return None
        if PhysicalSpace.of(scan).why_apart(self.space):
            return None
        axis = scan.orientation.display_axis(scan.slice_axis)
        return SliceKey(axis, DisplayGrid.of(scan).nearest_slice(self.point, axis))

    def _scan_changed(self) -> None:
        scan, before = self._view.scan, self.space
        self.space = None if scan is None else PhysicalSpace.of(scan)
        is_placed = self.space is not None and not self.space.unplaced
        self.grid = DisplayGrid.of(scan) if scan is not None and is_placed else None
        stays = self.space and before and not self.space.why_apart(before)
        if self.is_on and not stays:
            self.point = self._middle()
        self.changed.emit()

    def _follow(self) -> None:
        """Take the point along to another slice."""
        if self.point is None or self.grid is None:
            return
        key = self._view.slice
        if self.grid.nearest_slice(self.point, key.axis) != key.index:
            position = self.grid.to_position(self.point)
            position[key.axis] = key.index
            self.point = self.grid.to_point(position)
            self.changed.emit()

    def _middle(self) -> Point | None:
        if self.grid is None:
            return None
        position = (np.array(self.grid.shape) - 1) / 2
        position[self._view.slice.axis] = self._view.slice.index
        return self.grid.to_point(position)
