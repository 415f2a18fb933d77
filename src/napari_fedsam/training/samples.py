"""What training and evaluation see: one image, one structure's mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.cases.case import Split
from napari_fedsam.cases.errors import BrokenCaseError
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
    aside by the store and left out here.

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
            except BrokenCaseError:
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
