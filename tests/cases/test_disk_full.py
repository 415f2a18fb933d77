"""Disks that are full and folders that cannot be written."""

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from napari_fedsam.cases.errors import CaseStoreError
from napari_fedsam.cases.locking import FolderLock
from napari_fedsam.cases.store import CaseStore


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let the system refuse to write more than `size` bytes to any file."""
    resource = pytest.importorskip("resource", reason="Windows cannot limit the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("limit", [0, 100, 400, 1000, 2000])
def test_a_full_disk_leaves_nothing_behind(store, make_case, limit) -> None:
    noise = np.random.default_rng(0).integers(-2000, 2000, (64, 64)).astype(np.int16)
    record = store.accept(make_case())
    before = everything(store.folder)
    with files_limited_to(limit), pytest.raises(CaseStoreError, match=r"disk of .* is full"):
        store.accept(make_case(image=noise, mask=noise > 0))
    assert everything(store.folder) == before
    assert store.records() == [record]
    assert store.accept(make_case(image=noise, mask=noise > 0)) in store.records()


def test_cases_can_be_deleted_from_a_full_disk(store, make_case) -> None:
    record = store.accept(make_case())
    with files_limited_to(0), pytest.raises(CaseStoreError, match="The deletion is not complete"):
        store.delete(record.id)
    assert store.records() == []
    assert not list(store.folder.rglob("image.nrrd"))
    reopened = CaseStore(store.folder)
    assert not list(reopened.folder.glob(".deleted-*"))
    assert record.id in (store.folder / "deletions.jsonl").read_text()


def test_a_full_disk_while_exporting_leaves_nothing(store, make_case, tmp_path) -> None:
    store.accept(make_case())
    with files_limited_to(100), pytest.raises(CaseStoreError, match="is full"):
        store.export(tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["cases"]


def refuse(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> Callable[[], None]:
    monkeypatch.setattr(Path, name, refuse)
    return monkeypatch.undo


@pytest.mark.parametrize("step", ["mkdir", "rename", "write_bytes"])
def test_missing_permission_is_told_and_leaves_nothing(store, make_case, monkeypatch, step) -> None:
    before = everything(store.folder)
    allow = forbid(monkeypatch, step)
    with pytest.raises(CaseStoreError, match="not kept: no permission to use"):
        store.accept(make_case())
    allow()
    assert everything(store.folder) == before
    assert not list(store.folder.glob(".new-*"))


@pytest.mark.skipif(
    sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="file modes bind neither the administrator nor Windows",
)
def test_a_folder_without_rights_cannot_be_opened(tmp_path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CaseStoreError, match="no permission"):
            CaseStore(tmp_path / "cases")
    finally:
        tmp_path.chmod(0o700)


def test_a_rename_that_is_not_durable_takes_the_case_back(store, make_case, monkeypatch) -> None:
    calls = []

    def fail_for_the_store(path: Path) -> None:
        calls.append(path)
        if path == store.folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("napari_fedsam.cases.store.fsync_folder", fail_for_the_store)
    with pytest.raises(CaseStoreError, match="check the disk"):
        store.accept(make_case())
    assert calls == [store.folder]
    assert store.records() == []
    assert not list(store.folder.glob(".new-*"))


def test_a_store_that_disappears_is_told(store, make_case) -> None:
    store.accept(make_case())
    shutil.rmtree(store.folder)
    with pytest.raises(CaseStoreError, match="could not be read"):
        store.records()


def test_a_lock_that_is_held_too_long_is_told(tmp_path) -> None:
    with (
        FolderLock(tmp_path).held(),
        pytest.raises(CaseStoreError, match="Another program"),
        FolderLock(tmp_path, patience=0).held(),
    ):
        pytest.fail("two holders")
