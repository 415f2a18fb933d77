"""What a person asks of the model for one structure on one slice."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.bit_mask import BitMask
from napari_fedsam.annotation.drawing import points_along
from napari_fedsam.sam.prompts import Box, Prompts

Path = tuple[tuple[float, float], ...]
"""Positions (x, y) in pixels of the slice, pixel centres at integers."""

POINTS_OF_A_SCRIBBLE = 8
"""How many points a scribble gives the model at most."""


@dataclass(frozen=True)
class Click:
    """A point prompt at (x, y) in pixels of the slice, pixel centres at integers."""

    x: float
    y: float
    positive: bool = True

    @property
    def points(self) -> Path:
        """The one point."""
        return ((self.x, self.y),)

    def as_json(self) -> dict[str, Any]:
        """Return the prompt as a case keeps it."""
        return {"kind": "point", "xy": [self.x, self.y], "positive": self.positive}


@dataclass(frozen=True)
class Scribble:
    """A line drawn over what belongs to the structure, or over what does not."""

    path: Path
    positive: bool = True

    @property
    def points(self) -> Path:
        """Points along it, for the model."""
        return tuple(points_along(self.path, POINTS_OF_A_SCRIBBLE))

    def as_json(self) -> dict[str, Any]:
        """Return the prompt as a case keeps it."""
        path = [list(point) for point in self.path]
        return {"kind": "scribble", "path": path, "positive": self.positive}


@dataclass(frozen=True)
class Painting:
    """Pixels that were painted or erased by hand on top of the answer."""

    added: BitMask
    removed: BitMask

    @classmethod
    def of(cls, added: NDArray[np.bool_], removed: NDArray[np.bool_]) -> Self:
        """Make one of two masks of shape (H, W)."""
        return cls(BitMask.of(added), BitMask.of(removed))

    def as_json(self) -> dict[str, Any]:
        """Return the prompt as a case keeps it."""
        return {
            "kind": "painting",
            "shape": list(self.added.shape),
            "added": self.added.text,
            "removed": self.removed.text,
        }


Correction = Click | Scribble | Painting


@dataclass(frozen=True)
class Ask:
    """The prompts of one structure on one slice, in the order in which they were given.

    Attributes
    ----------
    boxes : tuple of (x0, y0, x1, y1)
        Each box is an object of its own.
    lassos : tuple of paths
        Closed outlines; each holds an object of its own, and nothing of it lies outside.
    mask : BitMask or None
        An existing mask to start from; each of its components is an object of its own.
    proposal : bool
        Whether the model's own proposal was asked for; prompts then correct it.
    corrections : tuple of Click, Scribble and Painting
        What is to be changed, each building on what came before.
    automatic : bool
        Whether it was made on arriving at the slice and the person has not touched it. It does not
        change the answer, so asks that differ in nothing else are equal.
    """

    boxes: tuple[Box, ...] = ()
    lassos: tuple[Path, ...] = ()
    mask: BitMask | None = None
    proposal: bool = False
    corrections: tuple[Correction, ...] = ()
    automatic: bool = field(default=False, compare=False)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was asked."""
        return not (self.has_region or self.corrections)

    @property
    def has_region(self) -> bool:
        """Whether something says where to look: a box, a lasso, a mask or a proposal."""
        return bool(self.boxes or self.lassos or self.mask or self.proposal)

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The positive and negative points."""
        return tuple(each for each in self.corrections if isinstance(each, Click))

    @property
    def scribbles(self) -> tuple[Scribble, ...]:
        """The positive and negative lines."""
        return tuple(each for each in self.corrections if isinstance(each, Scribble))

    @property
    def prompt_count(self) -> int:
        """Number of things that the person gave."""
        given = len(self.boxes) + len(self.lassos) + len(self.corrections)
        return given + (self.mask is not None)

    def with_correction(self, correction: Correction) -> Self:
        """Return this ask with one more correction."""
        return replace(self, corrections=(*self.corrections, correction))

    def with_click(self, x: float, y: float, *, positive: bool = True) -> Self:
        """Return this ask with one more click."""
        return self.with_correction(Click(x, y, positive))

    def with_box(self, box: Box) -> Self:
        """Return this ask with one more box."""
        return replace(self, boxes=(*self.boxes, box))

    def with_lasso(self, outline: Path) -> Self:
        """Return this ask with one more lasso."""
        return replace(self, lassos=(*self.lassos, outline))

    def with_clicks(self, clicks: tuple[Click, ...]) -> Self:
        """Return this ask with its clicks moved, added or removed; the order is kept."""
        return replace(self, corrections=_with_kind(self.corrections, Click, clicks))

    def with_scribbles(self, scribbles: tuple[Scribble, ...]) -> Self:
        """Return this ask with its scribbles moved, added or removed; the order is kept."""
        return replace(self, corrections=_with_kind(self.corrections, Scribble, scribbles))

    def starts_with(self, earlier: "Ask") -> bool:
        """Whether this ask only adds corrections to an earlier one that was not empty."""
        count = len(earlier.corrections)
        same = replace(self, corrections=self.corrections[:count])
        return not earlier.is_empty and same == earlier

    def prompts(self) -> Prompts:
        """Return points, the first box and the mask as the predictor takes them."""
        spoken = [each for each in self.corrections if not isinstance(each, Painting)]
        points = [point for each in spoken for point in each.points]
        labels = [each.positive for each in spoken for _ in each.points]
        return Prompts(
            points=np.array(points, np.float32),
            labels=np.array(labels, np.bool_),
            box=self.boxes[0] if self.boxes else None,
            mask=None if self.mask is None else self.mask.unpacked(),
        )

    def as_json(self) -> list[dict[str, Any]]:
        """Return the prompts as a case keeps them."""
        found: list[dict[str, Any]] = [{"kind": "none"}] if self.proposal else []
        if self.mask is not None:
            found.append({"kind": "mask", "shape": list(self.mask.shape), "mask": self.mask.text})
        found += [{"kind": "box", "xyxy": list(box)} for box in self.boxes]
        found += [
            {"kind": "lasso", "outline": [list(point) for point in outline]}
            for outline in self.lassos
        ]
        return found + [each.as_json() for each in self.corrections]

    @classmethod
    def from_json(cls, found: Iterable[dict[str, Any]]) -> Self:
        """Return the ask that `as_json` gave.

        Raises
        ------
        AnnotationError, KeyError, TypeError or ValueError
            When it is no such list.
        """
        ask = cls()
        for each in found:
            ask = _with_json(ask, each)
        return ask


def _with_json(ask: Any, each: dict[str, Any]) -> Any:
    kind = each["kind"]
    if kind == "none":
        return replace(ask, proposal=True)
    if kind == "box":
        x0, y0, x1, y1 = map(float, each["xyxy"])
        return ask.with_box((x0, y0, x1, y1))
    if kind == "lasso":
        return ask.with_lasso(_path(each["outline"]))
    if kind == "mask":
        return replace(ask, mask=_mask(each, "mask"))
    return ask.with_correction(_correction(each))


def _correction(each: dict[str, Any]) -> Correction:
    kind = each["kind"]
    if kind == "point":
        x, y = map(float, each["xy"])
        return Click(x, y, bool(each["positive"]))
    if kind == "scribble":
        return Scribble(_path(each["path"]), bool(each["positive"]))
    if kind == "painting":
        return Painting(_mask(each, "added"), _mask(each, "removed"))
    raise ValueError(f"{kind} is no kind of prompt")


def _mask(each: dict[str, Any], name: str) -> BitMask:
    height, width = each["shape"]
    return BitMask.from_text((int(height), int(width)), each[name])


def _path(points: Iterable[Iterable[float]]) -> Path:
    return tuple((float(x), float(y)) for x, y in points)


def _with_kind(
    before: tuple[Correction, ...], kind: type[Correction], now: tuple[Correction, ...]
) -> tuple[Correction, ...]:
    """Replace the corrections of one kind, leaving the others where they are."""
    left = list(now)
    count = sum(isinstance(each, kind) for each in before)
    merged: list[Correction] = []
    for each in before:
        if not isinstance(each, kind):
            merged.append(each)
        elif len(now) < count and each in left:
            left.remove(each)
            merged.append(each)
        elif len(now) >= count:
            merged.append(left.pop(0))
    return (*merged, *left)
