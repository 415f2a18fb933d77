"""Changes of the segmentation, small enough to keep any number of them for undo."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.slices import SliceKey

Indices = tuple[NDArray[np.intp], ...]


@dataclass(frozen=True, eq=False)
class LabelEdit:
    """Voxels of a segmentation with their values before and after, compressed.

    A mask of one slice takes some hundred bytes.

    Attributes
    ----------
    corner, size : tuple of int
        The block of the volume (z, y, x) in which all changed voxels lie.
    where : bytes
        The block's changed voxels as compressed bits.
    values : (bytes, bytes)
        Their values before and after, compressed.
    dtype : numpy.dtype
        Of the values.
    """

    corner: tuple[int, ...]
    size: tuple[int, ...]
    where: bytes
    values: tuple[bytes, bytes]
    dtype: "np.dtype[Any]"

    @classmethod
    def of(cls, indices: Indices, before: NDArray[Any], after: NDArray[Any]) -> Self:
        """Make one of display indices (z, y, x) without repeats, and values of shape (n,)."""
        if len(before) == 0:
            return cls((0,) * len(indices), (0,) * len(indices), b"", (b"", b""), before.dtype)
        corner = tuple(int(axis.min()) for axis in indices)
        size = tuple(int(axis.max()) - low + 1 for axis, low in zip(indices, corner, strict=True))
        inside = tuple(axis - low for axis, low in zip(indices, corner, strict=True))
        block = np.zeros(size, np.bool_)
        block[inside] = True
        order = np.argsort(np.ravel_multi_index(inside, size))
        packed = [
            zlib.compress(values[order].astype(before.dtype).tobytes(), 1)
            for values in (before, after)
        ]
        bits = zlib.compress(np.packbits(block).tobytes(), 1)
        return cls(corner, size, bits, (packed[0], packed[1]), before.dtype)

    @classmethod
    def giving(
        cls,
        segmentation: NDArray[Any],
        where: SliceKey,
        value: int,
        mask: NDArray[np.bool_],
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
        return cls.of(indices, segmentation[indices], after)

    @classmethod
    def making(
        cls,
        segmentation: NDArray[Any],
        value: int,
        volume: NDArray[np.bool_],
        *,
        spare_others: bool,
    ) -> Self:
        """Make a structure exactly a volume of the segmentation's shape (slow on a large one)."""
        present = segmentation == value
        wanted = volume & (present | (segmentation == 0)) if spare_others else volume
        indices = np.nonzero(present != wanted)
        after = np.where(wanted[indices], value, 0).astype(segmentation.dtype)
        return cls.of(indices, segmentation[indices], after)

    @classmethod
    def joined(cls, edits: Sequence["LabelEdit"]) -> Self:
        """Return one edit of several that touch different voxels.

        Parameters
        ----------
        edits : sequence of LabelEdit
            At least one.
        """
        indices = [edit.indices for edit in edits]
        return cls.of(
            tuple(np.concatenate(axis) for axis in zip(*indices, strict=True)),
            np.concatenate([edit.before for edit in edits]),
            np.concatenate([edit.after for edit in edits]),
        )

    @classmethod
    def from_nothing(cls, segmentation: NDArray[Any]) -> Self:
        """Return the change from an empty segmentation to this one (slow on a large one)."""
        indices = np.nonzero(segmentation)
        values = segmentation[indices]
        return cls.of(indices, np.zeros_like(values), values)

    @property
    def indices(self) -> Indices:
        """Display indices (z, y, x) of the changed voxels, in the volume's order."""
        if not self.where:
            return tuple(np.zeros(0, np.intp) for _ in self.corner)
        bits = np.frombuffer(zlib.decompress(self.where), np.uint8)
        block = np.unpackbits(bits)[: int(np.prod(self.size))].reshape(self.size)
        return tuple(axis + low for axis, low in zip(np.nonzero(block), self.corner, strict=True))

    @property
    def before(self) -> NDArray[Any]:
        """Structure values before, shape (n,)."""
        return self._values(0)

    @property
    def after(self) -> NDArray[Any]:
        """Structure values after, shape (n,)."""
        return self._values(1)

    def _values(self, which: int) -> NDArray[Any]:
        packed = self.values[which]
        return np.frombuffer(zlib.decompress(packed) if packed else b"", self.dtype)

    def swapped(self) -> "LabelEdit":
        """Return the edit that takes this one back, whatever happened since."""
        before, after = self.values
        return replace(self, values=(after, before))

    def sparing_changes_in(self, segmentation: NDArray[Any]) -> "LabelEdit":
        """Return this edit without the voxels that no longer are as they were before it."""
        indices, before, after = self.indices, self.before, self.after
        unchanged = segmentation[indices] == before
        if unchanged.all():
            return self
        kept = tuple(axis[unchanged] for axis in indices)
        return LabelEdit.of(kept, before[unchanged], after[unchanged])

    def reversed_on(self, segmentation: NDArray[Any]) -> "LabelEdit":
        """Return the edit that takes this one back, sparing voxels changed otherwise since."""
        return self.swapped().sparing_changes_in(segmentation)

    @property
    def nbytes(self) -> int:
        """What it takes in memory, about."""
        return len(self.where) + sum(map(len, self.values))

    def __len__(self) -> int:
        return len(self.after)
