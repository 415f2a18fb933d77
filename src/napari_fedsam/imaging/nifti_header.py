"""The header of a single-file NIfTI-1, as far as voxels have to be found in it.

https://nifti.nimh.nih.gov/nifti-1: offsets and codes are from there.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

HEADER_BYTES = 348

_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
}


@dataclass(frozen=True)
class NiftiHeader:
    """Where the voxels are, and what they are.

    Attributes
    ----------
    order : {"<", ">"}
        Byte order.
    shape : tuple of int
        Slowest axis first.
    type_code : int
    bits : int
        Of a voxel.
    start : float
        Bytes before the first voxel.
    slope, intercept : float
        Stored values are to be rescaled so; slope 0 means not at all.
    """

    order: str
    shape: tuple[int, ...]
    type_code: int
    bits: int
    start: float
    slope: float
    intercept: float

    @classmethod
    def parse(cls, data: bytes) -> "NiftiHeader | None":
        """Read the beginning of a file, decompressed; None where it is no NIfTI-1."""
        if len(data) < HEADER_BYTES:
            return None
        for order in "<>":
            if struct.unpack_from(f"{order}i", data)[0] == HEADER_BYTES:
                dims = struct.unpack_from(f"{order}8h", data, 40)
                sizes = dims[1 : 1 + max(0, min(7, dims[0]))]
                code, bits = struct.unpack_from(f"{order}2h", data, 70)
                start, slope, intercept = struct.unpack_from(f"{order}3f", data, 108)
                shape = tuple(max(1, size) for size in reversed(sizes))
                return cls(order, shape, code, bits, start, slope, intercept)
        return None

    @property
    def file_bytes(self) -> int | None:
        """How long the file must be, None where the header makes no sense."""
        if not math.isfinite(self.start):
            return None
        return int(self.start + math.prod(self.shape) * self.bits // 8)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type of the stored voxels, None where they are no plain numbers."""
        kind = _TYPES.get(self.type_code)
        return None if kind is None else np.dtype(f"{self.order}{kind}")

    @property
    def rescales(self) -> bool:
        """Whether stored values are not yet the real ones."""
        known = math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope != 0
        return known and (self.slope, self.intercept) != (1, 0)
