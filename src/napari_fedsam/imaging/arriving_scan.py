"""A scan that is still being read: what of it can be shown meanwhile."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan


class ArrivingScan:
    """A scan whose slices are written by another thread.

    Parameters
    ----------
    scan : Scan
        Its pixels are filled slice by slice (first axis); to look at, not to be annotated.
    arrived : ndarray of bool
        Shape (z,), which slices are there; set by the other thread.
    """

    def __init__(self, scan: Scan, arrived: NDArray[np.bool_]) -> None:
        self.scan = scan
        self._arrived = arrived

    @property
    def count(self) -> int:
        """How many slices are there."""
        return int(self._arrived.sum())

    def has(self, index: int) -> bool:
        """Whether a slice along the first axis is there."""
        return bool(self._arrived[index])

    def slice_as_scan(self, index: int) -> Scan:
        """Return one slice as a scan of its own."""
        whole = self.scan.geometry
        x, y = whole.size[:2]
        part = Geometry((x, y, 1), whole.spacing, whole.origin, whole.direction)
        return dataclasses.replace(
            self.scan, pixels=self.scan.pixels[index : index + 1].copy(), geometry=part
        )


Watch = Callable[[ArrivingScan], None]
"""Is told, in the reading thread, of a scan whose slices begin to arrive."""
