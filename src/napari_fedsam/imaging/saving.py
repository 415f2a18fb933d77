"""Files that appear complete or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from napari_fedsam.files import fsync_folder
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import stem_of, suffix_of


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path in a private folder; what is written there replaces `path` when all went well.

    The temporary file has the same stem, because some formats name a second file after it, and
    its suffix in lower case, which ITK wants. Second files are moved before the first.

    Raises
    ------
    ImagingError
        In place of errors of the system and of ITK.
    """
    if not path.parent.is_dir():
        raise ImagingError(
            f"{path.name} cannot be saved because the folder {path.parent.name} does not exist: "
            "create it first."
        )
    with _explained(path):
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=path.parent) as folder:
            temporary = Path(folder, stem_of(path) + suffix_of(path))
            yield temporary
            written = sorted(Path(folder).iterdir(), key=lambda file: file == temporary)
            for file in written:
                with file.open("rb+") as handle:
                    os.fsync(handle.fileno())
            for file in written:
                file.replace(path if file == temporary else path.parent / file.name)
        fsync_folder(path.parent)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise ImagingError(
            f"{path.name} cannot be saved in the folder {path.parent.name}: permission denied. "
            "Choose a folder that you may write to."
        ) from error
    except (OSError, RuntimeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "the disk may be full"
        raise ImagingError(
            f"{path.name} could not be saved ({reason}): free some space or choose another "
            "folder, and save again."
        ) from error
