"""Worklists on disk: one folder each, with the list's state and a session for every scan."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session_file import SUFFIX
from napari_fedsam.annotation.worklist import Worklist, WorklistState
from napari_fedsam.annotation.worklist_source import scans_of
from napari_fedsam.files import make_private_folder, write_text_atomically

_FILE = "worklist.json"


class WorklistFolder:
    """Where a site keeps its worklists.

    Parameters
    ----------
    folder : Path
        Created when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, origin: Path) -> tuple[Worklist, AnnotationError | None]:
        """List the scans of an origin and go on where one stopped (slow: reads folders).

        Returns
        -------
        worklist : Worklist
        problem : AnnotationError or None
            Why the list begins anew, when its state was damaged.

        Raises
        ------
        AnnotationError or ManifestError
            See `worklist_source.scans_of`.
        """
        origin = origin.resolve()
        paths = scans_of(origin)
        path = self._home(origin) / _FILE
        try:
            return Worklist(origin, paths, _read(path)), None
        except (OSError, ValidationError):
            problem = AnnotationError(
                f"What was kept of the worklist {origin.name} is damaged: it begins anew, and the "
                f"damaged file stays beside it, named {_FILE}.damaged."
            )
            path.replace(path.with_name(f"{_FILE}.damaged"))
            return Worklist(origin, paths), problem

    def save(self, state: WorklistState) -> None:
        """Write a worklist's state in one step.

        Raises
        ------
        AnnotationError
            When the disk does not take it.
        """
        try:
            home = make_private_folder(self._home(state.origin))
            write_text_atomically(home / _FILE, state.model_dump_json(indent=1))
        except OSError as error:
            raise AnnotationError(
                f"The worklist {state.origin.name} could not be saved ({error.strerror}): free "
                "some space; your work stays open here."
            ) from error

    def session_path(self, origin: Path, scan: Path) -> Path:
        """Return the file that keeps the session of one of a worklist's scans."""
        return self._home(origin) / f"{_digest(scan)}{SUFFIX}"

    def newest(self) -> Path | None:
        """Return the origin of the worklist that was worked on last, or None."""
        files = sorted(self._folder.glob(f"*/{_FILE}"), key=lambda path: path.stat().st_mtime)
        for path in reversed(files):
            try:
                state = _read(path)
            except (OSError, ValidationError):
                continue
            if state is not None and state.origin.exists():
                return state.origin
        return None

    def _home(self, origin: Path) -> Path:
        return self._folder / _digest(origin)


def _read(path: Path) -> WorklistState | None:
    if not path.exists():
        return None
    return WorklistState.model_validate_json(path.read_bytes())


def _digest(path: Path) -> str:
    # The name of a file must not tell a patient's.
    return hashlib.sha256(str(path).encode()).hexdigest()[:24]
