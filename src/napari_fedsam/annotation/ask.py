"""What a person asks of the model for one structure on one slice."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from napari_fedsam.sam.prompts import Box, Prompts


@dataclass(frozen=True)
class Click:
    """A point prompt at (x, y) in pixels of the slice, pixel centres at integers."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True)
class Ask:
    """The prompts of one structure on one slice, in the order in which they were given.

    Attributes
    ----------
    boxes : tuple of (x0, y0, x1, y1)
        Each box is an object of its own.
    clicks : tuple of Click
        Positive and negative points.
    proposal : bool
        Whether the model's own proposal was asked for; prompts then correct it.
    """

    boxes: tuple[Box, ...] = ()
    clicks: tuple[Click, ...] = ()
    proposal: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was asked."""
        return not (self.boxes or self.clicks or self.proposal)

    @property
    def prompt_count(self) -> int:
        """Number of boxes and clicks."""
        return len(self.boxes) + len(self.clicks)

    def with_click(self, x: float, y: float, *, positive: bool = True) -> Self:
        """Return this ask with one more click."""
        return replace(self, clicks=(*self.clicks, Click(x, y, positive)))

    def with_box(self, box: Box) -> Self:
        """Return this ask with one more box."""
        return replace(self, boxes=(*self.boxes, box))

    def starts_with(self, earlier: "Ask") -> bool:
        """Whether this ask only adds clicks to an earlier one that was not empty."""
        return (
            not earlier.is_empty
            and self.boxes == earlier.boxes
            and self.proposal == earlier.proposal
            and self.clicks[: len(earlier.clicks)] == earlier.clicks
        )

    def prompts(self) -> Prompts:
        """Return the clicks and the first box as the predictor takes them."""
        return Prompts(
            points=np.array([(click.x, click.y) for click in self.clicks], np.float32),
            labels=np.array([click.positive for click in self.clicks], np.bool_),
            box=self.boxes[0] if self.boxes else None,
        )

    def as_json(self) -> list[dict[str, Any]]:
        """Return the prompts as a case keeps them."""
        found: list[dict[str, Any]] = [{"kind": "none"}] if self.proposal else []
        found += [{"kind": "box", "xyxy": list(box)} for box in self.boxes]
        found += [
            {"kind": "point", "xy": [click.x, click.y], "positive": click.positive}
            for click in self.clicks
        ]
        return found
