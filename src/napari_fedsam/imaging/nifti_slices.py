"""Slices of a NIfTI volume while its bytes are being decompressed."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.nifti_header import NiftiHeader


class NiftiSlices:
    """Makes slices of a NIfTI volume's bytes as they are decompressed.

    Parameters
    ----------
    header : NiftiHeader
        Of a volume of three dimensions with plain numbers (`can_show`).

    Attributes
    ----------
    pixels : ndarray
        Shape (z, y, x), real values, 0 where nothing has arrived.
    arrived : ndarray of bool
        Shape (z,).
    """

    def __init__(self, header: NiftiHeader) -> None:
        self._header = header
        shape = header.shape[-3:]
        wide = header.rescales or self._dtype.itemsize > 4
        self.pixels: NDArray[Any] = np.zeros(
            shape, np.float32 if wide else self._dtype.newbyteorder("=")
        )
        self.arrived = np.zeros(shape[0], np.bool_)
        # Not yet a whole slice; at first what comes before the voxels.
        self._bytes = bytearray()
        self._skip = int(header.start)
        self._next = 0

    @staticmethod
    def can_show(header: NiftiHeader) -> bool:
        """Whether a file of this kind can be shown slice by slice."""
        is_volume = len(header.shape) >= 3 and math.prod(header.shape[:-3]) == 1
        return header.dtype is not None and is_volume and header.file_bytes is not None

    @property
    def _dtype(self) -> np.dtype[Any]:
        return self._header.dtype or np.dtype(np.uint8)

    def take(self, chunk: bytes) -> None:
        """Take the next bytes of the file, its header included."""
        self._bytes += chunk
        plane = self.pixels.shape[1:]
        size = self._dtype.itemsize * math.prod(plane)
        while self._next < len(self.pixels) and len(self._bytes) >= self._skip + size:
            del self._bytes[: self._skip]
            self._skip = 0
            self.pixels[self._next] = self._values(bytes(self._bytes[:size])).reshape(plane)
            del self._bytes[:size]
            self.arrived[self._next] = True
            self._next += 1

    def _values(self, stored: bytes) -> NDArray[Any]:
        values = np.frombuffer(stored, self._dtype)
        if not self._header.rescales:
            return values
        return values * np.float32(self._header.slope) + np.float32(self._header.intercept)
