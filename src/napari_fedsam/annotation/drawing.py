"""What a person draws with the mouse, as pixels and as points."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Path = Sequence[tuple[float, float]]
"""Positions (x, y) in pixels of the slice, pixel centres at integers."""


def pixels_of_line(path: Path, shape: tuple[int, int], width: int = 1) -> NDArray[np.bool_]:
    """Return the pixels under a line as a mask of shape (H, W)."""
    canvas, pen = _canvas(shape)
    pen.line([_rounded(point) for point in path], fill=1, width=width)
    for point in path:
        pen.point(_rounded(point), fill=1)
    return np.array(canvas, np.bool_)


def pixels_within(outline: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels on and within a closed outline as a mask of shape (H, W)."""
    canvas, pen = _canvas(shape)
    pen.polygon([_rounded(point) for point in outline], fill=1, outline=1)
    return np.array(canvas, np.bool_)


def points_along(path: Path, count: int) -> list[tuple[float, float]]:
    """Return at most `count` points at even distances along a path, its ends included."""
    corners = np.asarray(path, np.float64)
    steps = np.hypot(*np.diff(corners, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    # No closer than two pixels: more points would only repeat each other.
    wanted = int(np.clip(along[-1] // 2 + 1, 1, count))
    if wanted == 1:
        return [(float(corners[0, 0]), float(corners[0, 1]))]
    at = np.linspace(0, along[-1], wanted)
    return [
        (float(x), float(y))
        for x, y in zip(
            np.interp(at, along, corners[:, 0]), np.interp(at, along, corners[:, 1]), strict=True
        )
    ]


def _canvas(shape: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    height, width = shape
    canvas = Image.new("L", (width, height))
    return canvas, ImageDraw.Draw(canvas)


def _rounded(point: tuple[float, float]) -> tuple[int, int]:
    return round(point[0]), round(point[1])
