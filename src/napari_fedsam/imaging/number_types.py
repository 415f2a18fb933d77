"""Voxel values in at most 32 bits."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.errors import ImagingError


def at_most_32_bits(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Bring 64-bit values to 32 bits where they fit; other arrays are returned as they are.

    64-bit floats become 32-bit ones, 64-bit integers 32-bit integers.

    Raises
    ------
    ImagingError
        If a value is too large.
    """
    if array.dtype.kind not in "iuf" or array.dtype.itemsize <= 4:
        return array
    target = {"i": np.int32, "u": np.uint32, "f": np.float32}[array.dtype.kind]
    limits = np.finfo(target) if array.dtype.kind == "f" else np.iinfo(target)  # type: ignore[type-var]
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    if finite.size and (finite.min() < limits.min or finite.max() > limits.max):
        raise ImagingError(
            f"{path.name} holds numbers that need 64 bits: rescale it and save it with 32 bits."
        )
    return array.astype(target)
