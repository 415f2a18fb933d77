"""Folders that only their owner can open."""

import subprocess
import sys
from pathlib import Path

import pytest

from napari_fedsam import files
from napari_fedsam.files import make_private_folder


@pytest.fixture
def windows(monkeypatch, tmp_path: Path) -> list[list[str]]:
    """Windows, with the user's profile elsewhere; what is started there instead of being run."""
    started: list[list[str]] = []
    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "profile")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: started.append(command))
    return started


def test_on_windows_rights_are_set_once_when_the_folder_is_created(windows, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "versions"
    for _ in range(3):
        assert make_private_folder(folder) == folder
    assert [command[:2] for command in windows] == [["icacls", str(folder)]]
    assert "/inheritance:r" in windows[0]


def test_on_windows_a_folder_that_could_not_be_closed_is_not_left(
    windows, monkeypatch, tmp_path: Path
) -> None:
    def refuse(command, **_):
        raise subprocess.CalledProcessError(5, command)

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(subprocess.CalledProcessError):
        make_private_folder(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_on_windows_the_users_profile_is_private_already(windows, tmp_path: Path) -> None:
    make_private_folder(tmp_path / "profile" / "site")
    assert windows == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no modes")
def test_elsewhere_a_folder_that_exists_is_tightened_too(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "site"
    make_private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    make_private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
