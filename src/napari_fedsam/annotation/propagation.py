"""From prompted slices to the whole structure: each slice starts from its neighbour's mask."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_fedsam.annotation.answer import answer
from napari_fedsam.annotation.ask import Ask
from napari_fedsam.sam.prediction import ImageEmbedding
from napari_fedsam.sam.predictor import Predictor

Mask = NDArray[np.bool_]

LOOK_ROOM = 2.0
"""By how many spreads the median brightness may differ from where propagation started."""

LEAST_ROOM = 8.0
"""A difference of so many of 256 grey levels is always allowed."""

_LEAST_PART = 0.05
"""An object smaller than this part of the largest one is not followed."""


@dataclass(frozen=True)
class Limits:
    """When propagation stops in one direction.

    Attributes
    ----------
    first, last : int
        The slices that it may fill, both included. It may pass through others to come there.
    least_confidence : float
        The lowest IoU that the model may predict for its own mask.
    most_growth, most_shrinking : float
        By how many times the area may grow, and shrink, from one slice to the next. Structures
        taper off at their ends; one that suddenly grows has leaked.
    """

    first: int
    last: int
    least_confidence: float = 0.6
    most_growth: float = 2.0
    most_shrinking: float = 4.0


@dataclass(frozen=True, eq=False)
class Found:
    """The mask of one slice; None says that the structure ended there, and `why`.

    What has a mask lies within the limits; the structure may end before it comes there.
    """

    index: int
    mask: Mask | None
    why: str = ""


@dataclass(frozen=True)
class Look:
    """The brightness of what a mask covers: its median, and its spread (scaled median deviation).

    The scale is such that the spread is the standard deviation of normal noise.
    """

    middle: float
    spread: float

    @classmethod
    def of(cls, pixels: NDArray[Any], mask: Mask) -> "Look":
        """Look at the pixels of a slice, (H, W) or (H, W, 3) uint8, under a mask."""
        values = pixels[mask].astype(np.float32)
        if not values.size:
            return cls(0.0, 0.0)
        middle = float(np.median(values))
        return cls(middle, 1.4826 * float(np.median(np.abs(values - middle))))

    def why_not(self, other: "Look") -> str:
        """Say that another mask covers something else, or nothing."""
        room = max(LOOK_ROOM * self.spread, LEAST_ROOM)
        return "" if abs(other.middle - self.middle) <= room else "it looks different"


class Propagation:
    """Carries masks from slice to slice, from every prompted slice in both directions.

    Between two prompted slices each takes the half that is nearer to it, so that prompts on a
    later slice correct what came from an earlier one.

    Parameters
    ----------
    predictor : Predictor
    encode : callable
        Returns the embedding of the slice with an index (slow).
    seeds : mapping of int to mask or Ask
        Slices with a mask that a person accepted (all False: the structure is absent), or with
        prompts, which are answered first. At least one.
    limits : Limits
    structure : int, optional
        The structure's value, for a model that knows it.
    look : callable, optional
        Returns the `Look` of a mask on the slice with an index: a mask that looks unlike the one
        it started from is not believed.
    """

    def __init__(
        self,
        predictor: Predictor,
        encode: Callable[[int], ImageEmbedding],
        seeds: Mapping[int, Mask | Ask],
        limits: Limits,
        *,
        structure: int | None = None,
        look: Callable[[int, Mask], "Look"] | None = None,
    ) -> None:
        self._look = look
        self._predictor = predictor
        self._encode = encode
        self._seeds = seeds
        self._limits = limits
        self._structure = structure

    @property
    def slice_count(self) -> int:
        """The most slices that it may fill."""
        return self._limits.last - self._limits.first + 1

    def run(self) -> Iterator[Found]:
        """Yield what is found, slice by slice (slow); stopping early leaves the rest out."""
        for index, seed in sorted(self._seeds.items()):
            ways = [way for step in (+1, -1) if (way := self._way(index, step))]
            is_wanted = isinstance(seed, Ask) and self._may_fill(index)
            if not (ways or is_wanted):
                continue
            start = self._answer(index, seed) if isinstance(seed, Ask) else seed
            if is_wanted:
                yield Found(index, start)
            if start.any():
                for way in ways:
                    yield from self._one_way(index, start, way)

    def _one_way(self, seed: int, start: Mask, way: range) -> Iterator[Found]:
        before = start
        look = None if self._look is None else self._look(seed, start)
        for index in way:
            mask, score = self._follow(self._encode(index), before)
            why = self._why_not(mask, score, before)
            if not why and look is not None and self._look is not None:
                why = look.why_not(self._look(index, mask))
            if why:
                yield Found(index, None, why)
                return
            if self._may_fill(index):
                yield Found(index, mask)
            before = mask

    def _follow(self, embedding: ImageEmbedding, before: Mask) -> tuple[Mask, float]:
        """Follow each object of a mask into the next slice."""
        parts = [
            self._predictor.follow(embedding, each, structure=self._structure)
            for each in _objects(before)
        ]
        found = [part for part in parts if part.mask.any()]
        if not found:
            return np.zeros_like(before), 0.0
        largest = max(found, key=lambda part: int(part.mask.sum()))
        return np.logical_or.reduce([part.mask for part in found]), largest.score

    def _way(self, seed: int, step: int) -> range:
        """Return the slices of a direction: to the limit, or half way to the next seed.

        Empty where none of them may be filled.
        """
        end = self._limits.last if step > 0 else self._limits.first
        beyond = [index for index in self._seeds if (index - seed) * step > 0]
        if beyond:
            gap = min(abs(index - seed) for index in beyond)
            # The slice in the middle belongs to the earlier seed.
            reach = gap // 2 if step > 0 else (gap - 1) // 2
            end = min(end, seed + reach) if step > 0 else max(end, seed - reach)
        return range(seed + step, end + step, step) if self._may_fill(end) else range(0)

    def _may_fill(self, index: int) -> bool:
        return self._limits.first <= index <= self._limits.last

    def _why_not(self, mask: Mask, score: float, before: Mask) -> str:
        """Say why a mask is not believed, or nothing."""
        area, area_before = int(mask.sum()), int(before.sum())
        if not area:
            return "nothing was found"
        if score < self._limits.least_confidence:
            return f"the model was unsure ({score:.2f})"
        if area > self._limits.most_growth * area_before:
            return "the area grew suddenly"
        if area * self._limits.most_shrinking < area_before:
            return "the area shrank suddenly"
        if not (mask & before).any():
            return "the mask jumped elsewhere"
        return ""

    def _answer(self, index: int, ask: Ask) -> Mask:
        embedding = self._encode(index)
        return answer(self._predictor, embedding, ask, structure=self._structure).mask


def _objects(mask: Mask) -> list[Mask]:
    labelled, count = ndimage.label(mask)
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    return [
        labelled == value + 1 for value in range(count) if sizes[value] >= _LEAST_PART * sizes.max()
    ]
