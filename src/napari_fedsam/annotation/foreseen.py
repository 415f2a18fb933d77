"""The answer to the click that a resting cursor is about to give."""

import math
from collections.abc import Callable

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.annotation.work import Preview

_SAME_PLACE = 1.0
"""Nobody clicks again this near to a click, pixels."""


class Foreseen:
    """One click that is expected, and its answer once that has been computed.

    Parameters
    ----------
    view : Viewpoint
        What is looked at.
    current_ask : callable
        Returns the prompts of the present place.
    """

    def __init__(self, view: Viewpoint, current_ask: Callable[[], Ask]) -> None:
        self._view = view
        self._current_ask = current_ask
        self._click: tuple[float, float, bool] | None = None
        self._answer: Preview | None = None

    def expect(self, x: float, y: float, *, positive: bool) -> None:
        """Expect a click at (x, y) in pixels of the slice."""
        self._click = x, y, positive

    def expect_nothing(self) -> None:
        """Expect no click any more; an answer that is there is kept."""
        self._click = None

    def drop(self) -> None:
        """Expect nothing, and forget the answer."""
        self._click = self._answer = None

    @property
    def answer(self) -> Preview | None:
        """The newest answer to an expected click; nothing on screen shows it."""
        found = self._answer
        return found if found is not None and found.is_of(self._view) else None

    @property
    def pending(self) -> Ask | None:
        """The present prompts with the expected click; None when that is answered."""
        if self._click is None:
            return None
        x, y, positive = self._click
        ask = self._current_ask()
        if any(math.dist((click.x, click.y), (x, y)) < _SAME_PLACE for click in ask.clicks):
            return None
        expected = ask.with_click(x, y, positive=positive)
        return None if self.answer is not None and self.answer.ask == expected else expected

    def take(self, preview: Preview) -> None:
        """Take an answer; one that was not expected is dropped."""
        if preview.ask == self.pending:
            self._answer = preview
