"""What training and evaluation see: one image, one structure's mask."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.cases.case import Split
from napari_fedsam.cases.errors import BrokenCaseError, MissingCaseError
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.imaging.window import Window, apply_window
from napari_fedsam.personalization.recipe import Recipe


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """An image with one structure's mask.

    Parameters
    ----------
    id : str
        The case's id, or the image's path in a manifest.
    group : str
        The patient's or scan's pseudonym: groups are never split.
    image : uint8 array of shape (H, W) or (H, W, 3)
        Windowed to 0..255.
    mask : bool array of shape (H, W)
        All False when the structure is absent.
    structure : int
        The structure's value in the recipe.
    spacing : (row, column), optional
        Pixel size in millimetres, where it is known.
    """

    id: str
    group: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    structure: int
    spacing: tuple[float, float] | None = None

    @property
    def absent(self) -> bool:
        """Whether the structure is not in the image."""
        return not self.mask.any()


def samples_from_store(store: CaseStore, recipe: Recipe, split: Split) -> list[TrainingSample]:
    """Load a site's cases of the recipe's structures, which are told by their names.

    The numbers are the recipe's: each federation counts its structures from 1. A broken case is set
    aside by the store and left out here, and so is one that is deleted meanwhile.

    Parameters
    ----------
    store : CaseStore
    recipe : Recipe
    split : {"train", "val"}

    Returns
    -------
    list of TrainingSample
        Ordered by case id.
    """
    samples = []
    for structure in recipe.structures:
        for record in store.records(structure=structure.name, split=split):
            try:
                case = store.load(record.id)
            except (BrokenCaseError, MissingCaseError):
                continue
            samples.append(
                TrainingSample(
                    record.id,
                    record.patient,
                    apply_window(case.image, Window(*record.window)),
                    case.mask,
                    structure.value,
                )
            )
    return sorted(samples, key=lambda sample: sample.id)


def renumbered(
    samples: Sequence[TrainingSample], recipe: Recipe, other: Recipe
) -> list[TrainingSample]:
    """Give samples of a recipe the numbers that another recipe has for structures of their names.

    Parameters
    ----------
    samples : sequence of TrainingSample
    recipe : Recipe
        That the samples follow.
    other : Recipe

    Returns
    -------
    list of TrainingSample
        A structure that the other recipe does not have gets 0, which no model knows: it is
        answered from prompts alone.
    """
    names = {structure.value: structure.name.casefold() for structure in recipe.structures}
    values = {structure.name.casefold(): structure.value for structure in other.structures}
    return [replace(sample, structure=values.get(names[sample.structure], 0)) for sample in samples]


def structure_names(recipe: Recipe) -> str:
    """Return the names of a recipe's structures as words, such as "liver and spleen"."""
    return " and ".join(structure.name for structure in recipe.structures)


def image_key(image: NDArray[np.uint8]) -> bytes:
    """Return what tells an image from others by its content."""
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).digest()


def grouped_by_image(samples: Sequence[TrainingSample]) -> list[list[TrainingSample]]:
    """Group what was segmented in the same image.

    In an order that depends on the content alone, wherever the samples come from.
    """
    groups: dict[bytes, list[TrainingSample]] = {}
    for sample in samples:
        groups.setdefault(image_key(sample.image), []).append(sample)
    return [sorted(groups[key], key=lambda sample: sample.structure) for key in sorted(groups)]
