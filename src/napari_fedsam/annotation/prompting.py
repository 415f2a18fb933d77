"""Prompts by click, drag, mask or brush."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_fedsam.annotation.ask import Ask, Painting, Path, Scribble
from napari_fedsam.annotation.bit_mask import BitMask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.history import Step
from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.annotation.workspace import Workspace


class Prompting(Workspace):
    """The part of a session that takes prompts; each is one undo step.

    The signal `prompted` carries how many prompts the person has added in one step.
    """

    prompted: ClassVar[Signal] = Signal(int)

    def set_ask(self, ask: Ask) -> None:
        """Replace the prompts of this place (one undo step).

        Raises
        ------
        AnnotationError
            When no scan is open.
        """
        self._need_scan()
        place, before = self.view.place, self.ask
        if before.is_empty and not ask.is_empty:
            ask = self._after_painting(ask)
        if ask != before or ask.automatic != before.automatic:
            ask = replace(ask, automatic=False)
            self._put_ask(place, ask)
            self.prompted.emit(max(0, ask.prompt_count - before.prompt_count))
            self._history.record(
                Step(lambda: self._go_and_ask(place, before), lambda: self._go_and_ask(place, ask))
            )

    def _after_painting(self, ask: Ask) -> Ask:
        """Let a first prompt start from what was painted by hand and not accepted yet."""
        place = self.view.place
        drawn = place.slice.pixels(self.segmentation) == place.structure
        accepted = self._accepted.get(place)
        known = np.zeros_like(drawn) if accepted is None else accepted.new.mask
        added, removed = drawn & ~known, known & ~drawn
        if not (added.any() or removed.any()):
            return ask
        painting = Painting.of(added, removed)
        return replace(ask, corrections=(painting, *ask.corrections))

    def add_click(self, x: float, y: float, *, positive: bool = True) -> None:
        """Add a click at (x, y) in pixels of the slice."""
        self.set_ask(self.ask.with_click(x, y, positive=positive))

    def add_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Add a box in pixels of the slice."""
        self.set_ask(self.ask.with_box((x0, y0, x1, y1)))

    def add_scribble(self, path: Path, *, positive: bool = True) -> None:
        """Add a line over what belongs to the structure, or over what does not."""
        self.set_ask(self.ask.with_correction(Scribble(path, positive)))

    def add_lasso(self, outline: Path) -> None:
        """Add a closed outline around an object."""
        self.set_ask(self.ask.with_lasso(outline))

    def use_mask(self, mask: NDArray[np.bool_]) -> None:
        """Start from an existing mask of this slice, shape (H, W), and let the model refine it.

        Raises
        ------
        AnnotationError
            When the mask is empty or of another size.
        """
        shape = self.view.slice.shape(self.view.shape)
        if mask.shape != shape:
            raise AnnotationError(
                f"The mask has {mask.shape} pixels, this slice {shape}: choose a mask of this scan."
            )
        if not mask.any():
            raise AnnotationError(
                f"The mask holds no {self.view.structure.name} on this slice: choose another one."
            )
        self.set_ask(replace(self.ask, mask=BitMask.of(mask)))

    def use_own_mask(self) -> None:
        """Start from what the segmentation holds on this slice."""
        place = self.view.place
        self.use_mask(place.slice.pixels(self.segmentation) == place.structure)

    def use_neighbour(self) -> None:
        """Start from the mask of the slice before, or where it has none, of the one after.

        Raises
        ------
        AnnotationError
            When neither has one.
        """
        place = self.view.place
        for index in (place.slice.index - 1, place.slice.index + 1):
            if 0 <= index < self.view.slice_count:
                beside = SliceKey(place.slice.axis, index)
                mask = beside.pixels(self.segmentation) == place.structure
                if mask.any():
                    self.use_mask(mask)
                    return
        raise AnnotationError(
            f"Neither neighbouring slice holds {self.view.structure.name}: accept it on one first."
        )

    def clear(self) -> None:
        """Take all prompts off this place (one undo step)."""
        self.set_ask(Ask())

    # --- painting by hand

    def paint_answer(self, added: NDArray[np.bool_], removed: NDArray[np.bool_]) -> None:
        """Correct the answer by painting; later prompts start from what was painted.

        Parameters
        ----------
        added, removed : bool arrays of shape (H, W)
            What was painted and what was erased.
        """
        if added.any() or removed.any():
            self.set_ask(self.ask.with_correction(Painting.of(added, removed)))

    def painted(self, edit: LabelEdit) -> None:
        """Take note that someone painted in the segmentation (one undo step).

        While there are prompts on this slice, paint of the chosen structure corrects the answer
        to them and is kept with the prompts instead.
        """
        if not len(edit):
            return
        added, removed = self._strokes(edit)
        if self.ask.is_empty or len(edit) != np.count_nonzero(added | removed):
            place, back = self.view.place, edit.swapped()
            self._history.record(
                Step(lambda: self._go_and_edit(place, back), lambda: self._go_and_edit(place, edit))
            )
            self.edited.emit(edit)
            return
        self._edit(edit.swapped())
        self.paint_answer(added, removed)

    def _strokes(self, edit: LabelEdit) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return what an edit adds to and takes from the chosen structure on this slice."""
        place = self.view.place
        changed = np.zeros((2, *place.slice.shape(self.view.shape)), np.bool_)
        here = edit.indices[place.slice.axis] == place.slice.index
        down, right = (edit.indices[axis][here] for axis in place.slice.in_plane)
        changed[0, down, right] = edit.after[here] == place.structure
        changed[1, down, right] = (edit.before[here] == place.structure) & (edit.after[here] == 0)
        return changed[0], changed[1]
