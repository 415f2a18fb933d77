"""What a positive point under the cursor would give, while a person asks to see it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from psygnal import Signal

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.annotation.work import Preview

_SAME_PLACE = 1.0
"""A click this near to the cursor has been answered already, pixels."""


class Hover:
    """The cursor's position as a positive point that is no prompt.

    Parameters
    ----------
    view : Viewpoint
        What is looked at.
    current_ask : callable
        Returns the prompts of the present place.

    Attributes
    ----------
    is_wanted : bool
        Whether the cursor is to be answered for at all.
    """

    changed: ClassVar[Signal] = Signal()

    def __init__(self, view: Viewpoint, current_ask: Callable[[], Ask]) -> None:
        self._view = view
        self._current_ask = current_ask
        self.is_wanted = False
        self._point: tuple[float, float] | None = None
        self._answer: Preview | None = None

    def begin(self) -> None:
        """Answer for the cursor from now on."""
        self.is_wanted = True

    def point_at(self, point: tuple[float, float] | None) -> None:
        """Take the cursor's position (x, y) in pixels of the slice; None when it is elsewhere.

        Positions are not queued: the newest one counts.
        """
        if self.is_wanted:
            self._point = point
            if point is None:
                self.drop()

    def end(self) -> None:
        """Answer for the cursor no more."""
        self.is_wanted = False
        self._point = None
        self.drop()

    def drop(self) -> None:
        """Show no answer until the next one comes."""
        if self._answer is not None:
            self._answer = None
            self.changed.emit()

    @property
    def ask(self) -> Ask | None:
        """The present prompts with one more point; None when that is not wanted."""
        if self._point is None:
            return None
        ask = self._current_ask()
        if any(math.dist((c.x, c.y), self._point) < _SAME_PLACE for c in ask.clicks):
            return None
        return ask.with_click(*self._point)

    @property
    def pending(self) -> Ask | None:
        """What is to be answered next; None when the answer is there."""
        ask, shown = self.ask, self.preview
        return None if shown is not None and shown.ask == ask else ask

    @property
    def preview(self) -> Preview | None:
        """The newest answer, which may lag behind the cursor but not behind the prompts."""
        answer = self._answer
        return answer if answer is not None and self._fits(answer) else None

    def take(self, preview: Preview) -> None:
        """Take an answer; one for other prompts, or that is wanted no more, is dropped."""
        if self.ask is not None and self._fits(preview):
            self._answer = preview
            self.changed.emit()

    def _fits(self, preview: Preview) -> bool:
        if not preview.is_of(self._view):
            return False
        # Its last correction is the point.
        return replace(preview.ask, corrections=preview.ask.corrections[:-1]) == self._current_ask()
