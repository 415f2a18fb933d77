"""One linked scan beside the canvas: its slice nearest to the crosshair."""

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QWheelEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.imaging.display_grid import DisplayGrid, Point
from napari_fedsam.imaging.window import COLOUR_WINDOW, Window, apply_window
from napari_fedsam.widgets.crosshair_lines import COLOR, FieldOfView, arms
from napari_fedsam.widgets.layers import scan_of

_MARGIN = 6
_PADDING = 3
_BEHIND_TEXT = QColor(45, 45, 48)
_WHEEL_STEP = 120
_FIT = 0.95


class LinkedPicture(QWidget):
    """Shows a scan's own voxels at the canvas' scale, with the crosshair at the same place.

    A click or drag moves the crosshair, the wheel steps through this scan's slices, a double
    click asks to annotate this scan.
    Signals: `moved` (a physical point), `wanted` (the image layer).

    Parameters
    ----------
    layer : Image
        Of a scan of ours; it is shown in the layer's contrast limits.
    labels : callable
        Returns the layer of the scan's accepted masks, None while there is none.
    """

    moved = Signal(object)
    wanted = Signal(object)

    def __init__(self, layer: Image, labels: Callable[[], Labels | None]) -> None:
        super().__init__()
        scan = scan_of(layer)
        if scan is None:
            raise ValueError("the layer shows no scan")
        self.layer = layer
        self.scan = scan
        self._grid = DisplayGrid.of(scan)
        self._display = scan.orientation.to_display(scan.pixels)
        self._labels = labels
        self._point: Point | None = None
        self._field: FieldOfView | None = None
        self._axis = 0
        self._drawn: tuple[tuple[SliceKey, Window], QImage] | None = None
        self.setMinimumSize(160, 160)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setToolTip(
            "Click or drag: move the crosshair; wheel: step through the slices; "
            "double click: annotate this scan"
        )

    @property
    def slice(self) -> SliceKey:
        """The slice that is shown: the acquired one nearest to the point."""
        if self._point is None:
            return SliceKey(self._axis, self._grid.shape[self._axis] // 2)
        return SliceKey(self._axis, self._grid.nearest_slice(self._point, self._axis))

    @property
    def crosshair(self) -> tuple[float, float] | None:
        """The crosshair's place in this widget, in pixels; None outside the scan."""
        if self._point is None or not self._grid.holds(self._point):
            return None
        x, y = self.slice.locate(self._grid.to_position(self._point))
        place = self._pixel_area.topLeft()
        across, down = self._scale
        return place.x() + (x + 0.5) * across, place.y() + (y + 0.5) * down

    def show_point(self, point: Point | None, axis: int, field: FieldOfView | None) -> None:
        """Show the slice across a display axis that is nearest to a physical point.

        Parameters
        ----------
        point : Point or None
        axis : int
            0 axial, 1 coronal, 2 sagittal.
        field : FieldOfView or None
            The canvas whose scale is taken over; None fits the slice into this widget.
        """
        self._point, self._axis, self._field = point, axis, field
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802
        """Draw slice, masks, crosshair, patient's sides and caption."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), Qt.GlobalColor.black)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(self._pixel_area, self._picture())
        masks = self._masks()
        if masks is not None:
            # Between two structures there are no others.
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, on=False)
            painter.drawImage(self._pixel_area, masks)
        place = self.crosshair
        if place is not None:
            for line in arms(*place, self.width(), self.height()):
                if not line.isEmpty():
                    painter.fillRect(line, QColor(COLOR))
        self._write(painter)
        painter.end()

    def _write(self, painter: QPainter) -> None:
        painter.setPen(Qt.GlobalColor.white)
        key = self.slice
        count = self._grid.shape[key.axis]
        plane = self.scan.orientation.plane_name(key.axis)
        caption = f"{self.scan.name}\n{plane} {key.index + 1} of {count}"
        if self._point is not None and not self._grid.holds(self._point):
            caption += "\nthe point lies outside this scan"
        area = self.rect().adjusted(_MARGIN, _MARGIN, -_MARGIN, -_MARGIN)
        sides = self.scan.orientation.edge_letters(key.axis)
        horizontally, vertically = Qt.AlignmentFlag.AlignHCenter, Qt.AlignmentFlag.AlignVCenter
        left, right = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        top, bottom = Qt.AlignmentFlag.AlignTop, Qt.AlignmentFlag.AlignBottom
        for where, text in (
            (left | vertically, sides.left),
            (right | vertically, sides.right),
            (horizontally | top, sides.top),
            (horizontally | bottom, sides.bottom),
            (left | top, caption),
        ):
            if text:
                place = painter.boundingRect(area, int(where), text)
                painter.fillRect(place.adjusted(-_PADDING, 0, _PADDING, 0), _BEHIND_TEXT)
                painter.drawText(area, int(where), text)

    def _picture(self) -> QImage:
        key = self.slice
        low, high = (float(limit) for limit in self.layer.contrast_limits)
        window = COLOUR_WINDOW if self.scan.is_colour or not low < high else Window(low, high)
        if self._drawn is None or self._drawn[0] != (key, window):
            self._drawn = (key, window), _image(apply_window(key.pixels(self._display), window))
        return self._drawn[1]

    def _masks(self) -> QImage | None:
        """Return the slice's accepted masks in their colours, None where there are none."""
        labels = self._labels()
        if labels is None:
            return None
        values = self.slice.pixels(labels.data)
        if not values.any():
            return None
        colours = np.array(labels.colormap.map(values))
        colours[..., 3] *= labels.opacity
        pixels = np.ascontiguousarray(np.rint(255 * colours), dtype=np.uint8)
        height, width = values.shape
        kind = QImage.Format.Format_RGBA8888
        return QImage(pixels.data, width, height, pixels.strides[0], kind).copy()

    @property
    def _mm(self) -> tuple[float, float]:
        """The size of a pixel of the slice, across and down, in mm."""
        spacing = self.scan.orientation.display_spacing
        down, right = SliceKey(self._axis, 0).in_plane
        return spacing[right], spacing[down]

    @property
    def _scale(self) -> tuple[float, float]:
        """The size of a pixel of the slice, across and down, in pixels of this widget."""
        across, down = self._mm
        field = self._field
        if field is None:
            height, width = self.slice.shape(self._grid.shape)
            zoom = _FIT * min(self.width() / (width * across), self.height() / (height * down))
        else:
            zoom = field.zoom * self._shrink(field)
        return across * zoom, down * zoom

    def _shrink(self, field: FieldOfView) -> float:
        return float(min(self.width() / field.width, self.height() / field.height))

    @property
    def _pixel_area(self) -> QRectF:
        """Where the whole slice lies, partly outside of this widget when it is enlarged."""
        height, width = self.slice.shape(self._grid.shape)
        across, down = self._scale
        middle_x, middle_y = self.width() / 2, self.height() / 2
        field = self._field
        if field is None or self._point is None:
            left, top = middle_x - width * across / 2, middle_y - height * down / 2
        else:
            shrink = self._shrink(field)
            x, y = self.slice.locate(self._grid.to_position(self._point))
            left = middle_x + (field.x - field.width / 2) * shrink - (x + 0.5) * across
            top = middle_y + (field.y - field.height / 2) * shrink - (y + 0.5) * down
        return QRectF(left, top, width * across, height * down)

    def point_at(self, place: QPointF) -> Point:
        """Return the physical point under a place of this widget, on the slice shown."""
        area = self._pixel_area
        across, down = self._scale
        x, y = (place.x() - area.left()) / across - 0.5, (place.y() - area.top()) / down - 0.5
        return self._grid.to_point(self.slice.place(x, y))

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Move the crosshair."""
        self._move_to(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Move the crosshair along."""
        self._move_to(event)

    def _move_to(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            point = self.point_at(event.position())
            if self._grid.holds(point):
                self.moved.emit(point)

    def mouseDoubleClickEvent(self, _event: QMouseEvent) -> None:  # noqa: N802
        """Ask to annotate this scan."""
        self.wanted.emit(self.layer)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802
        """Step through this scan's slices, downwards along the display axis."""
        steps = round(-event.angleDelta().y() / _WHEEL_STEP)
        key = self.slice
        index = min(max(key.index + steps, 0), self._grid.shape[key.axis] - 1)
        if self._point is not None and index != key.index:
            position = self._grid.to_position(self._point)
            position[key.axis] = index
            self.moved.emit(self._grid.to_point(position))
        event.accept()


def _image(pixels: NDArray[Any]) -> QImage:
    """Return 8-bit pixels, (H, W) or (H, W, 3), as an image that owns them."""
    height, width = pixels.shape[:2]
    rgb = pixels.ndim == 3
    kind = QImage.Format.Format_RGB888 if rgb else QImage.Format.Format_Grayscale8
    stored = np.ascontiguousarray(pixels)
    return QImage(stored.data, width, height, stored.strides[0], kind).copy()
