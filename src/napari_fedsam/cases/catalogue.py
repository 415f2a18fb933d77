"""The records of all cases in memory, kept in step with the folders."""

import contextlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from napari_fedsam.cases.case import CaseRecord
from napari_fedsam.cases.errors import (
    BrokenCaseError,
    CaseStoreError,
    NewerCaseError,
    no_such_case,
)
from napari_fedsam.cases.index import write_index
from napari_fedsam.cases.integrity import read_record
from napari_fedsam.cases.layout import case_names
from napari_fedsam.cases.locking import FolderLock
from napari_fedsam.cases.set_aside import set_aside

_log = logging.getLogger(__name__)


class Catalogue:
    """Knows the records of the cases in a folder, also those that other processes write.

    Parameters
    ----------
    folder : Path
        The store's folder.
    lock : FolderLock
        Held by whatever changes the folder.
    """

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        self._folder = folder
        self._lock = lock
        self._records: dict[str, CaseRecord] = {}
        # Held for moments only, never while waiting for the folder's lock.
        self._memory = threading.Lock()

    def records(self) -> list[CaseRecord]:
        """Return the known records, the oldest first."""
        with self._memory:
            known = list(self._records.values())
        return sorted(known, key=lambda record: (record.created, record.id))

    def refresh(self) -> None:
        """Notice what was added and removed; a broken record's case is set aside.

        Raises
        ------
        OSError
            When the folder cannot be listed.
        """
        names = set(case_names(self._folder))
        with self._memory:
            for gone in self._records.keys() - names:
                del self._records[gone]
            unknown = sorted(names - self._records.keys())
        broken = []
        for case_id in unknown:
            try:
                self.add(read_record(self._folder / case_id))
            except BrokenCaseError as error:
                broken.append(error)
            except NewerCaseError as error:
                _log.warning("%s", error)
            except OSError as error:
                _log.warning("Case %s cannot be read: %s", case_id, error.strerror)
        self._put_all_aside(broken)

    def add(self, record: CaseRecord) -> None:
        """Take a record in that has just been read or written."""
        with self._memory:
            self._records[record.id] = record

    def put_aside(self, error: BrokenCaseError) -> CaseStoreError:
        """Set a broken case aside, unless another process has just dealt with it.

        Returns
        -------
        CaseStoreError
            The error to tell: where the case is now, or that it is gone.

        Raises
        ------
        OSError
            When it cannot be moved.
        """
        with self._lock.held():
            told = self._move_aside(error)
            self.write_index()
        return told

    def write_index(self) -> None:
        """Write the index; a failure only leaves the old one, for the folders are what counts."""
        try:
            write_index(self._folder, self.records())
        except OSError as error:
            _log.warning("The index of the cases was not written: %s", error.strerror)

    def _move_aside(self, error: BrokenCaseError) -> CaseStoreError:
        if not (self._folder / error.case_id).is_dir():
            return no_such_case(error.case_id, self._folder)
        target = set_aside(self._folder, error.case_id, error.reason)
        with self._memory:
            self._records.pop(error.case_id, None)
        return BrokenCaseError(error.case_id, error.reason, target)

    def _put_all_aside(self, errors: Sequence[BrokenCaseError]) -> None:
        for error in errors:
            try:
                with self._lock.held():
                    told = self._move_aside(error)
            except OSError as reason:
                _log.warning("%s It could not be set aside: %s", error, reason.strerror)
            else:
                _log.warning("%s", told)
        if errors:
            # Not sooner: the index tells whose the others were.
            with contextlib.suppress(OSError), self._lock.held():
                self.write_index()
