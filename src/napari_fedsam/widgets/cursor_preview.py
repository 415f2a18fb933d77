"""Shows what a click under the cursor would give, while a key is held."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject

from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.widgets.prompt_layers import PromptLayers

if TYPE_CHECKING:
    from napari.viewer import Viewer

RELEASE_IS_LOST = {QEvent.Type.FocusOut, QEvent.Type.WindowDeactivate}
"""What happens when the release of a held key will go to another window."""


class CursorPreview(QObject):
    """Tells the session where the cursor is, from a key's press to its release.

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
        self._is_inside = False
        self._canvas = viewer.window._qt_viewer.canvas.native
        self._canvas.installEventFilter(self)
        viewer.mouse_move_callbacks.append(self._moved)

    def start(self) -> None:
        """Show the answer for the cursor, also when it does not move."""
        self._session.answering.hover.begin()
        if self._is_inside:
            self._point(self._viewer.cursor.position)

    def stop(self) -> None:
        """Show the answer to the prompts again."""
        self._session.answering.hover.end()

    def _moved(self, _viewer: Any, event: Any) -> None:
        self._is_inside = True
        self._point(event.position)

    def _point(self, position: Sequence[float]) -> None:
        self._session.answering.point_at(self._prompts.pixel_at(position))

    def eventFilter(self, _watched: Any, event: QEvent) -> bool:  # noqa: N802
        """Let go when the cursor leaves the canvas, or the key's release would not be seen."""
        if event.type() == QEvent.Type.Leave:
            self._is_inside = False
            self._session.answering.hover.point_at(None)
        elif event.type() in RELEASE_IS_LOST:
            self.stop()
        return False

    def close(self) -> None:
        """Let go of the viewer."""
        self.stop()
        self._canvas.removeEventFilter(self)
        self._viewer.mouse_move_callbacks.remove(self._moved)
