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
from collections.abc import Iterable, Set
from datetime import UTC, datetime
from pathlib import Path

from napari_fedsam.cases.case import DeletionReport
from napari_fedsam.cases.errors import CaseStoreError
from napari_fedsam.cases.index import recorded_origin
from napari_fedsam.cases.layout import (
    DELETED,
    DELETIONS,
    FORGOTTEN,
    RECORD,
    SECRET,
    SPLITS,
)
from napari_fedsam.cases.pseudonyms import Pseudonyms, open_pseudonyms
from napari_fedsam.cases.split import forget, remember
from napari_fedsam.files import fsync_folder

_log = logging.getLogger(__name__)
_ID_LENGTH = 16

# What training and annotating keep beside the store, and what their entries are called.
_FEATURES = ("cache", "encoded")
_FEATURE_ENTRY = re.compile(r"\.?[0-9a-f]{64}([.-]\w+)*")

# Where annotating keeps sessions beside the store, and how these name their scan and its cases.
_SESSIONS = tuple(
    f"{profile}{sessions}"
    for profile in ("", "profiles/*/")
    for sessions in ("sessions/*.fedsam", "worklists/*/*.fedsam")
)
_SESSION_SCAN = re.compile(rb'"fingerprint":"([0-9a-f]{64})"')
_SESSION_CASE = re.compile(rb'"case":"([0-9a-f]{16})"')


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
        Also forget which split their scans and patients were in, and the sessions of the scans.
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
    _forget_sessions_of(store, hidden)
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


def forget_sessions(store: Path, scans: Set[str], cases: Set[str] = frozenset()) -> None:
    """Remove the sessions of scans beside a store: they hold masks, and where a scan's file is.

    Each session is of one scan. A window that has the scan open writes a new one when somebody
    goes on with it.

    Parameters
    ----------
    store : Path
        The store's folder; its lock must be held.
    scans : set of str
        Pseudonyms of the scans.
    cases : set of str
        Ids of cases; a session that names one of them goes, too.

    Raises
    ------
    OSError
        When files resist.
    """
    pseudonyms = _known_pseudonyms(store)
    for path in [path for pattern in _SESSIONS for path in store.parent.glob(pattern)]:
        # Who made it may take it away, too.
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            named = {case.decode() for case in _SESSION_CASE.findall(content)}
            if named & cases or _scans_of(content, pseudonyms) & scans:
                _remove_session(path)


def _known_pseudonyms(store: Path) -> Pseudonyms | None:
    """Open the key of the pseudonyms; None where it is lost."""
    try:
        # Where no case is left, opening it would make a new one.
        return open_pseudonyms(store / SECRET) if (store / SECRET).exists() else None
    except CaseStoreError:
        return None


def _scans_of(session: bytes, pseudonyms: Pseudonyms | None) -> set[str]:
    if pseudonyms is None:
        return set()
    return {pseudonyms.of(key.decode()) for key in set(_SESSION_SCAN.findall(session))}


def _remove_session(path: Path) -> None:
    path.unlink()
    # A window that has the session open holds its lock.
    with contextlib.suppress(OSError):
        path.with_suffix(".lock").unlink()


def _forget_sessions_of(store: Path, hidden: Iterable[Path]) -> None:
    """Remove the sessions of the scans of hidden cases whose patients are forgotten."""
    forgotten = [folder for folder in hidden if folder.name.startswith(FORGOTTEN)]
    origins = [recorded_origin(folder) for folder in forgotten]
    if forgotten:
        forget_sessions(
            store,
            {origin.scan for origin in origins if origin is not None},
            {_case_id(folder) for folder in forgotten},
        )


def finish_deletions(store: Path) -> None:
    """Complete what was interrupted; only safe while holding the store's lock."""
    for kind in (DELETED, FORGOTTEN):
        for hidden in sorted(store.glob(f"{kind}*")):
            try:
                _forget_features(store)
                _forget_sessions_of(store, [hidden])
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
        "or train anew from the base model. Sessions, which hold masks and the path "
        "of the scan's file, go when a patient is deleted, not with a single case; that of a scan "
        "that is open in a window is written anew when somebody goes on with it. Worklists still "
        "name the files. Copies that were exported or backed up are not touched, nor are masks and "
        "sessions that were saved as files."
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
    origin = recorded_origin(hidden)
    if origin is not None and hidden.name.startswith(FORGOTTEN):
        forget(store / SPLITS, (origin.scan, origin.patient))
    elif origin is not None:
        remember(store / SPLITS, origin)
    _log_deletion(store / DELETIONS, _case_id(hidden))
    shutil.rmtree(hidden)
    fsync_folder(store)


def _case_id(hidden: Path) -> str:
    return hidden.name.removeprefix(FORGOTTEN).removeprefix(DELETED)[:_ID_LENGTH]


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
