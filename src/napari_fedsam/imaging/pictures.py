"""PNG, JPEG, TIFF and BMP, with the pages of a TIFF as a stack.

Pillow reads them: ITK accepts cut-off JPEG and TIFF files without an error, prints to the
terminal on others, and ignores the camera's rotation (EXIF).
"""

import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access
from napari_fedsam.imaging.number_types import at_most_32_bits

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_GRAY = {"L": np.uint8, "I": np.int32, "F": np.float32}
_CUT_OFF = ("Corrupt EXIF data", "Truncated File Read")
_DECODER_ERRORS = (SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error)
_SUBFILE_TYPE, _REDUCED_OR_MASK = 254, 0b101


def read_picture(path: Path) -> NDArray[Any]:
    """Read a picture, or all pages of a TIFF.

    Gray keeps its type (8, 16 or 32 bits, float too); black-and-white becomes 0 and 255; a
    palette becomes the colours it stands for, or gray where these are gray; colour is RGB. Alpha
    is dropped. A rotation that the camera noted (EXIF) is applied.

    Returns
    -------
    ndarray
        Shape (pages, height, width), or (pages, height, width, 3) uint8.

    Raises
    ------
    ImagingError
        If the file is missing, unreadable, not a picture, cut off, too large, or its pages
        differ in size or type.
    """
    pages = _load(path, _values)
    first = pages[0]
    if any(page.shape != first.shape or page.dtype != first.dtype for page in pages):
        raise ImagingError(
            f"{path.name} has pages of different sizes or types: save each as a file of its own."
        )
    return at_most_32_bits(np.stack(pages), path)


def read_labels(path: Path) -> NDArray[Any]:
    """Read the stored numbers of a gray or palette picture, as label images need them.

    Returns
    -------
    ndarray
        Shape (pages, height, width); a palette's indices, not its colours; 0 and 1 for
        black-and-white.

    Raises
    ------
    ImagingError
        As `read_picture`, and if the picture is in colour.
    """
    return np.stack(_load(path, lambda page: _stored_labels(page, path)))


def _load(path: Path, convert: Callable[[Any], NDArray[Any]]) -> list[NDArray[Any]]:
    with explained_access(path):
        try:
            # Pillow only warns where the list of a TIFF's pages is cut off.
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with path.open("rb") as handle, Image.open(handle, formats=_FORMATS) as image:
                    pages = [convert(page) for page in _pages(image)]
                    is_tiff = image.format == "TIFF"
            if is_tiff and any(str(w.message).startswith(_CUT_OFF) for w in caught):
                raise _damaged(path)
            return pages
        except UnidentifiedImageError as error:
            raise ImagingError(
                f"{path.name} is not a picture, or it is damaged: open a real PNG, JPEG, TIFF or "
                "BMP file."
            ) from error
        except Image.DecompressionBombError as error:
            raise ImagingError(
                f"{path.name} is too large to be opened at once: save a smaller part of it."
            ) from error
        except _DECODER_ERRORS as error:
            raise _damaged(path) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise _damaged(path) from error


def _damaged(path: Path) -> ImagingError:
    return ImagingError(
        f"{path.name} is truncated or damaged and cannot be read: copy or export it again."
    )


def _pages(image: Any) -> Iterator[Any]:
    """Go through the pages of a TIFF, leaving out thumbnails and masks."""
    if image.format != "TIFF":
        yield image
        return
    for number in range(image.n_frames):
        image.seek(number)
        if number == 0 or not image.tag_v2.get(_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK:
            yield image


def _values(page: Any) -> NDArray[Any]:
    upright = ImageOps.exif_transpose(page)
    mode = upright.mode
    if mode.startswith("I;16"):
        return np.asarray(upright).astype(np.uint16)
    if mode in _GRAY:
        return np.asarray(upright, dtype=_GRAY[mode])
    if mode == "1":
        return np.asarray(upright.convert("L"))
    if mode in ("LA", "La"):
        return np.asarray(upright.getchannel(0))
    colour = np.asarray(upright.convert("RGB"))
    if mode in ("P", "PA") and (colour == colour[..., :1]).all():
        return np.ascontiguousarray(colour[..., 0])
    return colour


def _stored_labels(page: Any, path: Path) -> NDArray[Any]:
    mode = page.mode
    if mode in ("1", "L", "P", "I") or mode.startswith("I;16"):
        values = np.asarray(page)
        return values.astype(np.uint8) if mode == "1" else values.astype(np.int64)
    values = _values(page)
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim == 3 or values.dtype.kind == "f":
        raise ImagingError(
            f"{path.name} is in colour or has fractions, so it is not a mask: save a gray or "
            "palette picture whose values are structure numbers."
        )
    return values.astype(np.int64)
