"""What a stroke in a Labels layer changed, from what napari tells of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.label_edit import LabelEdit


def edit_of_stroke(atoms: list[Any], data: NDArray[Any]) -> LabelEdit:
    """Return the edit that one stroke makes in an array.

    Parameters
    ----------
    atoms : list
        The value of `Labels.events.paint`: the stroke's changes in their order, each either
        (indices, values before, values after), or (from napari 0.7 on) a block of the array, with
        a mask of what changed in it (None: all of it), the values before and the one after.
    data : integer array of shape (z, y, x)
        The layer's. Not looked into: napari tells of some changes before it makes them.
    """
    flat, before, after = [], [], []
    for atom in atoms:
        indices, old, new = _changed(atom, data.shape)
        flat.append(np.ravel_multi_index(indices, data.shape))
        before.append(np.broadcast_to(old, flat[-1].shape))
        after.append(np.broadcast_to(new, flat[-1].shape))
    nothing = [np.zeros(0, np.intp)]
    voxels = np.concatenate(flat or nothing)
    # Where a stroke crosses itself, what was there first and what came last count.
    unique, first = np.unique(voxels, return_index=True)
    _, last_from_end = np.unique(voxels[::-1], return_index=True)
    were = np.concatenate(before or nothing)[first].astype(data.dtype)
    are = np.concatenate(after or nothing)[::-1][last_from_end].astype(data.dtype)
    changed = were != are
    indices = np.unravel_index(unique[changed], data.shape)
    return LabelEdit.of(indices, were[changed], are[changed])


def _changed(atom: Any, shape: tuple[int, ...]) -> tuple[tuple[NDArray[np.intp], ...], Any, Any]:
    """Return the indices that one change touched, with the values before and after."""
    if not hasattr(atom, "slice_key"):
        indices, old, new = atom
        return tuple(np.atleast_1d(np.asarray(axis)) for axis in indices), old, new
    starts_and_stops = [
        part.indices(length)[:2] for part, length in zip(atom.slice_key, shape, strict=True)
    ]
    block = atom.mask
    if block is None:
        block = np.ones([stop - start for start, stop in starts_and_stops], np.bool_)
    indices = tuple(
        axis + start for axis, (start, _) in zip(np.nonzero(block), starts_and_stops, strict=True)
    )
    return indices, np.asarray(atom.old_values).ravel(), atom.new_value
