"""The memory of a process over time: its own, and its share of what others use, too."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psutil

_INTERVAL_SECONDS = 0.5


class MemoryWatch:
    """Keeps the highest memory of a process for each stage of what it does, while a block lasts.

    Measured is the proportional set size: memory of the process alone, plus its share of pages
    that others map too. Where the system does not tell that (it needs Linux), pages of the
    process alone are counted.

    Parameters
    ----------
    find : callable
        Returns the process, None while there is none.
    stage : callable
        Returns the present stage's number.

    Attributes
    ----------
    peaks : dict of int to float
        In MiB by stage.
    """

    def __init__(self, find: Callable[[], psutil.Process | None], stage: Callable[[], int]) -> None:
        self._find = find
        self._stage = stage
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peaks: dict[int, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def peak(self) -> float:
        """The highest of all, in MiB."""
        return max(self.peaks.values(), default=0.0)

    def _watch(self) -> None:
        process = None
        while not self._ended.wait(_INTERVAL_SECONDS):
            process = process or self._find()
            if process is None:
                continue
            try:
                memory = memory_mib(process)
            except psutil.Error:
                # It has ended; another may take its place.
                process = None
                continue
            stage = self._stage()
            self.peaks[stage] = max(memory, self.peaks.get(stage, 0.0))


def memory_mib(process: psutil.Process) -> float:
    """Return the memory of a process in MiB, see `MemoryWatch`."""
    memory = process.memory_full_info()
    return float(getattr(memory, "pss", memory.uss)) / 2**20
