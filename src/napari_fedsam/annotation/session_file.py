"""A session on disk: a log that only grows, so that nothing written before can be lost.

After a line that names the format come records: a kind (one byte), a length, a checksum, the
content. "S" is the session's state as JSON, the last one counts; "E" is one change of the
segmentation. A record that is not complete (the machine lost power) ends the log.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.cases.case import Structure

SUFFIX = ".fedsam"
_FORMAT = b"napari-fedsam session 1\n"
_HEAD = struct.Struct("<cQI")
_STATE, _EDIT = b"S", b"E"


class SavedPlace(BaseModel):
    """A slice and structure, with its open prompts, or with the case that was kept of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis: int
    index: int
    structure: int
    prompts: tuple[dict[str, Any], ...] = ()
    case: str | None = None


class SessionState(BaseModel):
    """Everything of a session but the segmentation.

    Attributes
    ----------
    scan : str
        Its name for people.
    source : str
        The file or folder it came from.
    fingerprint : str
        Of its voxels and geometry, see `Scan.fingerprint`.
    axis, index : int
        The slice on screen.
    structure : int
        The chosen structure's value.
    window : (float, float)
    structures : tuple of Structure
    preserve_others : bool
    linked : bool
        Whether other open scans are linked by the crosshair.
    crosshair : (float, float, float) or None
        Its physical point in mm.
    places : tuple of SavedPlace
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scan: str
    source: str
    fingerprint: str
    axis: int
    index: int
    structure: int
    window: tuple[float, float]
    structures: tuple[Structure, ...]
    preserve_others: bool
    linked: bool = False
    crosshair: tuple[float, float, float] | None = None
    places: tuple[SavedPlace, ...]


@dataclass(frozen=True, eq=False)
class SavedSession:
    """What a session file holds: its last state and the changes of the segmentation up to it."""

    state: SessionState
    edits: tuple[LabelEdit, ...]


class SessionLog:
    """Appends to a session file; each call is on the disk when it returns.

    Parameters
    ----------
    path : Path
        A new file, or one that is replaced.

    Raises
    ------
    AnnotationError
        When it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with told_as_unsaved(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(_FORMAT)

    def append(self, edits: Iterable[LabelEdit], state: SessionState) -> None:
        """Add changes of the segmentation, and the state after them.

        Raises
        ------
        AnnotationError
            When the disk does not take it, or someone has removed the file.
        """
        records = [_record(_EDIT, _edit_to_bytes(edit)) for edit in edits]
        records.append(_record(_STATE, state.model_dump_json().encode()))
        # A file that is gone must not come back with a part of the session.
        with told_as_unsaved(self.path), self.path.open("rb+") as file:
            file.seek(0, os.SEEK_END)
            file.write(b"".join(records))
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def told_as_unsaved(path: Path) -> Iterator[None]:
    """Turn operating-system errors of the block into an `AnnotationError` that names the folder."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise AnnotationError(
            f"The session could not be saved in {path.parent.name} ({cause}): free some space or "
            "allow writing there; your work stays open here."
        ) from error


def read_session(path: Path) -> SavedSession:
    """Read a session file.

    Raises
    ------
    AnnotationError
        When it cannot be read, or holds no complete state.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnnotationError(
            f"The session {path.name} could not be read ({error.strerror}): choose another."
        ) from error
    state, edits, pending = None, [], []
    try:
        for kind, payload in _records(content):
            if kind == _EDIT:
                pending.append(_edit_from_bytes(payload))
            else:
                state = SessionState.model_validate_json(payload)
                edits += pending
                pending = []
    except (ValueError, ValidationError, KeyError, TypeError) as error:
        raise AnnotationError(
            f"{path.name} is no session of this version: choose another file."
        ) from error
    if state is None:
        raise AnnotationError(f"{path.name} holds no session: choose another file.")
    return SavedSession(state, tuple(edits))


def _record(kind: bytes, payload: bytes) -> bytes:
    return _HEAD.pack(kind, len(payload), zlib.crc32(payload)) + payload


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not content.startswith(_FORMAT):
        raise ValueError("another format")
    place = len(_FORMAT)
    while place + _HEAD.size <= len(content):
        kind, length, checksum = _HEAD.unpack_from(content, place)
        place += _HEAD.size
        payload = content[place : place + length]
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield kind, payload
        place += length


def _edit_to_bytes(edit: LabelEdit) -> bytes:
    parts = (edit.where, *edit.values)
    head = {
        "corner": edit.corner,
        "size": edit.size,
        "dtype": edit.dtype.str,
        "lengths": [len(part) for part in parts],
    }
    return json.dumps(head).encode() + b"\n" + b"".join(parts)


def _edit_from_bytes(payload: bytes) -> LabelEdit:
    text, _, rest = payload.partition(b"\n")
    head = json.loads(text)
    ends = np.cumsum(head["lengths"])
    where, before, after = (
        rest[end - length : end] for end, length in zip(ends, head["lengths"], strict=True)
    )
    dtype = np.dtype(head["dtype"])
    return LabelEdit(tuple(head["corner"]), tuple(head["size"]), where, (before, after), dtype)
