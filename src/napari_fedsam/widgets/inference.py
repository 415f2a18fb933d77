"""Drives a session's pending work through a thread, the newest wish first."""

from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.work import EncodeWork, Work
from napari_fedsam.errors import FedSamError
from napari_fedsam.widgets.background import Background

SETTLE_MS = 150
"""A slice that is only scrolled past is not encoded."""


class InferenceLoop(QObject):
    """Runs one piece of work at a time; what was wanted meanwhile is asked for afterwards.

    `state_changed` carries "encoding", "predicting" or "".
    """

    state_changed = Signal(str)

    def __init__(self, session: AnnotationSession, background: Background) -> None:
        super().__init__()
        self._session = session
        self._background = background
        self._running: Work | None = None
        self._settling = QTimer(self)
        self._settling.setSingleShot(True)
        self._settling.setInterval(SETTLE_MS)
        self._settling.timeout.connect(self._wake)
        session.answering.work_wanted.connect(self._wake)
        session.view.slice_changed.connect(self._settle)
        session.view.window_changed.connect(self._settle)

    @property
    def idle(self) -> bool:
        """Whether everything wanted has been computed."""
        return (
            self._running is None
            and not self._settling.isActive()
            and self._session.answering.pending_work() is None
        )

    def _settle(self) -> None:
        self._settling.start()

    def _wake(self) -> None:
        if self._running is not None or self._background.closed:
            return
        work = self._session.answering.pending_work(ahead=not self._settling.isActive())
        if work is None:
            return
        self._running = work
        self.state_changed.emit("encoding" if isinstance(work, EncodeWork) else "predicting")
        self._background.run("inference", work.run, self._done, self._failed)

    def _done(self, result: Any) -> None:
        work = self._rest()
        self._session.answering.finish(work, result)

    def _failed(self, error: FedSamError) -> None:
        work = self._rest()
        self._session.answering.refuse(work, error)

    def _rest(self) -> Work:
        work, self._running = self._running, None
        assert work is not None  # noqa: S101
        self.state_changed.emit("")
        return work

    def close(self) -> None:
        """Start nothing more."""
        self._settling.stop()
        self._session.answering.work_wanted.disconnect(self._wake)
