"""The linked scans in a row of pictures beside the canvas."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent, Qt, QTimer, Signal
from qtpy.QtWidgets import QDockWidget, QVBoxLayout, QWidget

from napari_fedsam.widgets.layers import scan_of
from napari_fedsam.widgets.linked_picture import LinkedPicture
from napari_fedsam.widgets.mask_layers import SEGMENTATION, layer_with_role

if TYPE_CHECKING:
    from napari.viewer import Viewer


class SideBySide(QWidget):
    """A docked column of pictures.

    The signal `closed` is given when it was taken off the window, by its button or in code.

    Parameters
    ----------
    viewer : napari.Viewer
    neighbour : QWidget
        The widget that the pictures are put to the left of, between it and the canvas.
    """

    closed = Signal()

    def __init__(self, viewer: "Viewer", neighbour: QWidget) -> None:
        super().__init__()
        self._viewer = viewer
        self.pictures: list[LinkedPicture] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(2)
        window = viewer.window._qt_window
        room = viewer.window._qt_viewer.canvas.native.width()
        dock = viewer.window.add_dock_widget(
            self, name="napari-fedsam: linked scans", area="right", add_vertical_stretch=False
        )
        beside = _dock_of(neighbour)
        if beside is not None:
            window.splitDockWidget(dock, beside, Qt.Orientation.Horizontal)
        # The window knows the dock's place only once it has laid itself out.
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(
            lambda: window.resizeDocks([dock], [room // 2], Qt.Orientation.Horizontal)
        )
        self._later.start()

    def show_layers(
        self,
        layers: Sequence[Image],
        moved: Callable[[Any], None],
        wanted: Callable[[Any], None],
    ) -> None:
        """Show a picture for each image layer, and tell what is done in it."""
        if [picture.layer for picture in self.pictures] == list(layers):
            return
        for picture in self.pictures:
            self._column.removeWidget(picture)
            picture.setParent(None)
            picture.deleteLater()
        self.pictures = [LinkedPicture(layer, self._masks_of(layer)) for layer in layers]
        for picture in self.pictures:
            picture.moved.connect(moved)
            picture.wanted.connect(wanted)
            self._column.addWidget(picture)

    def _masks_of(self, layer: Image) -> Callable[[], Any]:
        return partial(layer_with_role, self._viewer, SEGMENTATION, scan_of(layer))

    def take_off(self) -> None:
        """Take the pictures off the window."""
        if self.parent() is not None:
            self._viewer.window.remove_dock_widget(self)

    def event(self, event: QEvent) -> bool:
        """Tell when napari has taken this out of its dock."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.closed.emit()
            self.deleteLater()
        return bool(super().event(event))


def _dock_of(widget: QWidget) -> QDockWidget | None:
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent
