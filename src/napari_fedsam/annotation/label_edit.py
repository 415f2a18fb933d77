"""Changes of the segmentation, small enough to keep for undo."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.slices import SliceKey

Indices = tuple[NDArray[np.intp], ...]


@dataclass(frozen=True, eq=False)
class LabelEdit:
    """Voxels of a segmentation with their values before and after.

    Attributes
    ----------
    indices : tuple of int arrays of shape (n,)
        Display indices (z, y, x).
    before, after : arrays of shape (n,)
        Structure values.
    """

    indices: Indices
    before: NDArray[Any]
    after: NDArray[Any]

    @classmethod
    def giving(
        cls, segmentation: NDArray[Any], where: SliceKey, value: int, mask: NDArray[np.bool_]
    ) -> Self:
        """Make one slice's structure exactly a mask; other structures lose what it covers.

        Parameters
        ----------
        segmentation : integer array in display order
            As it is; not changed here.
        where : SliceKey
            The slice.
        value : int
            The structure's value.
        mask : bool array of shape (H, W)
            Where the structure is.
        """
        shown = where.pixels(segmentation)
        changed = mask != (shown == value)
        indices = where.volume_indices(changed)
        after = np.where(mask[changed], value, 0).astype(segmentation.dtype)
        return cls(indices, segmentation[indices].copy(), after)

    def reversed_on(self, segmentation: NDArray[Any]) -> "LabelEdit":
        """Return the edit that takes this one back, sparing voxels changed by hand since."""
        untouched = segmentation[self.indices] == self.after
        indices = tuple(axis[untouched] for axis in self.indices)
        return LabelEdit(indices, self.after[untouched], self.before[untouched])

    def __len__(self) -> int:
        return len(self.after)
