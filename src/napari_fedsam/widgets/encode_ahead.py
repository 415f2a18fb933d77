"""Encodes the slices that a person may look at next, in a thread that yields to them at once."""

import threading
import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, QTimer

from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.work import EncodeWork
from napari_fedsam.errors import FedSamError
from napari_fedsam.sam.prediction import ImageEmbedding
from napari_fedsam.widgets.background import Background, Done, Failed
from napari_fedsam.widgets.inference import InferenceLoop

PAUSE_MS = 3000
"""How long to leave a busy machine alone."""

_BUSY = 2.5
"""A slice that takes this many times the fastest one says that others need the processor."""

_MOMENT = 0.1
"""A fifth of a second is too short to judge by, seconds."""


class EncodeAhead(QObject):
    """Runs `Answering.work_ahead`, slice after slice, while nothing else is wanted.

    It waits between the encoder's stages, a few hundredths of a second apart, while a prompt is
    answered or the slice on screen is encoded.
    """

    def __init__(self, session: AnnotationSession, inference: InferenceLoop) -> None:
        super().__init__()
        self._session = session
        self._background = Background(self)
        self._free = threading.Event()
        self._free.set()
        self._closed = False
        self._running: EncodeWork | None = None
        self._fastest = float("inf")
        self._resting = QTimer(self)
        self._resting.setSingleShot(True)
        self._resting.timeout.connect(self._wake)
        inference.state_changed.connect(self._make_way)
        session.answering.work_wanted.connect(self._wake)
        session.view.slice_changed.connect(self._wake)
        session.view.window_changed.connect(self._wake)

    @property
    def running(self) -> bool:
        """Whether a slice is being encoded, or waits for its turn."""
        return self._running is not None

    def share(self, job: Callable[[Callable[[], None]], Any], done: Done, failed: Failed) -> None:
        """Run another job in the same thread, in turn with slices.

        Parameters
        ----------
        job : callable
            Is given what to call often: it waits while the person is answered.
        done, failed : callable
            One of them is called in the window's thread.
        """
        self._background.run("ahead", lambda: job(self._wait), done, failed)

    def _wait(self) -> None:
        self._free.wait()

    def _make_way(self, state: str) -> None:
        if state:
            self._free.clear()
        else:
            self._free.set()
            self._wake()

    def _wake(self) -> None:
        if self._closed or self.running or self._resting.isActive() or not self._free.is_set():
            return
        # An ask that is about to be answered comes first.
        if self._session.answering.pending_work() is not None:
            return
        work = self._session.answering.work_ahead()
        if work is None:
            return
        self._running = work
        self._background.run("ahead", lambda: self._encode(work), self._done, self._failed)

    def _encode(self, work: EncodeWork) -> tuple[ImageEmbedding, float]:
        waited = 0.0

        def between() -> None:
            nonlocal waited
            start = time.perf_counter()
            self._wait()
            waited += time.perf_counter() - start

        start = time.perf_counter()
        embedding = work.run(between)
        return embedding, time.perf_counter() - start - waited

    def _done(self, result: tuple[ImageEmbedding, float]) -> None:
        work, self._running = self._running, None
        embedding, seconds = result
        if work is not None:
            self._session.answering.finish_ahead(work, embedding)
        if seconds > _MOMENT:
            is_busy = seconds > _BUSY * self._fastest
            self._fastest = min(self._fastest, seconds)
            if is_busy:
                self._resting.start(PAUSE_MS)
                return
        self._wake()

    def _failed(self, error: FedSamError) -> None:
        # The slice is told about once it is on screen and asked for.
        del error
        self._running = None

    def close(self) -> None:
        """Start nothing more."""
        self._closed = True
        self._free.set()
        self._resting.stop()
        self._session.answering.work_wanted.disconnect(self._wake)
        self._background.close()
