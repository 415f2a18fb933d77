"""The layers that hold prompts: points and boxes of the place on screen."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_fedsam.annotation.ask import Click
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.sam.prompts import Box
from napari_fedsam.widgets.mask_layers import beside

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

POINTS = "prompts: points"
BOXES = "prompts: boxes"
# Okabe and Ito's green and vermilion; the symbols differ too.
POSITIVE, NEGATIVE = "#00e08a", "#ff5a36"
BOX_COLOR = "#ffe14d"
_FINISHED = {"added", "changed", "removed"}


class Tool(StrEnum):
    """What the next click on the canvas gives."""

    NONE = "none"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    BOX = "box"


class PromptLayers(QObject):
    """Keeps a Points and a Shapes layer in step with the session's prompts, both ways.

    The layers show the prompts of the slice and structure on screen. napari's own tools add,
    move and delete them; what lies off the slice is dropped.
    """

    tool_changed = Signal(str)

    def __init__(self, viewer: "Viewer", session: AnnotationSession) -> None:
        super().__init__()
        self._viewer = viewer
        self._session = session
        self._quiet = False
        self.tool = Tool.POSITIVE
        self.points: Points | None = None
        self.boxes: Shapes | None = None
        session.ask_changed.connect(self._session_spoke)
        viewer.layers.selection.events.active.connect(self._active_layer_changed)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.timeout.connect(self.show_ask)
        self._take_up = QTimer(self)
        self._take_up.setSingleShot(True)
        self._take_up.setInterval(0)
        self._take_up.timeout.connect(self._choose_again)

    def attach(self, image: "Image") -> None:
        """Lay fresh prompt layers over an image layer."""
        self.detach()
        shape = self._session.view.shape
        size = max(3.0, max(shape[1:]) / 45)
        self.boxes = self._viewer.add_shapes(
            ndim=3,
            edge_color=BOX_COLOR,
            face_color=[0, 0, 0, 0],
            edge_width=max(shape[1:]) / 200,
            **beside(image, BOXES),
        )
        self.points = self._viewer.add_points(
            np.empty((0, 3)),
            features={"positive": np.zeros(0, np.bool_)},
            feature_defaults={"positive": True},
            size=size,
            border_width=0.15,
            border_color="black",
            face_color=POSITIVE,
            **beside(image, POINTS),
        )
        self.boxes.events.data.connect(self._boxes_spoke)
        self.points.events.data.connect(self._points_spoke)
        self.show_ask()
        if self.tool is Tool.NONE:
            self.tool = Tool.POSITIVE
        self.take_up()

    def detach(self) -> None:
        """Take the prompt layers off the viewer."""
        layers = (self.points, self.boxes)
        self.points = self.boxes = None
        for layer in layers:
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def close(self) -> None:
        """Let go of the viewer."""
        self._later.stop()
        self._take_up.stop()
        self._viewer.layers.selection.events.active.disconnect(self._active_layer_changed)
        self.detach()

    def choose(self, tool: Tool) -> None:
        """Make the next click on the canvas a positive point, a negative one, or a box."""
        self.tool = tool
        points, boxes = self.points, self.boxes
        if points is not None and boxes is not None:
            if tool in (Tool.POSITIVE, Tool.NEGATIVE):
                positive = tool is Tool.POSITIVE
                # napari gives a new current colour to the selected points too.
                points.selected_data = set()
                points.feature_defaults = {"positive": positive}
                points.current_face_color = POSITIVE if positive else NEGATIVE
                points.current_symbol = "disc" if positive else "x"
                self._viewer.layers.selection.active = points
                points.mode = "add"
            else:
                self._viewer.layers.selection.active = boxes
                boxes.mode = "add_rectangle"
        self.tool_changed.emit(tool.value)

    def take_up(self) -> None:
        """Go back to the tool once napari has chosen a layer that was just added."""
        self._take_up.start()

    def _choose_again(self) -> None:
        self.choose(self.tool)

    def _active_layer_changed(self) -> None:
        """Put the tool down when the person turns to another layer."""
        active = self._viewer.layers.selection.active
        # Between two active layers there is none for a moment.
        lost = active is not None and active not in (self.points, self.boxes)
        if lost and not self._take_up.isActive() and self.tool is not Tool.NONE:
            self.tool = Tool.NONE
            self.tool_changed.emit(self.tool.value)

    def _session_spoke(self) -> None:
        if self._quiet:
            # Inside a layer's own event its data must not be replaced.
            self._later.start()
        else:
            self.show_ask()

    def show_ask(self) -> None:
        """Show the session's prompts."""
        if self.points is None or self.boxes is None:
            return
        ask = self._session.ask
        with self._silence():
            if self._clicks() != ask.clicks or len(self.points.data) != len(ask.clicks):
                self._show_clicks(self.points, ask.clicks)
            if self._boxes() != ask.boxes or len(self.boxes.data) != len(ask.boxes):
                self._show_boxes(self.boxes, ask.boxes)

    def _show_clicks(self, layer: Points, clicks: tuple[Click, ...]) -> None:
        key = self._session.view.slice
        labels = np.array([click.positive for click in clicks], np.bool_)
        layer.selected_data = set()
        defaults = layer.feature_defaults
        layer.data = np.array([key.place(click.x, click.y) for click in clicks]).reshape(-1, 3)
        layer.features = {"positive": labels}
        layer.feature_defaults = defaults
        if clicks:
            layer.face_color = [POSITIVE if positive else NEGATIVE for positive in labels]
            layer.symbol = ["disc" if positive else "x" for positive in labels]

    def _show_boxes(self, layer: Shapes, boxes: tuple[Box, ...]) -> None:
        key = self._session.view.slice
        if layer.nshapes:
            layer.selected_data = set(range(layer.nshapes))
            layer.remove_selected()
        if boxes:
            corners = [
                [key.place(x, y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
                for x0, y0, x1, y1 in boxes
            ]
            layer.add_rectangles(np.array(corners))

    def _points_spoke(self, event: Any) -> None:
        if not self._quiet and _is_finished(event):
            with self._silence():
                self._session.set_ask(replace(self._session.ask, clicks=self._clicks()))
            self._later.start()

    def _boxes_spoke(self, event: Any) -> None:
        if not self._quiet and _is_finished(event):
            with self._silence():
                self._session.set_ask(replace(self._session.ask, boxes=self._boxes()))
            self._later.start()

    def _clicks(self) -> tuple[Click, ...]:
        """Return the points of the layer that lie on the slice on screen."""
        layer, view = self.points, self._session.view
        if layer is None:
            return ()
        height, width = view.slice.shape(view.shape)
        clicks = []
        for position, positive in zip(layer.data, layer.features["positive"], strict=True):
            x, y = view.slice.locate(position)
            inside = -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5
            if inside and view.slice.holds(position):
                clicks.append(Click(x, y, bool(positive)))
        return tuple(clicks)

    def _boxes(self) -> tuple[Box, ...]:
        """Return the boxes of the layer on the slice on screen, clipped to it."""
        layer, view = self.boxes, self._session.view
        if layer is None:
            return ()
        height, width = view.slice.shape(view.shape)
        boxes = []
        for corners in layer.data:
            if not view.slice.holds(corners[0]):
                continue
            xy = np.array([view.slice.locate(corner) for corner in corners])
            x0, y0 = np.maximum(xy.min(axis=0), 0)
            x1, y1 = np.minimum(xy.max(axis=0), (width - 1, height - 1))
            # A click without a drag leaves a speck.
            if x1 - x0 >= 1 and y1 - y0 >= 1:
                boxes.append((float(x0), float(y0), float(x1), float(y1)))
        return tuple(boxes)

    @contextmanager
    def _silence(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def _is_finished(event: Any) -> bool:
    action = getattr(event, "action", None)
    return action is not None and getattr(action, "value", str(action)) in _FINISHED
