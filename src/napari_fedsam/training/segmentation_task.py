"""A manifest's task as sites with training, validation and test samples of every structure."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from napari_fedsam.cases.case import Structure
from napari_fedsam.training.errors import ManifestError
from napari_fedsam.training.manifest import ManifestRow, load_row, read_binary_mask, read_manifest
from napari_fedsam.training.samples import TrainingSample

_T = TypeVar("_T")

_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231")
# One part of five, where a site has no validation split of its own.
_VALIDATION_PART = 5


@dataclass(frozen=True)
class TaskStructure:
    """A structure of a task, and the values that stand for it in the masks.

    Parameters
    ----------
    structure : Structure
    labels : tuple of int
        Empty for every value above zero.
    """

    structure: Structure
    labels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TaskSite:
    """A site's samples; groups (patients, videos) never lie on both sides of a split."""

    name: str
    train: list[TrainingSample]
    val: list[TrainingSample]
    test: list[TrainingSample]


# Tasks whose masks hold several structures: name to the values that stand for it.
_KNOWN = {"optic_disc_cup": {"optic disc": (1, 2), "optic cup": (2,)}}


def structures_of(task: str) -> tuple[TaskStructure, ...]:
    """Return a task's structures; every mask value above zero is one, where nothing is known."""
    parts: dict[str, tuple[int, ...]] = _KNOWN.get(task, {task.replace("_", " "): ()})
    return tuple(
        TaskStructure(Structure(value=number, name=name, color=_COLOURS[number - 1]), labels)
        for number, (name, labels) in enumerate(parts.items(), start=1)
    )


def labels_of(task: str, structure: int) -> tuple[int, ...]:
    """Return the mask values that stand for a structure; empty for every value above zero.

    Raises
    ------
    ManifestError
        When the task's masks hold several structures and none of that value.
    """
    parts = structures_of(task)
    if len(parts) == 1:
        # Whatever value a model was trained to know it by.
        return parts[0].labels
    for part in parts:
        if part.structure.value == structure:
            return part.labels
    known = " or ".join(f"{part.structure.value} ({part.structure.name})" for part in parts)
    raise ManifestError(f"The task {task} has no structure {structure}: choose {known}.")


def load_task(
    manifest: Path, task: str, *, train_images: int | None = None, val_images: int | None = None
) -> list[TaskSite]:
    """Load every site of a task.

    Parameters
    ----------
    manifest : Path
    task : str
    train_images, val_images : int, optional
        At most so many images of a site, evenly spread over its rows; all by default.

    Raises
    ------
    ManifestError
        When a file cannot be used, a site has no test images, or a group is on both sides of a
        split.
    """
    rows = read_manifest(manifest, task)
    sites = []
    for name in dict.fromkeys(row.site for row in rows):
        own = [row for row in rows if row.site == name]
        train, val = train_and_val(own)
        test = [row for row in own if row.split == "test"]
        if not train or not test:
            raise ManifestError(
                f"The manifest {manifest} has no training or no test images for {name}: give both."
            )
        _check_groups(manifest, name, {"train": train, "val": val, "test": test})
        structures = structures_of(task)
        sites.append(
            TaskSite(
                name,
                _samples(spread(train, train_images), structures),
                _samples(spread(val, val_images), structures),
                _samples(test, structures),
            )
        )
    return sites


def _check_groups(manifest: Path, site: str, parts: Mapping[str, Sequence[ManifestRow]]) -> None:
    """Refuse patients or videos that are trained on and measured."""
    for one, other in itertools.combinations(parts, 2):
        both = {row.group for row in parts[one]} & {row.group for row in parts[other]}
        if both:
            raise ManifestError(
                f"The manifest {manifest} has the group {min(both)} of {site} in {one} and in "
                f"{other}, so that Dice would be too high: put each group into one split."
            )


def spread(values: Sequence[_T], count: int | None) -> list[_T]:
    """Return at most `count` values, evenly spread over the sequence; all for None."""
    if count is None or len(values) <= count:
        return list(values)
    picked = np.linspace(0, len(values) - 1, count).round().astype(int)
    return [values[index] for index in dict.fromkeys(picked.tolist())]


def train_and_val(rows: Sequence[ManifestRow]) -> tuple[list[ManifestRow], list[ManifestRow]]:
    """Split a site's rows; where there is no validation split, the last groups become one."""
    train = [row for row in rows if row.split == "train"]
    val = [row for row in rows if row.split == "val"]
    if val:
        return train, val
    groups = list(dict.fromkeys(row.group for row in train))
    kept = set(groups[-max(1, len(groups) // _VALIDATION_PART) :])
    return [r for r in train if r.group not in kept], [r for r in train if r.group in kept]


def _samples(
    rows: Sequence[ManifestRow], structures: Sequence[TaskStructure]
) -> list[TrainingSample]:
    samples = []
    for row in rows:
        first, *others = structures
        sample = load_row(row, first.structure.value, first.labels)
        samples.append(sample)
        # The same image, read once.
        samples += [
            replace(
                sample,
                mask=read_binary_mask(row.mask, part.labels),
                structure=part.structure.value,
            )
            for part in others
        ]
    return samples
