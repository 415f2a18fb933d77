"""Has a click answered before it is given: when the cursor rests, and when the button goes down."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, QTimer

from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.widgets.prompt_layers import PromptLayers, Tool

if TYPE_CHECKING:
    from napari.viewer import Viewer

REST_MS = 80
"""A cursor that has not moved for so long is about to click, or to do nothing."""


class AnswerAhead(QObject):
    """Tells the session where a click is to be expected.

    People stop before they click, and napari adds a point only once the button is up again. What
    the model computes meanwhile is there by then; while the cursor moves nothing is computed.

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
        viewer.mouse_drag_callbacks.append(self._pressed)

    def _moved(self, _viewer: Any, _event: Any) -> None:
        self._session.answering.foreseen.expect_nothing()
        if self._gives_points:
            self._resting.start()

    def _pressed(self, _viewer: Any, event: Any) -> None:
        self._resting.stop()
        if event.button == Qt.MouseButton.LeftButton.value and not event.modifiers:
            self._expect_at(event.position)

    @property
    def _gives_points(self) -> bool:
        return self._prompts.tool in (Tool.POSITIVE, Tool.NEGATIVE)

    def _expect(self) -> None:
        self._expect_at(self._viewer.cursor.position)

    def _expect_at(self, position: Sequence[float]) -> None:
        pixel = self._prompts.pixel_at(position)
        # While the cursor rested another tool may have been taken up.
        if pixel is not None and self._gives_points:
            positive = self._prompts.tool is Tool.POSITIVE
            self._session.answering.expect_click(*pixel, positive=positive)

    def close(self) -> None:
        """Let go of the viewer."""
        self._resting.stop()
        self._viewer.mouse_move_callbacks.remove(self._moved)
        self._viewer.mouse_drag_callbacks.remove(self._pressed)
