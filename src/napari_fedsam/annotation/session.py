"""The annotation session: prompts in, previews out, accepted masks kept as cases.

State without a window: views listen to the signals and call the methods, all in one thread. The
slow steps are handed out as work (`session.answering`) and may run in another.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_fedsam.annotation.acceptance import Acceptance, AtOnce, DiskJobs
from napari_fedsam.annotation.accepted_mask import accepted_mask
from napari_fedsam.annotation.answering import Answering
from napari_fedsam.annotation.ask import Ask, Painting, Path, Scribble
from napari_fedsam.annotation.bit_mask import BitMask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.history import History, Step
from napari_fedsam.annotation.label_edit import Indices, LabelEdit
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.new_case import NO_MODEL, new_case_of
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.annotation.work import Place, Preview
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.scan import Scan


class AnnotationSession:
    """One person annotating one scan at a time.

    Parameters
    ----------
    store : CaseStore
        Where accepted masks are kept.
    annotator : str
        Who accepts them.
    disk : DiskJobs, optional
        Runs what waits for the disk; by default at once.

    Attributes
    ----------
    view : Viewpoint
        Scan, slice, window and structure.
    answering : Answering
        Model, preview and pending work.
    segmentation : unsigned integer array in display order
        The accepted structure values.
    auto_propose : bool
        Whether a slice that is arrived at gets the model's proposal.
    preserve_others : bool
        Whether accepted masks spare what other structures cover.
    write_labels : callable
        Writes values at indices of the segmentation; a view replaces it to show them.

    The signal `prompted` carries how many prompts the person has added in one step.
    """

    ask_changed: ClassVar[Signal] = Signal()
    prompted: ClassVar[Signal] = Signal(int)
    model_changed: ClassVar[Signal] = Signal()
    accepted: ClassVar[Signal] = Signal(Acceptance)
    withdrawn: ClassVar[Signal] = Signal(Acceptance)
    edited: ClassVar[Signal] = Signal(LabelEdit)
    opened: ClassVar[Signal] = Signal()
    preserve_changed: ClassVar[Signal] = Signal()
    failed: ClassVar[Signal] = Signal(Exception)

    def __init__(
        self, store: CaseStore, *, annotator: str = "", disk: DiskJobs | None = None
    ) -> None:
        self.store = store
        self.annotator = annotator
        self.view = Viewpoint()
        self.answering = Answering(self.view, lambda: self.ask)
        self.auto_propose = False
        self.preserve_others = False
        self.write_labels: Callable[[Indices, NDArray[Any]], None] = self._write_directly
        self._disk = disk or AtOnce()
        self._forget()
        self.view.slice_changed.connect(self._arrived)
        self.view.structure_changed.connect(self._arrived)
        self.view.window_changed.connect(self.answering.work_wanted.emit)
        self.answering.failed.connect(self.failed.emit)

    def _forget(self) -> None:
        self.segmentation: NDArray[Any] = np.zeros(self.view.shape, np.uint8)
        self._asks: dict[Place, Ask] = {}
        self._started: dict[Place, float] = {}
        self._accepted: dict[Place, Acceptance] = {}
        self._history = History()

    # --- scan and model

    @property
    def scan(self) -> Scan | None:
        """The open scan."""
        return self.view.scan

    @property
    def model(self) -> ModelInUse | None:
        """The model that answers."""
        return self.answering.model

    @property
    def preview(self) -> Preview | None:
        """The model's answer for this place, not accepted yet."""
        return self.answering.preview

    def open_scan(self, scan: Scan, segmentation: NDArray[Any] | None = None) -> None:
        """Begin to annotate a scan, on the middle slice of its acquired plane.

        Parameters
        ----------
        scan : Scan
        segmentation : unsigned integer array in display order, optional
            Where accepted masks are written; by default a new, empty one.
        """
        self._look_at(scan)
        if segmentation is not None:
            self.segmentation = segmentation
        self.opened.emit()

    def close_scan(self) -> None:
        """Forget the scan with its prompts and undo steps; kept cases stay."""
        self._look_at(None)
        self.opened.emit()

    def _look_at(self, scan: Scan | None) -> None:
        self.view.open(scan)
        self._forget()
        self.answering.hover.point_at(None)
        self.answering.forget()
        self._arrived()

    def use_model(self, model: ModelInUse) -> None:
        """Let another model answer; the prompts stay and are answered again."""
        self.answering.use_model(model)
        self.model_changed.emit()
        self._arrived()

    @property
    def can_propose(self) -> bool:
        """Whether the model has learned to propose the chosen structure without a prompt."""
        model = self.model
        return (
            model is not None
            and model.can_propose
            and model.structure_for(self.view.structure.value) is not None
        )

    # --- prompts

    @property
    def ask(self) -> Ask:
        """The prompts of the chosen structure on the slice on screen."""
        return self._asks.get(self.view.place, Ask())

    @property
    def asks(self) -> Mapping[Place, Ask]:
        """All prompts that are not accepted yet, by slice and structure."""
        return self._asks

    @property
    def acceptances(self) -> Mapping[Place, Acceptance]:
        """What is accepted, by slice and structure."""
        return self._accepted

    @property
    def has_work(self) -> bool:
        """Whether something was done on the open scan, or is there to be undone."""
        begun = bool(self._asks or self._accepted) or not self._history.is_empty
        return self.scan is not None and (begun or bool(self.segmentation.any()))

    def resume(
        self, asks: dict[Place, Ask], accepted: list[Acceptance], edits: Iterable[LabelEdit]
    ) -> None:
        """Go on where an earlier session of this scan stopped; undo begins anew."""
        self._history = History()
        self._edit(LabelEdit.from_nothing(self.segmentation).swapped())
        for edit in edits:
            self._edit(edit)
        self._accepted = {each.place: each for each in accepted}
        self._asks = dict(asks)
        self._show_ask()

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
        if ask != before:
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

    def propose(self) -> None:
        """Ask the model for its own proposal.

        Raises
        ------
        AnnotationError
            When the model has not learned to propose this structure.
        """
        if not self.can_propose:
            raise AnnotationError(
                f"The model in use has not learned to propose {self.view.structure.name}: click "
                "on it or draw a box; a model personalised in a federation can propose."
            )
        self.set_ask(replace(self.ask, proposal=True))

    def clear(self) -> None:
        """Take all prompts off this place (one undo step)."""
        self.set_ask(Ask())

    def set_preserve_others(self, wanted: bool) -> None:
        """Let accepted masks spare what other structures cover, or overwrite it."""
        self.preserve_others = wanted
        self.preserve_changed.emit()

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

    def put_masks(self, axis: int, structure: int, masks: Mapping[int, NDArray[np.bool_]]) -> int:
        """Write a structure's masks into many slices of one plane (one undo step).

        Accepted slices are left as they are, and so are other structures where they are spared.

        Returns
        -------
        int
            How many slices were changed.
        """
        edits = []
        for index, mask in masks.items():
            place = Place(SliceKey(axis, index), structure)
            if place in self._accepted:
                continue
            shown = place.slice.pixels(self.segmentation)
            spared = self.preserve_others & (shown != 0) & (shown != structure)
            edits.append(
                LabelEdit.giving(self.segmentation, place.slice, structure, mask & ~spared)
            )
        edits = [edit for edit in edits if len(edit)]
        if edits:
            self.change(LabelEdit.joined(edits))
        return len(edits)

    def change(self, edit: LabelEdit) -> None:
        """Change the segmentation (one undo step)."""
        place, back = self.view.place, edit.swapped()
        self._edit(edit)
        self._history.record(
            Step(lambda: self._go_and_edit(place, back), lambda: self._go_and_edit(place, edit))
        )

    # --- undo and redo

    def undo(self) -> bool:
        """Take back the last step, wherever it was made: prompts, paint, accepts, propagation.

        Returns
        -------
        bool
            False when there is nothing to take back.
        """
        return self._history.undo()

    def redo(self) -> bool:
        """Do again what was taken back last.

        Returns
        -------
        bool
            False when nothing was taken back, or something else was done since.
        """
        return self._history.redo()

    # --- accepting

    def accept(self) -> Acceptance:
        """Accept the preview with what was drawn by hand, or alone what was drawn by hand.

        The mask goes into the segmentation and, with its slice, into the training set, where it
        replaces what this session kept of the same slice and structure before. What lies outside
        the prompted region stays as it is (see `accepted_mask`).

        Raises
        ------
        AnnotationError
            When there is nothing to accept, or the answer is still being computed.
        """
        scan, place = self._need_scan(), self.view.place
        if not self.ask.is_empty and not self.answering.is_current:
            raise AnnotationError("The mask is still being computed: accept it once it shows.")
        mask = place.slice.pixels(self.segmentation) == place.structure
        if self.preview is not None:
            mask = accepted_mask(mask, self.preview.mask, self.ask)
        if self.preserve_others:
            shown = place.slice.pixels(self.segmentation)
            mask &= (shown == 0) | (shown == place.structure)
        if not mask.any():
            raise AnnotationError(
                f"There is no {self.view.structure.name} to accept on this slice: click, draw a "
                "box or paint, or accept that it is absent here."
            )
        return self._accept(scan, mask)

    def accept_absent(self) -> Acceptance:
        """Accept that the structure is not on this slice (an empty mask).

        Raises
        ------
        AnnotationError
            When no scan is open.
        """
        shape = self.view.slice.shape(self.view.shape)
        return self._accept(self._need_scan(), np.zeros(shape, np.bool_))

    def _accept(self, scan: Scan, mask: NDArray[np.bool_]) -> Acceptance:
        place, ask = self.view.place, self.ask
        preview = self.preview if self.answering.is_current else None
        proposed = None
        if preview is not None and not mask.any() and ask.proposal and not ask.prompt_count:
            proposed = int(preview.mask.sum())
        now = time.monotonic()
        acceptance = Acceptance(
            place=place,
            ask=ask,
            new=new_case_of(
                scan,
                place.slice,
                mask,
                structure=self.view.structure,
                window=self.view.window,
                ask=ask,
                model=NO_MODEL if preview is None else preview.model.provenance,
                annotator=self.annotator,
                seconds=now - self._started.pop(place, now),
                false_positive_pixels=proposed,
            ),
            edit=LabelEdit.giving(self.segmentation, place.slice, place.structure, mask),
            supersedes=self._accepted.get(place),
            false_positive_pixels=proposed,
        )
        step = Step(lambda: self._withdraw(acceptance), lambda: self._carry_out(acceptance, step))
        self._history.record(step)
        self._carry_out(acceptance, step)
        return acceptance

    def _carry_out(self, acceptance: Acceptance, step: Step) -> None:
        """Go where something is accepted, write its mask and keep its case."""
        self._go_to(acceptance.place)
        self._edit(acceptance.edit)
        self._accepted[acceptance.place] = acceptance
        self._put_ask(acceptance.place, Ask())
        self._disk.run(
            lambda: acceptance.keep(self.store),
            lambda _: self.accepted.emit(acceptance),
            lambda error: self._could_not_keep(acceptance, step, error),
        )

    def _withdraw(self, acceptance: Acceptance) -> None:
        """Go to where something was accepted and take it back, its case too."""
        self._go_to(acceptance.place)
        self._take_back(acceptance)
        self._disk.run(
            lambda: acceptance.withdraw(self.store),
            lambda _: self.withdrawn.emit(acceptance),
            self.failed.emit,
        )

    def _could_not_keep(self, acceptance: Acceptance, step: Step, error: FedSamError) -> None:
        """Leave everything as it was before accepting, so that it can be tried again."""
        if self._history.drop(step):
            self._take_back(acceptance)
        self.failed.emit(error)

    def _take_back(self, acceptance: Acceptance) -> None:
        self._edit(acceptance.edit.reversed_on(self.segmentation))
        place = acceptance.place
        if self._accepted.get(place) is acceptance:
            del self._accepted[place]
            if acceptance.supersedes is not None:
                self._accepted[place] = acceptance.supersedes
        self._put_ask(place, acceptance.ask)

    # --- inner steps

    def _need_scan(self) -> Scan:
        if self.view.scan is None:
            raise AnnotationError("No scan is open: open one first.")
        return self.view.scan

    def _go_and_ask(self, place: Place, ask: Ask) -> None:
        self._go_to(place)
        self._put_ask(place, ask)

    def _go_and_edit(self, place: Place, edit: LabelEdit) -> None:
        self._go_to(place)
        self._edit(edit)

    def _edit(self, edit: LabelEdit) -> None:
        self.write_labels(edit.indices, edit.after)
        self.edited.emit(edit)

    def _go_to(self, place: Place) -> None:
        self.view.choose_structure(place.structure)
        self.view.show_slice(place.slice.axis, place.slice.index)

    def _put_ask(self, place: Place, ask: Ask) -> None:
        if ask.is_empty:
            self._asks.pop(place, None)
        else:
            self._asks[place] = ask
            self._started.setdefault(place, time.monotonic())
        if place == self.view.place:
            self._show_ask()

    def _arrived(self) -> None:
        """Show the prompts of a place, a scan or a model that is new."""
        if self.auto_propose and self.view.scan is not None and self.can_propose:
            place = self.view.place
            if self.ask.is_empty and place not in self._accepted:
                self._asks[place] = self._after_painting(Ask(proposal=True))
        preview = self.preview
        if preview is not None and preview.place != self.view.place:
            self.answering.drop_preview()
        self.answering.hover.drop()
        self._show_ask()

    def _show_ask(self) -> None:
        self.ask_changed.emit()
        if self.ask.is_empty:
            self.answering.drop_preview()
        self.answering.work_wanted.emit()

    def _write_directly(self, indices: Indices, values: NDArray[Any]) -> None:
        self.segmentation[indices] = values
