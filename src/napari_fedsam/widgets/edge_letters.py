"""The patient's sides at the edges of the canvas: R, L, A, P, S, I."""

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QLabel

from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.imaging.orientation import EdgeLetters

if TYPE_CHECKING:
    from napari.viewer import Viewer

_STYLE = (
    "color: white; background: rgb(45, 45, 48); border-radius: 3px; padding: 1px 5px;"
    "font-weight: bold; font-size: 13px;"
)
_MARGIN = 8


class CanvasLetters(QObject):
    """Four small labels on the canvas that follow the plane, the axes and the camera."""

    def __init__(self, viewer: "Viewer", view: Viewpoint) -> None:
        super().__init__()
        self._viewer = viewer
        self._view = view
        # napari 0.9 moved the camera into the scene.
        self._camera = getattr(viewer, "scene", viewer).camera
        self._canvas = viewer.window._qt_viewer.canvas.native
        self.labels = {edge: self._label(edge) for edge in ("left", "right", "top", "bottom")}
        self._canvas.installEventFilter(self)
        self._sources = (
            viewer.dims.events.order,
            viewer.dims.events.ndisplay,
            self._camera.events.orientation,
        )
        for source in self._sources:
            source.connect(self.refresh)
        view.scan_changed.connect(self.refresh)
        self.refresh()

    def _label(self, edge: str) -> QLabel:
        label = QLabel(self._canvas)
        label.setObjectName(f"napari-fedsam-edge-{edge}")
        label.setStyleSheet(_STYLE)
        label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        label.hide()
        return label

    @property
    def letters(self) -> EdgeLetters:
        """The letters for what is displayed now; empty where nothing is known."""
        dims, scan = self._viewer.dims, self._view.scan
        if scan is None or dims.ndisplay != 2 or dims.ndim < 3:
            return EdgeLetters()
        plane, down, right = (axis - (dims.ndim - 3) for axis in dims.order[-3:])
        if min(plane, down, right) < 0:
            return EdgeLetters()
        found = scan.orientation.edge_letters(plane)
        if down > right:
            found = EdgeLetters(found.top, found.bottom, found.left, found.right)
        vertical, horizontal = self._camera.orientation2d
        if str(getattr(vertical, "value", vertical)) == "up":
            found = EdgeLetters(found.left, found.right, found.bottom, found.top)
        if str(getattr(horizontal, "value", horizontal)) == "left":
            found = EdgeLetters(found.right, found.left, found.top, found.bottom)
        return found

    def refresh(self) -> None:
        """Write the letters and place them at the middle of the canvas' edges."""
        letters = self.letters
        width, height = self._canvas.width(), self._canvas.height()
        for edge, label in self.labels.items():
            text = getattr(letters, edge)
            label.setText(text)
            label.setVisible(bool(text))
            label.adjustSize()
            x = {"left": _MARGIN, "right": width - label.width() - _MARGIN}
            y = {"top": _MARGIN, "bottom": height - label.height() - _MARGIN}
            label.move(
                x.get(edge, (width - label.width()) // 2),
                y.get(edge, (height - label.height()) // 2),
            )

    def eventFilter(self, _watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Move the letters along when the canvas is resized."""
        if event.type() == QEvent.Type.Resize:
            self.refresh()
        return False

    def close(self) -> None:
        """Take the letters off the canvas."""
        for source in self._sources:
            source.disconnect(self.refresh)
        self._canvas.removeEventFilter(self)
        for label in self.labels.values():
            label.setParent(None)
            label.deleteLater()
        self.labels.clear()
