"""Keeps the session on disk while a person works, and finds what an earlier one left behind."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.session_file import (
    SUFFIX,
    SavedSession,
    SessionLog,
    SessionState,
    read_session,
    told_as_unsaved,
)
from napari_fedsam.annotation.session_state import state_of
from napari_fedsam.files import atomic_path

_KEPT = 5
"""How many earlier sessions are kept."""


class Autosave:
    """Writes what changed in a session since the last time.

    Collecting what to write is quick and belongs to the session's thread; the job that is handed
    out waits for the disk and belongs to another.

    Parameters
    ----------
    session : AnnotationSession
    folder : Path
        Where session files are kept; an attribute, too.
    """

    def __init__(self, session: AnnotationSession, folder: Path) -> None:
        self._session = session
        self.folder = folder
        self._file = _OpenFile(folder)
        self._begin()
        session.edited.connect(self._edited)
        session.opened.connect(self._begin)

    def _begin(self) -> None:
        """Start a new file once there is something to write for the scan that was opened."""
        self._file.close()
        self._file = _OpenFile(self.folder)
        self._pending: list[LabelEdit] = []
        self._written = ""
        self._is_new = True

    def _edited(self, edit: LabelEdit) -> None:
        self._pending.append(edit)

    def job(self) -> Callable[[], None] | None:
        """Return what writes the changes since the last call, or None when there are none.

        It raises an `AnnotationError` when the disk does not take them; the next one then writes
        everything.
        """
        session = self._session
        scan = session.scan
        if scan is None or not scan.source.exists():
            return None
        if self._file.lacks_a_part:
            self._begin()
        state = state_of(session)
        text = state.model_dump_json()
        is_untouched = self._is_new and not (
            state.places or self._pending or session.segmentation.any()
        )
        if is_untouched or (text == self._written and not self._pending):
            return None
        if self._file.is_removed:
            self._begin()
        edits, self._pending, self._written = self._pending, [], text
        present = session.segmentation if self._is_new else None
        self._is_new = False
        file = self._file

        def write() -> None:
            # On a large scan both take a while. Changes made meanwhile are written once more.
            first = [] if present is None else [LabelEdit.from_nothing(present)]
            complete = state.model_copy(update={"fingerprint": scan.fingerprint})
            file.append([*first, *edits], complete)

        return write

    def close(self) -> None:
        """Let another window restore what was written."""
        self._session.edited.disconnect(self._edited)
        self._session.opened.disconnect(self._begin)
        self._file.close()


class _OpenFile:
    """The file of the scan that is open: made by its first write, locked until it is closed.

    It may be written in one thread and closed in another.

    Attributes
    ----------
    lacks_a_part : bool
        Whether something could not be written; nothing more is then.
    """

    def __init__(self, folder: Path) -> None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09}{SUFFIX}"
        self._path = folder / name
        self._lock = FileLock(self._path.with_suffix(".lock"), thread_local=False)
        self._log: SessionLog | None = None
        self._is_closed = False
        self.lacks_a_part = False

    @property
    def is_removed(self) -> bool:
        """Whether someone has removed it, for instance with its patient's cases."""
        return self._log is not None and not self._path.exists()

    def append(self, edits: Iterable[LabelEdit], state: SessionState) -> None:
        """Write a part (slow).

        Raises
        ------
        AnnotationError
            When the disk does not take it.
        """
        if self.lacks_a_part:
            return
        is_first = self._log is None
        try:
            if self._log is None:
                self._log = self._make()
            self._log.append(edits, state)
        except AnnotationError:
            self.lacks_a_part = True
            if is_first:
                self._discard()
            raise
        finally:
            if self._is_closed:
                self._lock.release()

    def _make(self) -> SessionLog:
        with told_as_unsaved(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _drop_oldest(self._path.parent)
            self._lock.acquire(timeout=0)
        return SessionLog(self._path)

    def _discard(self) -> None:
        """Remove what holds nothing: it must not count among those that are kept."""
        self._lock.release()
        with suppress(OSError):
            _remove(self._path)

    def close(self) -> None:
        """Let others have it; a write that is under way may still end."""
        self._is_closed = True
        self._lock.release()


@dataclass(frozen=True, eq=False)
class LeftBehind:
    """A session that is open nowhere, as it was last written.

    Attributes
    ----------
    path : Path
        Its file.
    saved : SavedSession
    written : float
        When, in seconds since 1970.
    """

    path: Path
    saved: SavedSession
    written: float

    def discard(self) -> None:
        """Remove it from the disk."""
        _remove(self.path)


def newest_left_behind(folder: Path) -> LeftBehind | None:
    """Return the newest session that no running window holds, or None (slow: reads files)."""
    for path in sorted(folder.glob(f"*{SUFFIX}"), reverse=True):
        if not _is_free(path):
            continue
        try:
            saved = read_session(path)
        except AnnotationError:
            # It broke off before its first complete record.
            continue
        return LeftBehind(path, saved, path.stat().st_mtime)
    return None


def save_session(session: AnnotationSession, path: Path) -> Callable[[], None]:
    """Return a job that writes the session as one file of its own.

    Raises
    ------
    AnnotationError
        When no scan is open.
    """
    scan = session.scan
    if scan is None:
        raise AnnotationError("There is no session to save: open a scan first.")
    state, segmentation = state_of(session), session.segmentation.copy()

    def write() -> None:
        complete = state.model_copy(update={"fingerprint": scan.fingerprint})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # An earlier session there must not be lost when this one cannot be written.
            with atomic_path(path) as temporary:
                SessionLog(temporary).append([LabelEdit.from_nothing(segmentation)], complete)
        except OSError as error:
            raise AnnotationError(
                f"The session could not be saved in {path.parent.name} ({error.strerror}): choose "
                "another folder, or free some space; your work stays open here."
            ) from error

    return write


def _drop_oldest(folder: Path) -> None:
    for old in sorted(folder.glob(f"*{SUFFIX}"))[:-_KEPT]:
        # One that cannot be removed does no harm.
        with suppress(OSError):
            _remove(old)


def _is_free(path: Path) -> bool:
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def _remove(path: Path) -> None:
    if _is_free(path):
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
