"""SimpleITK's images as arrays, without its messages on the terminal."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_fedsam.imaging.errors import ImagingError

_lock = threading.Lock()
_silences = {"depth": 0, "before": False}


@contextlib.contextmanager
def silent_itk() -> Iterator[None]:
    """Keep ITK's warnings off the terminal; what matters arrives as an exception.

    ITK's switch is global, so that overlapping blocks in several threads count as one.
    """
    with _lock:
        if _silences["depth"] == 0:
            _silences["before"] = sitk.ProcessObject.GetGlobalWarningDisplay()
            sitk.ProcessObject.SetGlobalWarningDisplay(False)
        _silences["depth"] += 1
    try:
        yield
    finally:
        with _lock:
            _silences["depth"] -= 1
            if _silences["depth"] == 0:
                sitk.ProcessObject.SetGlobalWarningDisplay(_silences["before"])


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
