"""Accepting masks: into the segmentation, and as cases into the training set."""

import time
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_fedsam.annotation.acceptance import Acceptance, AtOnce, DiskJobs
from napari_fedsam.annotation.accepted_mask import accepted_mask
from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.history import Step
from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.annotation.new_case import NO_MODEL, new_case_of
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.annotation.work import Place
from napari_fedsam.annotation.workspace import Workspace
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.scan import Scan


class Accepting(Workspace):
    """The part of a session that accepts masks and withdraws them.

    Parameters
    ----------
    store : CaseStore
        Where accepted masks are kept.
    annotator : str
        Who accepts them.
    disk : DiskJobs, optional
        Runs what waits for the disk; by default at once.
    """

    accepted: ClassVar[Signal] = Signal(Acceptance)
    withdrawn: ClassVar[Signal] = Signal(Acceptance)

    def __init__(
        self, store: CaseStore, *, annotator: str = "", disk: DiskJobs | None = None
    ) -> None:
        super().__init__()
        self.store = store
        self.annotator = annotator
        self._disk = disk or AtOnce()

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
        """Leave everything as it was before accepting, so that it can be tried again.

        What is on the disk all the same stays accepted, so that the next one replaces it.
        """
        if acceptance.record is None:
            if self._history.drop(step):
                self._take_back(acceptance)
            elif (scan := self._take_back_aside(step, acceptance)) is not None:
                error = AnnotationError(f"On {scan.name}, which is not shown now: {error}")
        self.failed.emit(error)

    def _take_back(self, acceptance: Acceptance) -> None:
        self._edit(acceptance.edit.reversed_on(self.segmentation))
        acceptance.leave(self._accepted)
        self._put_ask(acceptance.place, acceptance.ask)

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
