"""The annotation session: prompts in, previews out, accepted masks kept as cases.

State without a window: views listen to the signals and call the methods, all in one thread. The
slow steps are handed out as work (`session.answering`) and may run in another.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_fedsam.annotation.acceptance import Acceptance, AtOnce, DiskJobs
from napari_fedsam.annotation.answering import Answering
from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.label_edit import Indices, LabelEdit
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.new_case import NO_MODEL, new_case_of
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
    write_labels : callable
        Writes values at indices of the segmentation; a view replaces it to keep its own history.
    """

    ask_changed: ClassVar[Signal] = Signal()
    model_changed: ClassVar[Signal] = Signal()
    accepted: ClassVar[Signal] = Signal(Acceptance)
    withdrawn: ClassVar[Signal] = Signal(Acceptance)
    failed: ClassVar[Signal] = Signal(Exception)

    def __init__(
        self, store: CaseStore, *, annotator: str = "", disk: DiskJobs | None = None
    ) -> None:
        self.store = store
        self.annotator = annotator
        self.view = Viewpoint()
        self.answering = Answering(self.view, lambda: self.ask)
        self.auto_propose = False
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
        self._history: list[tuple[Place, Ask] | Acceptance] = []

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

    def close_scan(self) -> None:
        """Forget the scan with its prompts and undo steps; kept cases stay."""
        self._look_at(None)

    def _look_at(self, scan: Scan | None) -> None:
        self.view.open(scan)
        self._forget()
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

    def set_ask(self, ask: Ask) -> None:
        """Replace the prompts of this place (one undo step).

        Raises
        ------
        AnnotationError
            When no scan is open.
        """
        self._need_scan()
        if ask != self.ask:
            self._history.append((self.view.place, self.ask))
            self._put_ask(self.view.place, ask)

    def add_click(self, x: float, y: float, *, positive: bool = True) -> None:
        """Add a click at (x, y) in pixels of the slice."""
        self.set_ask(self.ask.with_click(x, y, positive=positive))

    def add_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Add a box in pixels of the slice."""
        self.set_ask(self.ask.with_box((x0, y0, x1, y1)))

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

    def undo(self) -> bool:
        """Take back the last change of prompts or the last accept, wherever it was made.

        Returns
        -------
        bool
            False when there is nothing to take back.
        """
        if not self._history:
            return False
        step = self._history.pop()
        if isinstance(step, Acceptance):
            self._go_to(step.place)
            self._take_back(step)
            self._disk.run(
                lambda: step.withdraw(self.store),
                lambda _: self.withdrawn.emit(step),
                self.failed.emit,
            )
        else:
            place, ask = step
            self._go_to(place)
            self._put_ask(place, ask)
        return True

    # --- accepting

    def accept(self) -> Acceptance:
        """Accept the preview with what was drawn by hand, or alone what was drawn by hand.

        The mask goes into the segmentation and, with its slice, into the training set, where it
        replaces what this session kept of the same slice and structure before.

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
            earlier = self._accepted.get(place)
            by_hand = mask if earlier is None else mask & ~earlier.new.mask
            mask = by_hand | self.preview.mask
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
                model=preview.model.provenance if preview else NO_MODEL,
                annotator=self.annotator,
                seconds=now - self._started.pop(place, now),
                false_positive_pixels=proposed,
            ),
            edit=LabelEdit.giving(self.segmentation, place.slice, place.structure, mask),
            supersedes=self._accepted.get(place),
            false_positive_pixels=proposed,
        )
        self.write_labels(acceptance.edit.indices, acceptance.edit.after)
        self._accepted[place] = acceptance
        self._history.append(acceptance)
        self._put_ask(place, Ask())
        self._disk.run(
            lambda: acceptance.keep(self.store),
            lambda _: self.accepted.emit(acceptance),
            lambda error: self._could_not_keep(acceptance, error),
        )
        return acceptance

    def _could_not_keep(self, acceptance: Acceptance, error: FedSamError) -> None:
        """Leave everything as it was before accepting, so that it can be tried again."""
        if acceptance in self._history:
            self._history.remove(acceptance)
            self._take_back(acceptance)
        self.failed.emit(error)

    def _take_back(self, acceptance: Acceptance) -> None:
        reverse = acceptance.edit.reversed_on(self.segmentation)
        self.write_labels(reverse.indices, reverse.after)
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
                self._asks[place] = Ask(proposal=True)
        preview = self.preview
        if preview is not None and preview.place != self.view.place:
            self.answering.drop_preview()
        self._show_ask()

    def _show_ask(self) -> None:
        self.ask_changed.emit()
        if self.ask.is_empty:
            self.answering.drop_preview()
        self.answering.work_wanted.emit()

    def _write_directly(self, indices: Indices, values: NDArray[Any]) -> None:
        self.segmentation[indices] = values
