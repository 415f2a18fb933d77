"""Has the click answered that a resting cursor is about to give."""

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.widgets.prompt_layers import PromptLayers, Tool

if TYPE_CHECKING:
    from napari.viewer import Viewer

REST_MS = 80
"""A cursor that has not moved for so long is about to click, or to do nothing."""


class AnswerAhead(QObject):
    """Tells the session where a click is to be expected.

    People stop before they click. What the model computes meanwhile is there when they do; while
    the cursor moves nothing is computed.

    Parameters
    ----------
    viewer : napari.Viewer
    session : AnnotationSession
    prompts : PromptLayers
    """

    def __init__(self, viewer: "Viewer", session: AnnotationSession, prompts: PromptLayers) -> None:
        super().__init__()
        self._viewer = viewer
        self._session = session
        self._prompts = prompts
        self._resting = QTimer(self)
        self._resting.setSingleShot(True)
        self._resting.setInterval(REST_MS)
        self._resting.timeout.connect(self._expect)
        viewer.mouse_move_callbacks.append(self._moved)

    def _moved(self, _viewer: Any, _event: Any) -> None:
        self._session.answering.foreseen.expect_nothing()
        if self._gives_points:
            self._resting.start()

    @property
    def _gives_points(self) -> bool:
        return self._prompts.tool in (Tool.POSITIVE, Tool.NEGATIVE)

    def _expect(self) -> None:
        pixel = self._prompts.pixel_at(self._viewer.cursor.position)
        # Another tool may have been taken up meanwhile.
        if pixel is not None and self._gives_points:
            positive = self._prompts.tool is Tool.POSITIVE
            self._session.answering.expect_click(*pixel, positive=positive)

    def close(self) -> None:
        """Let go of the viewer."""
        self._resting.stop()
        self._viewer.mouse_move_callbacks.remove(self._moved)
