"""The crosshair on the canvas."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QRect, Qt
from qtpy.QtWidgets import QFrame

from napari_fedsam.annotation.crosshair import Crosshair
from napari_fedsam.widgets.prompt_layers import PromptLayers

if TYPE_CHECKING:
    from napari.viewer import Viewer

COLOR = "#ffcc33"
GAP = 12
"""How far from the point the lines begin, in pixels: what is looked at stays free."""


@dataclass(frozen=True)
class FieldOfView:
    """Where the canvas shows the point, and how large.

    Attributes
    ----------
    width, height : int
        Of the canvas in pixels.
    x, y : float
        The point on the canvas.
    zoom : float
        Pixels a mm.
    """

    width: int
    height: int
    x: float
    y: float
    zoom: float


def arms(x: float, y: float, width: int, height: int) -> list[QRect]:
    """Return the four lines about a point, left, right, up and down; empty where off the view."""
    column, line = round(x), round(y)
    lines = [
        QRect(0, line, column - GAP, 1),
        QRect(column + GAP, line, width - column - GAP, 1),
        QRect(column, 0, 1, line - GAP),
        QRect(column, line + GAP, 1, height - line - GAP),
    ]
    view = QRect(0, 0, width, height)
    return [view.intersected(each) if each.isValid() else QRect() for each in lines]


class CrosshairLines(QObject):
    """Four thin lines that follow the crosshair, the plane and the camera.

    Widgets on the canvas and no layer: nothing is added to the list of layers, to what is saved,
    or to what a click can hit.

    Parameters
    ----------
    viewer : napari.Viewer
    crosshair : Crosshair
    prompts : PromptLayers
        Whose layers lie exactly on the scan.

    Attributes
    ----------
    lines : list of QFrame
        To the left, to the right, up and down.
    grid : napari's GridCanvas
    sources : tuple of napari events
        After which the point may be elsewhere on the canvas.
    """

    def __init__(self, viewer: "Viewer", crosshair: Crosshair, prompts: PromptLayers) -> None:
        super().__init__()
        self._viewer = viewer
        self._crosshair = crosshair
        self._prompts = prompts
        # napari 0.9 moved the camera into the scene and the grid into the canvas.
        self._camera = getattr(viewer, "scene", viewer).camera
        self.grid = getattr(viewer, "canvas", viewer).grid
        self._canvas = viewer.window._qt_viewer.canvas.native
        self.lines = [self._line() for _ in range(4)]
        self._canvas.installEventFilter(self)
        self.sources = (
            viewer.dims.events.order,
            viewer.dims.events.ndisplay,
            self._camera.events.center,
            self._camera.events.zoom,
            self._camera.events.orientation,
            self.grid.events.enabled,
        )
        for source in self.sources:
            source.connect(self.refresh)
        crosshair.changed.connect(self.refresh)
        self.refresh()

    def _line(self) -> QFrame:
        line = QFrame(self._canvas)
        line.setObjectName("napari-fedsam-crosshair")
        line.setStyleSheet(f"background: {COLOR}; border: none;")
        line.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        line.hide()
        return line

    @property
    def field(self) -> FieldOfView | None:
        """Where the point is on the canvas; None where it is not shown."""
        position, layer = self._crosshair.position, self._prompts.points
        dims = self._viewer.dims
        if position is None or layer is None or dims.ndisplay != 2 or self.grid.enabled:
            return None
        world = [0.0] * (dims.ndim - 3) + [float(value) for value in layer.data_to_world(position)]
        down, right = (world[axis] for axis in dims.displayed)
        vertical, horizontal = self._camera.orientation2d
        if str(getattr(vertical, "value", vertical)) == "up":
            down = 2 * self._camera.center[-2] - down
        if str(getattr(horizontal, "value", horizontal)) == "left":
            right = 2 * self._camera.center[-1] - right
        zoom, width, height = self._camera.zoom, self._canvas.width(), self._canvas.height()
        return FieldOfView(
            width,
            height,
            width / 2 + (right - self._camera.center[-1]) * zoom,
            height / 2 + (down - self._camera.center[-2]) * zoom,
            zoom,
        )

    def refresh(self) -> None:
        """Put the lines where the point is."""
        field = self.field
        width, height = self._canvas.width(), self._canvas.height()
        wanted = [QRect()] * 4 if field is None else arms(field.x, field.y, width, height)
        for line, place in zip(self.lines, wanted, strict=True):
            line.setVisible(not place.isEmpty())
            if not place.isEmpty():
                line.setGeometry(place)

    def eventFilter(self, _watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Move along when the canvas is resized."""
        if event.type() == QEvent.Type.Resize:
            self.refresh()
        return False

    def close(self) -> None:
        """Take the lines off the canvas."""
        for source in self.sources:
            source.disconnect(self.refresh)
        self._crosshair.changed.disconnect(self.refresh)
        self._canvas.removeEventFilter(self)
        for line in self.lines:
            line.setParent(None)
            line.deleteLater()
        self.lines.clear()
