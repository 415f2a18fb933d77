"""Durable and private files: atomic writes, checksums, owner-only folders."""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def make_private_folder(path: Path) -> Path:
    """Create a folder that only its owner can open, parents included.

    On POSIX systems the mode becomes 0700. On Windows a folder inside the user's profile already
    denies other users by inheritance; elsewhere the inherited rights of a folder that is created
    here are replaced by the owner's.

    Parameters
    ----------
    path : Path
        The folder; on POSIX systems one that exists is tightened.

    Returns
    -------
    Path
        The same path.
    """
    is_new = not path.is_dir()
    path.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        # It starts a program, and folders that exist are asked for every second.
        if is_new:
            try:
                _restrict_to_owner_on_windows(path)
            except BaseException:
                # Found the next time, it would be taken for a private one.
                path.rmdir()
                raise
    else:
        path.chmod(0o700)
    return path


def _restrict_to_owner_on_windows(path: Path) -> None:
    if path.resolve().is_relative_to(Path.home()):
        return
    import getpass
    import subprocess

    subprocess.run(
        ["icacls", str(path), "/inheritance:r", "/grant:r", f"{getpass.getuser()}:(OI)(CI)F"],
        check=True,
        capture_output=True,
    )


def fsync_folder(path: Path) -> None:
    """Make renames inside a folder durable (a no-op where folders cannot be synced)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """Create an empty file beside `path`, of a like name, that only its owner can read."""
    descriptor, name = tempfile.mkstemp(
        prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    return Path(name)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it once the block ends well.

    A reader sees the old file or the new one, never a part of it; the temporary file is removed
    when the block raises. The parent folder must exist. The file is readable by its owner only.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a UTF-8 text file in one step (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
