"""Boxes, lassos and scribbles as napari shapes: rectangles, polygons and paths.

Every shape that napari can draw means something: an ellipse is a lasso, a line is a scribble.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray

from napari_fedsam.annotation.ask import Ask, Path, Scribble
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.sam.prompts import Box

# Okabe and Ito's green and vermilion, as for points.
POSITIVE, NEGATIVE = "#00e08a", "#ff5a36"
REGION_COLOR = "#ffe14d"


@dataclass(frozen=True)
class ShapePrompts:
    """What a Shapes layer holds of an ask."""

    boxes: tuple[Box, ...] = ()
    lassos: tuple[Path, ...] = ()
    scribbles: tuple[Scribble, ...] = ()

    @classmethod
    def of(cls, ask: Ask) -> "ShapePrompts":
        """Take the part of an ask that is drawn as shapes."""
        return cls(ask.boxes, ask.lassos, ask.scribbles)

    def put_into(self, ask: Ask) -> Ask:
        """Return an ask with this part replaced."""
        return replace(ask.with_scribbles(self.scribbles), boxes=self.boxes, lassos=self.lassos)

    def __len__(self) -> int:
        return len(self.boxes) + len(self.lassos) + len(self.scribbles)


def read_shapes(layer: Shapes, where: SliceKey, shape: tuple[int, int]) -> ShapePrompts:
    """Return the prompts of a layer that lie on a slice of (H, W) pixels, clipped to it."""
    boxes: list[Box] = []
    lassos: list[Path] = []
    scribbles: list[Scribble] = []
    for corners, kind, positive in zip(layer.data, layer.shape_type, _positive(layer), strict=True):
        if not where.holds(corners[0]):
            continue
        path = _path(corners, where, shape)
        low, high = np.min(path, axis=0), np.max(path, axis=0)
        if kind in ("path", "line", "polyline"):
            scribbles.append(Scribble(path, positive))
        # A click without a drag leaves a speck.
        elif (high - low >= 1).all():
            if kind == "rectangle":
                boxes.append((float(low[0]), float(low[1]), float(high[0]), float(high[1])))
            else:
                lassos.append(path)
    return ShapePrompts(tuple(boxes), tuple(lassos), tuple(scribbles))


def show_shapes(layer: Shapes, prompts: ShapePrompts, where: SliceKey) -> None:
    """Make a layer hold exactly these prompts on a slice."""
    if layer.nshapes:
        layer.selected_data = set(range(layer.nshapes))
        layer.remove_selected()
    drawn: list[tuple[Path, str, bool]] = [
        (((x0, y0), (x1, y0), (x1, y1), (x0, y1)), "rectangle", True)
        for x0, y0, x1, y1 in prompts.boxes
    ]
    drawn += [(outline, "polygon", True) for outline in prompts.lassos]
    drawn += [(each.path, "path", each.positive) for each in prompts.scribbles]
    defaults = layer.feature_defaults
    for path, kind, positive in drawn:
        layer.feature_defaults = {"positive": positive}
        layer.add(
            np.array([where.place(x, y) for x, y in path]),
            shape_type=kind,
            edge_color=edge_color(kind, positive=positive),
        )
    layer.feature_defaults = defaults
    layer.selected_data = set()


def edge_color(kind: str, *, positive: bool) -> str:
    """Return the colour of a kind of shape."""
    if kind != "path":
        return REGION_COLOR
    return POSITIVE if positive else NEGATIVE


def _positive(layer: Shapes) -> list[bool]:
    return [bool(value) for value in layer.features["positive"]]


def _path(corners: NDArray[Any], where: SliceKey, shape: tuple[int, int]) -> Path:
    height, width = shape
    found = []
    for corner in corners:
        x, y = where.locate(corner)
        found.append((min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)))
    return tuple(found)
