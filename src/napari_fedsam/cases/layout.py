"""Names of the files and folders that make up the training set on disk.

    <store>/<case id>/image.nrrd, mask.nrrd, thumbnail.png, case.json, record.sha256
    <store>/set-aside/<case id>/...            broken cases, with a reason.txt
    <store>/index.json                         rebuilt from the folders, for people to read
    <store>/deletions.jsonl                    ids of deleted cases
    <store>/splits.json                        splits of scans whose cases were deleted one by one
    <store>/secret.key                         key of the pseudonyms
    <store>/.lock, .new-*, .deleted-*, .forgotten-*    work in progress

Folders that begin with a dot are never read as cases; the next opening finishes or removes them.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from napari_fedsam.cases.ids import CASE_ID
from napari_fedsam.files import fsync_folder

IMAGE = "image.nrrd"
MASK = "mask.nrrd"
THUMBNAIL = "thumbnail.png"
RECORD = "case.json"
RECORD_CHECKSUM = "record.sha256"
REASON = "reason.txt"
CONTENT_FILES = (IMAGE, MASK, THUMBNAIL)

INDEX = "index.json"
DELETIONS = "deletions.jsonl"
SPLITS = "splits.json"
SECRET = "secret.key"  # noqa: S105 - a file name
SET_ASIDE = "set-aside"
LOCK = ".lock"

NEW = ".new-"
DELETED = ".deleted-"
FORGOTTEN = ".forgotten-"


def case_names(folder: Path) -> Iterator[str]:
    """Yield the names of the real folders inside `folder` that look like case ids.

    Raises
    ------
    OSError
        When the folder cannot be listed: an unplugged disk is not an empty store.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if CASE_ID.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                yield entry.name


def is_case_store(folder: Path) -> bool:
    """Whether a folder is, or may become, a store: it holds a store's files or nothing visible."""
    names = {entry.name for entry in folder.iterdir()}
    visible = {name for name in names if not name.startswith(".")}
    known = names & {LOCK, SECRET, INDEX, SET_ASIDE}
    return not visible or bool(known) or any(CASE_ID.fullmatch(name) for name in visible)


def fsync_file(path: Path) -> None:
    """Force a file's content to the disk."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def fsync_content(folder: Path) -> None:
    """Force every file of a folder, and the folder's own list of them, to the disk."""
    for path in folder.iterdir():
        fsync_file(path)
    fsync_folder(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what interrupted writers left behind; only safe while holding the store's lock."""
    for path in folder.glob(f"{NEW}*"):
        shutil.rmtree(path, ignore_errors=True)
    for name in (INDEX, SPLITS, SECRET):
        stem, suffix = Path(name).stem, Path(name).suffix
        for path in folder.glob(f".{stem}.*{suffix}"):
            path.unlink(missing_ok=True)
