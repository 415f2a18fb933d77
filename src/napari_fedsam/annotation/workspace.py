"""A scan that is being annotated: its prompts, its segmentation, and every step back and forth."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_fedsam.annotation.acceptance import Acceptance
from napari_fedsam.annotation.answering import Answering
from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.history import History, Step
from napari_fedsam.annotation.label_edit import Indices, LabelEdit
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.annotation.work import Place, Preview
from napari_fedsam.cases.case import Structure
from napari_fedsam.imaging.scan import Scan


@dataclass(frozen=True, eq=False)
class _PutAside:
    """What was done on a scan, while another one is open."""

    structures: tuple[Structure, ...]
    structure: Structure
    segmentation: NDArray[Any]
    asks: dict[Place, Ask]
    seconds: dict[Place, float]
    accepted: dict[Place, Acceptance]
    history: History

    def take_back(self, acceptance: Acceptance) -> None:
        """Make it what it was before something was accepted."""
        edit = acceptance.edit.reversed_on(self.segmentation)
        self.segmentation[edit.indices] = edit.after
        acceptance.leave(self.accepted)
        if not acceptance.ask.is_empty:
            self.asks[acceptance.place] = acceptance.ask


class Workspace:
    """What a session works on, and the steps that were taken.

    Attributes
    ----------
    view : Viewpoint
        Scan, slice, window and structure.
    answering : Answering
        Model, preview and pending work.
    segmentation : unsigned integer array in display order
        The accepted structure values.
    preserve_others : bool
        Whether accepted masks spare what other structures cover.
    write_labels : callable
        Writes values at indices of the segmentation; a view replaces it to show them.
    """

    ask_changed: ClassVar[Signal] = Signal()
    edited: ClassVar[Signal] = Signal(LabelEdit)
    preserve_changed: ClassVar[Signal] = Signal()
    failed: ClassVar[Signal] = Signal(Exception)

    def __init__(self) -> None:
        self.view = Viewpoint()
        self.answering = Answering(self.view, lambda: self.ask)
        self.preserve_others = False
        self.write_labels: Callable[[Indices, NDArray[Any]], None] = self._write_directly
        self._aside: dict[Scan, _PutAside] = {}
        self._forget()

    def _forget(self) -> None:
        """Begin anew on the scan that is open."""
        self.segmentation: NDArray[Any] = np.zeros(self.view.shape, np.uint8)
        self._asks: dict[Place, Ask] = {}
        self._started: dict[Place, float] = {}
        self._accepted: dict[Place, Acceptance] = {}
        self._history = History()

    def _put_aside(self) -> None:
        """Keep what was done on the open scan until it is opened again."""
        scan = self.view.scan
        if scan is not None and self.has_work:
            now = time.monotonic()
            self._aside[scan] = _PutAside(
                self.view.structures,
                self.view.structure,
                self.segmentation,
                self._asks,
                {place: now - started for place, started in self._started.items()},
                self._accepted,
                self._history,
            )

    def _take_up(self) -> None:
        """Go on with what was done before on the scan that is open."""
        aside = self._aside.pop(self.view.scan, None) if self.view.scan is not None else None
        if aside is None:
            return
        # Masks refer to structures by the values that they had.
        others = self.view.structures
        self.view.offer_structures(aside.structures)
        self.view.offer_more(others)
        self.view.choose_structure(aside.structure.value)
        now = time.monotonic()
        self.segmentation = aside.segmentation
        self._asks = aside.asks
        self._started = {place: now - seconds for place, seconds in aside.seconds.items()}
        self._accepted = aside.accepted
        self._history = aside.history

    def _take_back_aside(self, step: Step, acceptance: Acceptance) -> Scan | None:
        """Take a failed step back on the scan put aside that it was made on; return that scan."""
        for scan, aside in self._aside.items():
            if aside.history.drop(step):
                aside.take_back(acceptance)
                return scan
        return None

    def forget_scan(self, scan: Scan) -> None:
        """Forget what was done on a scan that was put aside; kept cases stay."""
        self._aside.pop(scan, None)

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

    @property
    def ask(self) -> Ask:
        """The prompts of the chosen structure on the slice on screen."""
        return self._asks.get(self.view.place, Ask())

    @property
    def asks(self) -> Mapping[Place, Ask]:
        """All that the person asked and has not accepted yet, by slice and structure."""
        return {place: ask for place, ask in self._asks.items() if not ask.automatic}

    @property
    def acceptances(self) -> Mapping[Place, Acceptance]:
        """What is accepted, by slice and structure."""
        return self._accepted

    @property
    def has_work(self) -> bool:
        """Whether something was done on the open scan, or is there to be undone."""
        begun = bool(self.asks or self._accepted) or not self._history.is_empty
        return self.scan is not None and (begun or bool(self.segmentation.any()))

    def offer_structures(self, structures: tuple[Structure, ...]) -> None:
        """Offer structures instead of the present ones, or beside those that there is work with.

        Raises
        ------
        AnnotationError
            When there is none, or no value is free.
        """
        if self.has_work:
            self.view.offer_more(structures)
        else:
            self.view.offer_structures(structures)

    def set_preserve_others(self, wanted: bool) -> None:
        """Let accepted masks spare what other structures cover, or overwrite it."""
        self.preserve_others = wanted
        self.preserve_changed.emit()

    def change(self, edit: LabelEdit) -> None:
        """Change the segmentation (one undo step)."""
        place, back = self.view.place, edit.swapped()
        self._edit(edit)
        self._history.record(
            Step(lambda: self._go_and_edit(place, back), lambda: self._go_and_edit(place, edit))
        )

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

    def _show_ask(self) -> None:
        self.ask_changed.emit()
        if self.ask.is_empty:
            self.answering.drop_preview()
        self.answering.use_foreseen()
        self.answering.work_wanted.emit()

    def _write_directly(self, indices: Indices, values: NDArray[Any]) -> None:
        self.segmentation[indices] = values
