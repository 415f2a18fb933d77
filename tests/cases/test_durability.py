"""What is on the disk before a case becomes visible."""

import os
from pathlib import Path

import pytest
import SimpleITK as sitk

from napari_fedsam.cases.errors import CaseStoreError


def test_every_file_is_forced_to_the_disk_before_the_case_appears(
    store, make_case, monkeypatch
) -> None:
    synced: set[int] = set()
    synced_before_rename: set[int] = set()
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        synced_before_rename.update(synced)
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    folder = store.case_folder(store.accept(make_case()).id)
    assert {path.stat().st_ino for path in folder.iterdir()} <= synced_before_rename
    if os.name == "posix":
        assert folder.stat().st_ino in synced_before_rename
        assert store.folder.stat().st_ino in synced


def test_an_image_that_was_written_wrong_is_noticed(store, make_case, monkeypatch) -> None:
    write = sitk.WriteImage

    def lose_the_pixels(image: sitk.Image, *arguments: object, **options: object) -> None:
        write(image * 0, *arguments, **options)

    monkeypatch.setattr(sitk, "WriteImage", lose_the_pixels)
    with pytest.raises(CaseStoreError, match="was not written whole"):
        store.accept(make_case())
    assert store.records() == []
    assert not list(store.folder.glob(".new-*"))
