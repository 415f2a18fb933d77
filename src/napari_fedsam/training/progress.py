"""How far a long piece of work has come, and when it will end."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A point on the way.

    Parameters
    ----------
    fraction : float
        Done so far, 0..1.
    seconds_left : float or None
        An estimate from the pace so far; None before the first step.
    """

    fraction: float
    seconds_left: float | None


class ProgressMeter:
    """Counts steps and estimates the time left.

    Parameters
    ----------
    total : int
        Steps in all.
    report : callable, optional
        Called with a `Progress` after every step.
    done : int
        Steps that an earlier, interrupted run has done.
    """

    def __init__(
        self, total: int, report: Callable[[Progress], None] | None, *, done: int = 0
    ) -> None:
        self._total = total
        self._report = report
        self._done = self._start = done
        self._started = time.perf_counter()

    def step(self) -> None:
        """Count one step."""
        self._done += 1
        if self._report is None:
            return
        seconds = time.perf_counter() - self._started
        left = seconds / (self._done - self._start) * (self._total - self._done)
        self._report(Progress(self._done / self._total, left))
