"""What is being looked at: a scan, one of its slices, the window, and a structure."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.annotation.structures import FIRST_STRUCTURE, joined_structures, next_structure
from napari_fedsam.annotation.work import Place
from napari_fedsam.cases.case import Structure
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import Window, default_window

_NO_WINDOW = Window(0, 255)


class Viewpoint:
    """Evented state of the view; arrays and indices are in display order.

    Attributes
    ----------
    scan : Scan or None
        The open scan.
    number : int
        Counts the scans that were opened, so that stale results can be told.
    display : ndarray
        The scan's stored values, (z, y, x) or (z, y, x, 3).
    slice : SliceKey
        The slice on screen.
    window : Window
        The range of stored values that is shown, and that the model sees.
    structures : tuple of Structure
        What is on offer.
    structure : Structure
        What is being segmented.
    """

    scan_changed: ClassVar[Signal] = Signal()
    slice_changed: ClassVar[Signal] = Signal()
    window_changed: ClassVar[Signal] = Signal()
    structure_changed: ClassVar[Signal] = Signal()

    def __init__(self) -> None:
        self.number = 0
        self.scan: Scan | None = None
        self.display: NDArray[Any] = np.zeros((1, 1, 1), np.uint8)
        self.slice = SliceKey(0, 0)
        self.window = _NO_WINDOW
        self.structures: tuple[Structure, ...] = (FIRST_STRUCTURE,)
        self.structure = FIRST_STRUCTURE

    @property
    def place(self) -> Place:
        """The slice and structure that prompts go to."""
        return Place(self.slice, self.structure.value)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The display array's (z, y, x) shape."""
        z, y, x = self.display.shape[:3]
        return z, y, x

    @property
    def slice_count(self) -> int:
        """Number of slices in the present plane."""
        return self.shape[self.slice.axis]

    def open(self, scan: Scan | None, start: SliceKey | None = None) -> None:
        """Look at a slice of a scan, by default the middle of its acquired plane, or at nothing."""
        self.number += 1
        self.scan = scan
        if scan is None:
            self.display = np.zeros((1, 1, 1), np.uint8)
            self.slice, self.window = SliceKey(0, 0), _NO_WINDOW
        else:
            self.display = scan.orientation.to_display(scan.pixels)
            axis = scan.orientation.display_axis(scan.slice_axis)
            self.slice = start or SliceKey(axis, self.shape[axis] // 2)
            self.window = default_window(scan)
        self.scan_changed.emit()

    def show_slice(self, axis: int, index: int) -> None:
        """Move to a slice; an index beyond the scan means its first or last slice."""
        key = SliceKey(axis, int(np.clip(index, 0, self.shape[axis] - 1)))
        if key != self.slice:
            self.slice = key
            self.slice_changed.emit()

    def next_slice(self, step: int = 1) -> None:
        """Move along the present plane's axis."""
        self.show_slice(self.slice.axis, self.slice.index + step)

    def set_window(self, window: Window) -> None:
        """Show, and let the model see, another range of stored values."""
        if window != self.window:
            self.window = window
            self.window_changed.emit()

    def offer_structures(self, structures: tuple[Structure, ...]) -> None:
        """Replace the structures on offer, keeping the chosen one where its value remains.

        Raises
        ------
        AnnotationError
            When there is none.
        """
        if not structures:
            raise AnnotationError("No structure is on offer: name at least one.")
        same = [each for each in structures if each.value == self.structure.value]
        self.structures = structures
        self.structure = same[0] if same else structures[0]
        self.structure_changed.emit()

    def offer_more(self, structures: tuple[Structure, ...]) -> None:
        """Offer further structures beside those on offer, which keep their values.

        Raises
        ------
        AnnotationError
            When all 255 values are in use.
        """
        self.structures = joined_structures(self.structures, structures)
        self.structure_changed.emit()

    def choose_structure(self, value: int) -> None:
        """Segment another of the structures on offer.

        Raises
        ------
        AnnotationError
            When no structure has this value.
        """
        found = [each for each in self.structures if each.value == value]
        if not found:
            raise AnnotationError(f"No structure has the value {value}: add it first.")
        if found[0] != self.structure:
            self.structure = found[0]
            self.structure_changed.emit()

    def add_structure(self, name: str, color: str | None = None) -> Structure:
        """Offer one more structure, with the next free value, and choose it.

        Raises
        ------
        AnnotationError
            When the name is empty or taken, or no value is free.
        """
        self.structure = next_structure(self.structures, name, color)
        self.structures = (*self.structures, self.structure)
        self.structure_changed.emit()
        return self.structure
