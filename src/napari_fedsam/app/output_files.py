"""Where a command writes: made ready before the work, so that none is done in vain."""

import os
from pathlib import Path

from napari_fedsam.errors import FedSamError
from napari_fedsam.files import temporary_beside


def ready_file(path: Path) -> Path:
    """Make sure that a file can be written, and create the folder that it goes into.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    FedSamError
        When it cannot.
    """
    try:
        is_folder = path.is_dir()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary_beside(path).unlink()
    except OSError as error:
        raise _refused(path, error) from error
    if is_folder:
        raise FedSamError(f"{path} is a folder: give the name of a file to write.")
    if path.exists() and not os.access(path, os.W_OK):
        raise FedSamError(f"{path} may not be written: give another name.")
    return path


def ready_folder(path: Path) -> Path:
    """Make sure that a folder is there and takes files.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    FedSamError
        When it cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        temporary_beside(path / "ready").unlink()
    except OSError as error:
        raise _refused(path, error) from error
    return path


def _refused(path: Path, error: OSError) -> FedSamError:
    cause = error.strerror or type(error).__name__
    return FedSamError(f"{path} cannot be written ({cause}): give another place.")
