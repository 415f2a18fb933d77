"""What a stroke in a Labels layer changed, from what napari tells of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.label_edit import LabelEdit


def edit_of_stroke(atoms: list[Any], data: NDArray[Any]) -> LabelEdit:
    """Return the edit of one stroke that has been painted into an array.

    Parameters
    ----------
    atoms : list
        The value of `Labels.events.paint`: the stroke's changes in their order, each either
        (indices, values before, values after), or (from napari 0.7 on) a block of the array, with
        a mask of what changed in it (None: all of it) and the values before.
    data : integer array of shape (z, y, x)
        As it is after the stroke.
    """
    flat, before = [], []
    for atom in atoms:
        indices, values = _changed(atom, data.shape)
        flat.append(np.ravel_multi_index(indices, data.shape))
        before.append(np.broadcast_to(values, flat[-1].shape))
    if not flat:
        nowhere = np.zeros(0, np.intp)
        return LabelEdit.of((nowhere,) * data.ndim, data[:0].ravel(), data[:0].ravel())
    # Where a stroke crosses itself, only what was there before its first touch counts.
    voxels, first = np.unique(np.concatenate(flat), return_index=True)
    were = np.concatenate(before)[first].astype(data.dtype)
    indices = np.unravel_index(voxels, data.shape)
    changed = were != data[indices]
    indices = tuple(axis[changed] for axis in indices)
    return LabelEdit.of(indices, were[changed], data[indices])


def _changed(atom: Any, shape: tuple[int, ...]) -> tuple[tuple[NDArray[np.intp], ...], Any]:
    """Return the indices that one change touched, and the values before, shape (n,)."""
    if not hasattr(atom, "slice_key"):
        indices, values, _ = atom
        return tuple(np.atleast_1d(np.asarray(axis)) for axis in indices), values
    starts_and_stops = [
        part.indices(length)[:2] for part, length in zip(atom.slice_key, shape, strict=True)
    ]
    block = atom.mask
    if block is None:
        block = np.ones([stop - start for start, stop in starts_and_stops], np.bool_)
    indices = tuple(
        axis + start for axis, (start, _) in zip(np.nonzero(block), starts_and_stops, strict=True)
    )
    return indices, np.asarray(atom.old_values).ravel()
