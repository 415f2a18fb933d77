"""Undo and redo without a limit: what was done, and what was taken back."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Step:
    """Something that was done, with how to take it back and how to do it again."""

    undo: Callable[[], None]
    redo: Callable[[], None]


class History:
    """The steps of a session, in their order.

    Doing something new forgets what had been taken back.
    """

    def __init__(self) -> None:
        self._done: list[Step] = []
        self._undone: list[Step] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take back or to do again."""
        return not (self._done or self._undone)

    def record(self, step: Step) -> None:
        """Take note of a step that has just been done."""
        self._done.append(step)
        self._undone.clear()

    def drop(self, step: Step) -> bool:
        """Forget a step that has failed; return whether it was among those done."""
        if step not in self._done:
            return False
        self._done.remove(step)
        return True

    def undo(self) -> bool:
        """Take the last step back; return False when there is none.

        A step that raises stays where it was, to be tried again.
        """
        if not self._done:
            return False
        step = _moved(self._done, self._undone)
        try:
            step.undo()
        except Exception:
            _moved(self._undone, self._done)
            raise
        return True

    def redo(self) -> bool:
        """Do again what was last taken back; return False when there is nothing.

        A step that raises stays where it was, to be tried again.
        """
        if not self._undone:
            return False
        step = _moved(self._undone, self._done)
        try:
            step.redo()
        except Exception:
            _moved(self._done, self._undone)
            raise
        return True


def _moved(source: list[Step], target: list[Step]) -> Step:
    target.append(source.pop())
    return target[-1]
