"""Which scans a folder, a manifest or a plain list names; no image is read."""

import re
from pathlib import Path

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.imaging.files import (
    DICOM_SUFFIXES,
    PICTURE_SUFFIXES,
    VOLUME_SUFFIXES,
    is_dicom,
    is_hidden,
    suffix_of,
)
from napari_fedsam.training.manifest import manifest_images

_IMAGES = (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES)
_NO_SCANS = (".seg.nrrd",)


def scans_of(origin: Path) -> list[Path]:
    """List the scans to work through (slow: looks through folders).

    Parameters
    ----------
    origin : Path
        A folder, sub-folders included, in which one with DICOM files is one scan; a manifest
        (`.csv`, see `training.manifest`); or a text file with a path a line, relative to it.

    Raises
    ------
    AnnotationError
        When there is no scan, or the file cannot be read as such a list.
    ManifestError
        When a `.csv` file is no manifest.
    """
    origin = origin.resolve()
    try:
        if origin.is_dir():
            found = _in_folder(origin)
        elif origin.suffix.lower() == ".csv":
            found = manifest_images(origin)
        else:
            found = _in_list(origin)
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"The worklist {origin.name} cannot be read: choose a folder of scans, a manifest "
            "(.csv), or a text file with a path a line."
        ) from error
    if not found:
        raise AnnotationError(f"{origin.name} names no scan: choose another folder or list.")
    return list(dict.fromkeys(path.resolve() for path in found))


def _in_folder(folder: Path) -> list[Path]:
    children = sorted(
        (child for child in folder.iterdir() if not is_hidden(child)),
        key=lambda child: _natural(child.name),
    )
    files = [child for child in children if child.is_file()]
    if any(_is_dicom(file) for file in files):
        return [folder]
    found: list[Path] = []
    for child in children:
        if child.is_dir():
            found += _in_folder(child)
        elif suffix_of(child) in _IMAGES and not child.name.lower().endswith(_NO_SCANS):
            found.append(child)
    return found


def _is_dicom(path: Path) -> bool:
    suffix = suffix_of(path)
    return suffix in DICOM_SUFFIXES or (suffix not in _IMAGES and is_dicom(path))


def _in_list(path: Path) -> list[Path]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    return [path.parent / line for line in lines if line and not line.startswith("#")]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts "scan 10" after "scan 9"."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", name.lower())
    ]
