"""One writer at a time in a folder that several processes use."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from napari_fedsam.cases.errors import CaseStoreError
from napari_fedsam.cases.layout import LOCK

_PATIENCE_SECONDS = 60.0


class FolderLock:
    """A lock of a folder, for processes and threads; the system frees it when a process dies.

    Parameters
    ----------
    folder : Path
        An existing folder.
    patience : float
        Seconds to wait for another holder.
    """

    def __init__(self, folder: Path, patience: float = _PATIENCE_SECONDS) -> None:
        self._folder = folder
        self._lock = FileLock(folder / LOCK, timeout=patience)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for a block; a thread that holds it already may enter again.

        Raises
        ------
        CaseStoreError
            When another program keeps it too long.
        """
        try:
            self._lock.acquire()
        except Timeout as error:
            raise CaseStoreError(
                f"Another program keeps {self._folder} busy; close it and try again."
            ) from error
        try:
            yield
        finally:
            self._lock.release()
