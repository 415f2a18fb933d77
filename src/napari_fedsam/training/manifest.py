"""Data on disk described by a manifest: one row an image, with its site and split.

Columns used: task, site, split, image, mask, group (paths relative to the manifest). A mask's
values above zero are the structure.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.readers import read_scan
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import apply_window, default_window
from napari_fedsam.training.errors import ManifestError
from napari_fedsam.training.samples import TrainingSample

_COLUMNS = ("task", "site", "split", "image", "mask")


@dataclass(frozen=True)
class ManifestRow:
    """One image of a manifest.

    Parameters
    ----------
    site, split, group : str
        The group is the patient or video; rows without one are groups of their own.
    image, mask : Path
    label : str
        The image's path as the manifest gives it.
    """

    site: str
    split: str
    group: str
    image: Path
    mask: Path
    label: str


def read_manifest(
    path: Path, task: str, *, site: str | None = None, split: str | None = None
) -> list[ManifestRow]:
    """Return a task's rows.

    Raises
    ------
    ManifestError
        When the file is no manifest, or no row is left.
    """
    rows = _rows(path)
    chosen = [
        ManifestRow(
            row["site"],
            row["split"],
            row.get("group") or row["image"],
            path.parent / row["image"],
            path.parent / row["mask"],
            row["image"],
        )
        for row in rows
        if row["task"] == task
        and (site is None or row["site"] == site)
        and (split is None or row["split"] == split)
    ]
    if not chosen:
        wanted = ", ".join(value for value in (task, site, split) if value)
        tasks = ", ".join(sorted({row["task"] for row in rows}))
        raise ManifestError(f"The manifest {path} has no rows for {wanted}; its tasks: {tasks}.")
    return chosen


def manifest_images(path: Path) -> list[Path]:
    """Return the images of all tasks, in the manifest's order, each once.

    Raises
    ------
    ManifestError
        When the file is no manifest.
    """
    return list(dict.fromkeys(path.parent / row["image"] for row in _rows(path)))


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"The manifest {path} cannot be read as a CSV table.") from error
    missing = [column for column in _COLUMNS if not rows or column not in rows[0]]
    if missing:
        raise ManifestError(
            f"The manifest {path} lacks rows or the columns {', '.join(missing)}: give one with "
            f"{', '.join(_COLUMNS)}."
        )
    if any(row[column] is None for row in rows for column in _COLUMNS):
        raise ManifestError(f"The manifest {path} has a row with too few columns: complete it.")
    return rows


def load_row(row: ManifestRow, structure: int, labels: Sequence[int] = ()) -> TrainingSample:
    """Read a row's image and mask.

    Parameters
    ----------
    row : ManifestRow
    structure : int
        The structure's value in the sample.
    labels : sequence of int
        The mask's values that stand for it; every value above zero when empty.

    Raises
    ------
    ManifestError
        When a file cannot be read, or the two differ in size.
    """
    try:
        scan = _one_slice(row.image)
        image = apply_window(scan.pixels[0], default_window(scan))
        mask = read_binary_mask(row.mask, labels)
    except ImagingError as error:
        raise ManifestError(
            f"The manifest's row for {row.label} cannot be used: {error}"
        ) from error
    if mask.shape != image.shape[:2]:
        raise ManifestError(
            f"The mask of {row.label} has {mask.shape} pixels and the image {image.shape[:2]}: "
            "give a mask of the image's size."
        )
    spacing = scan.spacing[1:] if scan.spacing_known else None
    return TrainingSample(row.label, row.group, image, mask, structure, spacing)


def read_binary_mask(path: Path, labels: Sequence[int] = ()) -> NDArray[np.bool_]:
    """Read where one of a 2-D mask's values stands; any above zero when `labels` is empty.

    Returns
    -------
    bool array of shape (H, W)

    Raises
    ------
    ImagingError
        When the file cannot be read.
    ManifestError
        When it holds several slices.
    """
    pixels = _one_slice(path).pixels[0]
    values = pixels if pixels.ndim == 2 else pixels.max(axis=-1)
    mask: NDArray[np.bool_] = np.isin(values, labels) if labels else values > 0
    return mask


def _one_slice(path: Path) -> Scan:
    scan = read_scan(path)
    if len(scan.pixels) != 1:
        raise ManifestError(f"{path} holds {len(scan.pixels)} slices: name files of one slice.")
    return scan
