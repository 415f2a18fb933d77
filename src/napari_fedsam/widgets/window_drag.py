"""Changes the window with the mouse, while a key is held."""

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject

from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.imaging.window import Window
from napari_fedsam.widgets.cursor_preview import RELEASE_IS_LOST

if TYPE_CHECKING:
    from napari.viewer import Viewer

_PIXELS_TO_DOUBLE = 150
"""How far the mouse moves to the right until the window is twice as wide."""

_PIXELS_OF_WIDTH = 300
"""How far it moves up until the level has fallen by the window's width."""


class WindowDrag(QObject):
    """Moving the mouse to the right widens the window, moving it up makes the scan brighter.

    Between a key's press and its release; no button is needed, so that no prompt is drawn.

    Parameters
    ----------
    viewer : napari.Viewer
    view : Viewpoint
    """

    def __init__(self, viewer: "Viewer", view: Viewpoint) -> None:
        super().__init__()
        self._viewer = viewer
        self._view = view
        self._canvas = viewer.window._qt_viewer.canvas.native
        self._from: tuple[float, float, Window] | None = None

    def start(self) -> None:
        """Begin where the mouse is next seen."""
        self.stop()
        if self._view.scan is not None and not self._view.scan.is_colour:
            self._viewer.mouse_move_callbacks.append(self._moved)
            self._canvas.installEventFilter(self)

    def stop(self) -> None:
        """Keep the window as it is now."""
        self._from = None
        if self._moved in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._moved)
            self._canvas.removeEventFilter(self)

    def eventFilter(self, _watched: Any, event: QEvent) -> bool:  # noqa: N802
        """Stop when the key's release would not be seen."""
        if event.type() in RELEASE_IS_LOST:
            self.stop()
        return False

    def _moved(self, _viewer: Any, event: Any) -> None:
        x, y = (float(value) for value in event.pos)
        if self._from is None:
            self._from = x, y, self._view.window
        first_x, first_y, window = self._from
        level = window.level + (y - first_y) / _PIXELS_OF_WIDTH * window.width
        width = window.width * 2 ** ((x - first_x) / _PIXELS_TO_DOUBLE)
        self._view.set_window(Window.from_level(level, width))
