"""Runs slow functions in threads and brings their results back to the window's thread."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_fedsam.errors import FedSamError

_log = logging.getLogger(__name__)

Done = Callable[[Any], None]
Failed = Callable[[FedSamError], None]


class UnexpectedError(FedSamError):
    """Something failed that this program did not foresee."""


class _Lane(QObject):
    """One thread with a queue; results arrive as Qt events."""

    finished = Signal(object)

    def __init__(self, name: str) -> None:
        super().__init__()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"napari-fedsam-{name}")
        # Queued even for a job that was done at once: `run` never calls back before it returns.
        self.finished.connect(self._deliver, Qt.ConnectionType.QueuedConnection)
        self.pending = 0
        self.closed = False

    def run(self, job: Callable[[], Any], done: Done, failed: Failed) -> None:
        if self.closed:
            return
        self.pending += 1
        future = self._executor.submit(job)
        future.add_done_callback(lambda ready: self._hand_over(ready, done, failed))

    def _hand_over(self, future: Future[Any], done: Done, failed: Failed) -> None:
        """Leave the worker thread: a signal to an object of the window's thread is queued."""
        if not self.closed and not future.cancelled():
            self.finished.emit((future, done, failed))

    def _deliver(self, message: tuple[Future[Any], Done, Failed]) -> None:
        future, done, failed = message
        self.pending -= 1
        if self.closed:
            return
        error = future.exception()
        if error is None:
            done(future.result())
        elif isinstance(error, FedSamError):
            failed(error)
        else:
            _log.error("A background step failed", exc_info=error)
            failed(
                UnexpectedError(
                    f"An unexpected {type(error).__name__} stopped a background step: try again, "
                    "and report it with the log if it comes back."
                )
            )

    def close(self) -> None:
        self.closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)


class DiskLane:
    """The session's disk jobs, one after another in a thread (see `annotation.acceptance`)."""

    def __init__(self, background: "Background") -> None:
        self._background = background

    def run(self, job: Callable[[], Any], done: Done, failed: Failed) -> None:
        """Run a job, then call one of the two in the window's thread."""
        self._background.run("disk", job, done, failed)


class Background(QObject):
    """Named threads for one widget: each lane runs its jobs in order.

    `idle_changed` fires when the last pending job has been delivered, or the first one starts.
    """

    idle_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._lanes: dict[str, _Lane] = {}
        self._owner = threading.get_ident()
        self.closed = False

    @property
    def idle(self) -> bool:
        """Whether no job is running or waiting."""
        return not any(lane.pending for lane in self._lanes.values())

    def busy(self, lane: str) -> bool:
        """Whether a lane has a job."""
        return lane in self._lanes and self._lanes[lane].pending > 0

    def run(self, lane: str, job: Callable[[], Any], done: Done, failed: Failed) -> None:
        """Run a job in a lane's thread.

        Parameters
        ----------
        lane : str
            Jobs of one lane run one after another.
        job : callable
            Runs in the thread; must not touch the window.
        done, failed : callable
            One of them is called in the window's thread.
        """
        if self.closed:
            return
        if lane not in self._lanes:
            self._lanes[lane] = _Lane(lane)
        self._lanes[lane].run(job, self._then(done), self._then(failed))
        self.idle_changed.emit()

    def _then(self, follow: Callable[[Any], None]) -> Callable[[Any], None]:
        def deliver(value: Any) -> None:
            try:
                follow(value)
            finally:
                # After the follow-up, which may have started the next job.
                QTimer.singleShot(0, self._tell_idle)

        return deliver

    def _tell_idle(self) -> None:
        if not self.closed:
            self.idle_changed.emit()

    def close(self) -> None:
        """Drop what waits, let what runs finish, deliver nothing more."""
        self.closed = True
        for lane in self._lanes.values():
            lane.close()
