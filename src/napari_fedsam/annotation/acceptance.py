"""What was accepted, and how it is kept in or withdrawn from the local training set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.annotation.work import Place
from napari_fedsam.cases.case import CaseRecord, NewCase
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError


@dataclass(eq=False)
class Acceptance:
    """One accepted mask.

    Attributes
    ----------
    place : Place
        Slice and structure.
    ask : Ask
        The prompts that led to it.
    new : NewCase
        What goes into the training set.
    edit : LabelEdit
        What it changed in the segmentation.
    supersedes : Acceptance or None
        An earlier acceptance of the same place, whose case this one replaces.
    false_positive_pixels : int or None
        For an absent structure: the size of what the model had proposed, None when not asked.
    record : CaseRecord or None
        The case on disk; None while it is being written and after it was withdrawn.
    """

    place: Place
    ask: Ask
    new: NewCase
    edit: LabelEdit
    supersedes: "Acceptance | None" = None
    false_positive_pixels: int | None = None
    record: CaseRecord | None = None

    def keep(self, store: CaseStore) -> None:
        """Write the case and remove the one that it replaces (slow: waits for the disk).

        Raises
        ------
        CaseStoreError
            When it cannot be written, or the other one cannot be removed. `record` tells whether
            it is on the disk nevertheless.
        """
        if not self._is_in(store):
            self.record = store.accept(self.new)
        try:
            self._remove_earlier(store)
        except FedSamError:
            # A place has one case.
            self.remove(store)
            raise

    def withdraw(self, store: CaseStore) -> None:
        """Remove the case and bring back the one that it had replaced (slow).

        Where someone has deleted the case, the one before stays away, too.

        Raises
        ------
        CaseStoreError
            When it cannot be removed, or the other one cannot be written.
        """
        earlier = self._bring_back(store)
        try:
            self.remove(store)
        except FedSamError:
            # A place has one case.
            if earlier is not None:
                earlier.remove(store)
            raise

    def remove(self, store: CaseStore) -> None:
        """Remove the case unless someone has deleted it already (slow)."""
        if self.record is not None and self._is_in(store):
            try:
                store.delete(self.record.id, image_stays=True)
            except FedSamError:
                # Half deleted it is no case any more: the next opening of the store ends that.
                if self._is_in(store):
                    raise
        self.record = None

    def leave(self, accepted: dict[Place, "Acceptance"]) -> None:
        """Give the place back to what this replaced, or to nothing."""
        if accepted.get(self.place) is self:
            del accepted[self.place]
            if self.supersedes is not None:
                accepted[self.place] = self.supersedes

    def _remove_earlier(self, store: CaseStore) -> None:
        """Remove what this replaces, and what could not be removed when that replaced it."""
        earlier = self.supersedes
        while earlier is not None:
            earlier.remove(store)
            earlier = earlier.supersedes

    def _bring_back(self, store: CaseStore) -> "Acceptance | None":
        earlier = self.supersedes
        if earlier is None or earlier.record is not None or not self._is_in(store):
            return None
        earlier.record = store.accept(earlier.new)
        return earlier

    def _is_in(self, store: CaseStore) -> bool:
        record = self.record
        return record is not None and any(kept.id == record.id for kept in store.records())


class DiskJobs(Protocol):
    """Runs jobs one after another and reports each in the session's thread."""

    def run(
        self,
        job: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[FedSamError], None],
    ) -> None:
        """Run a job, then call one of the two."""
        ...


class AtOnce:
    """Runs each job here and now; a window runs them in a worker instead."""

    def run(
        self,
        job: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[FedSamError], None],
    ) -> None:
        """Run a job, then call one of the two."""
        try:
            result = job()
        except FedSamError as error:
            failed(error)
        else:
            done(result)
