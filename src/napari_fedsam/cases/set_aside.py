"""Broken cases are moved out of the way with a reason: never silently used, never lost."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from napari_fedsam.cases.index import origin_of
from napari_fedsam.cases.layout import REASON, SET_ASIDE, SPLITS, fsync_file
from napari_fedsam.cases.split import remember
from napari_fedsam.files import fsync_folder, make_private_folder

_NAME = re.compile(r"([0-9a-f]{16})(-\d+)?")
_PSEUDONYM = re.compile(r"^(?:Scan|Patient): ([0-9a-f]{16})$", re.MULTILINE)


@dataclass(frozen=True)
class SetAsideCase:
    """A broken case in the folder `set-aside`.

    Attributes
    ----------
    id : str
        The case.
    folder : Path
        Where its files are now.
    reason : str
        What is wrong with it.
    pseudonyms : tuple of str
        Of its scan and patient; empty when nothing tells whose it was.
    """

    id: str
    folder: Path
    reason: str
    pseudonyms: tuple[str, ...]


def set_aside(store: Path, case_id: str, reason: str) -> Path:
    """Move a broken case into `set-aside` with a `reason.txt`, and remember its scan's split.

    Only safe while holding the store's lock.

    Returns
    -------
    Path
        Where the case is now.

    Raises
    ------
    OSError
        When it cannot be moved; it then stays where it is.
    """
    folder = store / case_id
    origin = origin_of(folder, store)
    if origin is not None:
        remember(store / SPLITS, origin)
    # The reason comes first: after a crash in between, the case is found broken once more.
    whose = f"Scan: {origin.scan}\nPatient: {origin.patient}\n" if origin else ""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    (folder / REASON).write_text(f"{reason}\nSet aside: {when}\n{whose}", encoding="utf-8")
    fsync_file(folder / REASON)
    parent = make_private_folder(store / SET_ASIDE)
    target = parent / case_id
    number = 2
    while target.exists():
        target = parent / f"{case_id}-{number}"
        number += 1
    folder.rename(target)
    fsync_folder(parent)
    fsync_folder(store)
    return target


def list_set_aside(store: Path) -> Iterator[SetAsideCase]:
    """Yield the cases in `set-aside`, by name."""
    parent = store / SET_ASIDE
    if not parent.is_dir():
        return
    for folder in sorted(parent.iterdir()):
        name = _NAME.fullmatch(folder.name)
        if name is None or not folder.is_dir():
            continue
        note = _read_note(folder)
        reason = note.partition("\n")[0] or "no reason was noted"
        yield SetAsideCase(name[1], folder, reason, tuple(_PSEUDONYM.findall(note)))


def _read_note(folder: Path) -> str:
    try:
        return (folder / REASON).read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
