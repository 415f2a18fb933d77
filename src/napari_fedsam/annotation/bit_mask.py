"""A mask as a small immutable value: it can be compared, hashed, kept in a history and in JSON."""

import base64
import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.errors import AnnotationError


@dataclass(frozen=True)
class BitMask:
    """A mask of one slice, packed to bits and compressed.

    Attributes
    ----------
    shape : (H, W)
        The slice's size in pixels.
    packed : bytes
        The bits in row order, compressed by zlib.
    """

    shape: tuple[int, int]
    packed: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Self:
        """Pack a bool array of shape (H, W)."""
        height, width = mask.shape
        return cls((height, width), zlib.compress(np.packbits(mask).tobytes(), 1))

    @classmethod
    def from_text(cls, shape: tuple[int, int], text: str) -> Self:
        """Return the mask that `text` gave.

        Raises
        ------
        AnnotationError
            When the text does not hold a mask of this shape.
        """
        height, width = shape
        try:
            found = cls((height, width), base64.b64decode(text, validate=True))
            found.unpacked()
        except (ValueError, zlib.error) as error:
            raise AnnotationError(
                "A stored mask is damaged: it was left out, so check this slice."
            ) from error
        return found

    @property
    def text(self) -> str:
        """The mask as text, for JSON."""
        return base64.b64encode(self.packed).decode("ascii")

    def unpacked(self) -> NDArray[np.bool_]:
        """Return the mask as a new bool array of shape (H, W)."""
        count = self.shape[0] * self.shape[1]
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        return np.unpackbits(bits)[:count].reshape(self.shape).astype(np.bool_)
