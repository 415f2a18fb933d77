"""Removing cases so that a crash leaves nothing half visible.

A case is first renamed to a hidden folder; then its files are removed, the deletion is logged, and
the hidden folder goes last. Whatever was interrupted is finished at the next opening.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from napari_fedsam.cases.case import DeletionReport
from napari_fedsam.cases.index import recorded_origin
from napari_fedsam.cases.layout import (
    DELETED,
    DELETIONS,
    FORGOTTEN,
    RECORD,
    SPLITS,
)
from napari_fedsam.cases.split import forget, remember
from napari_fedsam.files import fsync_folder

_log = logging.getLogger(__name__)
_ID_LENGTH = 16

# What training and annotating keep beside the store, and what their entries are called.
_FEATURES = ("cache", "encoded")
_FEATURE_ENTRY = re.compile(r"\.?[0-9a-f]{64}([.-]\w+)*")


def delete_folders(
    store: Path,
    folders: Iterable[tuple[str, Path]],
    *,
    forget_patient: bool,
    images_stay: bool = False,
) -> None:
    """Remove case folders for good.

    Parameters
    ----------
    store : Path
        The store's folder; its lock must be held.
    folders : iterable of (str, Path)
        Case ids and their folders.
    forget_patient : bool
        Also forget which split their scans and patients were in.
    images_stay : bool
        Whether their images are still being annotated, so that what the encoder made of them may
        stay, too.

    Raises
    ------
    OSError
        When files resist; the cases that were hidden by then are removed at the next opening.
    """
    kind = FORGOTTEN if forget_patient else DELETED
    hidden = []
    for case_id, folder in folders:
        target = store / f"{kind}{case_id}-{secrets.token_hex(4)}"
        folder.rename(target)
        hidden.append(target)
    fsync_folder(store)
    if not images_stay:
        _forget_features(store)
    for target in hidden:
        _finish(store, target)


def _forget_features(store: Path) -> None:
    """Remove the folders of encoded images beside a store; they are made again when needed.

    Their entries do not tell which image they were made from, and could be turned back into it. A
    training that is under way keeps nothing more, for its folder is gone.
    """
    for name in _FEATURES:
        folder = store.parent / name
        for entry in list(folder.iterdir()) if folder.is_dir() else ():
            if not _FEATURE_ENTRY.fullmatch(entry.name):
                continue
            # Who made it may take it away, too.
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        # It stays where it holds anything else.
        with contextlib.suppress(OSError):
            folder.rmdir()


def finish_deletions(store: Path) -> None:
    """Complete what was interrupted; only safe while holding the store's lock."""
    for kind in (DELETED, FORGOTTEN):
        for hidden in sorted(store.glob(f"{kind}*")):
            try:
                _forget_features(store)
                _finish(store, hidden)
            except OSError as error:
                _log.warning("A deleted case's files are still there: %s", error.strerror)


def describe_remains(count: int, store: Path, unattributed: int = 0) -> str:
    """Say in plain words what a deletion of `count` cases cannot remove.

    Parameters
    ----------
    count : int
        How many cases are gone.
    store : Path
        The store's folder.
    unattributed : int
        Broken cases set aside of which nobody can tell whose they are.
    """
    cases = "1 case is" if count == 1 else f"{count} cases are"
    text = (
        f"{cases} gone from {store}: images, masks, thumbnails, records, and what the encoder made "
        "of the images. Models trained before "
        "this deletion still carry the influence of these cases; shared parameters that were "
        "already sent to a federation cannot be recalled, nor can what other sites made of them. "
        "To remove the influence at this site, go back to a model version from before these cases "
        "or train anew from the base model. Copies that were exported or backed up are not touched."
    )
    if unattributed:
        text += (
            f" {unattributed} broken case(s) in the folder set-aside no longer tell whose they "
            "are; look at them there and delete them by their ids."
        )
    return text


def report(ids: Iterable[str], store: Path, unattributed: int = 0) -> DeletionReport:
    """Build the report of a finished deletion."""
    gone = tuple(ids)
    return DeletionReport(gone, describe_remains(len(gone), store, unattributed))


def _finish(store: Path, hidden: Path) -> None:
    # Images go first: that makes room on a full disk for the log. The record tells whose they were.
    for path in hidden.iterdir():
        if path.name == RECORD:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    forgotten = hidden.name.startswith(FORGOTTEN)
    case_id = hidden.name.removeprefix(FORGOTTEN if forgotten else DELETED)[:_ID_LENGTH]
    origin = recorded_origin(hidden)
    if origin is not None and forgotten:
        forget(store / SPLITS, (origin.scan, origin.patient))
    elif origin is not None:
        remember(store / SPLITS, origin)
    _log_deletion(store / DELETIONS, case_id)
    shutil.rmtree(hidden)
    fsync_folder(store)


def _log_deletion(path: Path, case_id: str) -> None:
    """Append the id once, on a line of its own even after a torn line."""
    known = path.read_text("utf-8", "replace") if path.exists() else ""
    if f'"{case_id}"' in known:
        return
    when = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"id": case_id, "deleted": when}) + "\n"
    separator = "" if known.endswith("\n") or not known else "\n"
    with path.open("a", encoding="utf-8") as handle:
        handle.write(separator + line)
        handle.flush()
        os.fsync(handle.fileno())
