"""Small pictures by which a person recognises a case; they hold no text."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE = 96


def render_thumbnail(
    image: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    window: tuple[float, float],
    spacing: tuple[float, float] | None,
    color: str,
) -> NDArray[np.uint8]:
    """Draw the windowed slice, undistorted, with the outline of the mask.

    Parameters
    ----------
    image : ndarray
        (height, width) numbers, shown through `window`, or (height, width, 3) uint8, shown as is.
    mask : ndarray of bool
        (height, width).
    window : (float, float)
        Values shown black and white.
    spacing : (float, float) or None
        Row and column spacing, for the proportions.
    color : str
        The outline's colour, `#rrggbb`.

    Returns
    -------
    ndarray of uint8
        (rows, columns, 3), the longest side at most 96.
    """
    rows, columns = _size_on_screen(mask.shape, spacing)
    grey = image if image.ndim == 3 else _windowed(image, window)
    picture = np.array(
        Image.fromarray(grey).convert("RGB").resize((columns, rows), Image.Resampling.LANCZOS)
    )
    # Averaging first keeps structures visible that are smaller than one pixel of the thumbnail.
    coverage = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (columns, rows), Image.Resampling.BOX
    )
    inside = np.asarray(coverage) > 127
    if not inside.any():
        inside = np.asarray(coverage) > 0
    picture[_outline(inside)] = _rgb(color)
    return picture


def write_thumbnail(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a thumbnail as PNG without any metadata."""
    Image.fromarray(picture).save(path, format="PNG")


def _size_on_screen(shape: tuple[int, ...], spacing: tuple[float, float] | None) -> tuple[int, int]:
    row, column = spacing or (1.0, 1.0)
    finest = min(row, column)
    height, width = shape[0] * row / finest, shape[1] * column / finest
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _windowed(image: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = window
    shown = (np.clip(image.astype(np.float64), low, high) - low) / (high - low)
    return np.rint(shown * 255).astype(np.uint8)


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(inside, 1)
    surrounded = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: NDArray[np.bool_] = inside & ~surrounded
    return outline


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue
