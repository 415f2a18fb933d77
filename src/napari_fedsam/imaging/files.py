"""What a file is, by its name and first bytes, and how to say that it cannot be used."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from napari_fedsam.imaging.errors import ImagingError

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
DICOM_SUFFIXES = (".dcm", ".dicom")
READABLE = "NIfTI, NRRD, MetaImage, DICOM, PNG, JPEG, TIFF or BMP"


def suffix_of(path: Path) -> str:
    """Return the lower-case suffix of a file name, with ".nii.gz" as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem_of(path: Path) -> str:
    """Return the file name without its suffix, ".nii.gz" counting as one."""
    return path.name[: -len(suffix_of(path))] if suffix_of(path) else path.name


def is_dicom(path: Path) -> bool:
    """Say whether a file carries the mark of DICOM Part 10 at byte 128.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """
    with path.open("rb") as handle:
        handle.seek(128)
        return handle.read(4) == b"DICM"


def is_hidden(path: Path) -> bool:
    """Say whether a file's name starts with a dot, as macOS's shadow files do."""
    return path.name.startswith(".")


@contextlib.contextmanager
def explained_access(path: Path) -> Iterator[None]:
    """Turn the system's refusals inside the block into sentences about `path`.

    Raises
    ------
    ImagingError
        In place of any OSError.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ImagingError(f"{path.name} does not exist: check the path.") from error
    except PermissionError as error:
        raise ImagingError(
            f"{path.name} cannot be opened: permission denied. Ask its owner for access, or copy "
            "it to a folder of yours."
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ImagingError(
            f"{path.name} cannot be read ({reason}): check the disk or the network share."
        ) from error
