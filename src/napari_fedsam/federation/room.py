"""Whether a disk has room for what a round writes: on a full one nothing can even be told."""

import shutil
from pathlib import Path

from napari_fedsam.federation.errors import FederationError

# A round keeps a few copies of the shared parameters, which are some 15 MB by default.
_LEAST_BYTES = 64 * 1024**2


def lack_of_room(folder: Path) -> str:
    """Say that the disk of a folder is full, "" while it is not."""
    if shutil.disk_usage(folder).free >= _LEAST_BYTES:
        return ""
    return (
        f"The disk of {folder} is full: make room. Until then no round is taken part in; nothing "
        "that was kept is lost."
    )


def check_room(folder: Path) -> None:
    """Refuse to begin what a full disk would not let end.

    Raises
    ------
    FederationError
        When the disk of the folder is full.
    """
    if lack := lack_of_room(folder):
        raise FederationError(lack)
