"""The layers that hold prompts: points and shapes of the place on screen."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points, Shapes
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_fedsam.annotation.ask import Click
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.widgets.mask_layers import beside
from napari_fedsam.widgets.prompt_shapes import (
    NEGATIVE,
    POSITIVE,
    REGION_COLOR,
    ShapePrompts,
    edge_color,
    read_shapes,
    show_shapes,
)

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

POINTS = "prompts: points"
SHAPES = "prompts: shapes"
_FINISHED = {"added", "changed", "removed"}


class Tool(StrEnum):
    """What the next click on the canvas gives."""

    NONE = "none"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    BOX = "box"
    LASSO = "lasso"
    POSITIVE_SCRIBBLE = "positive scribble"
    NEGATIVE_SCRIBBLE = "negative scribble"
    TOUCH_UP = "touch up"


_SHAPE_MODES = {
    Tool.BOX: "add_rectangle",
    Tool.LASSO: "add_polygon_lasso",
    Tool.POSITIVE_SCRIBBLE: "add_path",
    Tool.NEGATIVE_SCRIBBLE: "add_path",
}


class PromptLayers(QObject):
    """Keeps a Points and a Shapes layer in step with the session's prompts, both ways.

    The layers show the prompts of the slice and structure on screen. napari's own tools add,
    move and delete them; what lies off the slice is dropped. The Shapes layer is hidden while it is
    empty and not in use: napari builds its meshes anew on every slice, which is slow.

    Parameters
    ----------
    viewer : napari.Viewer
    session : AnnotationSession
    preview_layer : callable
        Returns the layer that is painted on to touch the answer up, or None.
    """

    tool_changed = Signal(str)

    def __init__(
        self,
        viewer: "Viewer",
        session: AnnotationSession,
        preview_layer: Callable[[], "Labels | None"],
    ) -> None:
        super().__init__()
        self._preview_layer = preview_layer
        self._viewer = viewer
        self._session = session
        self._quiet = False
        self.tool = Tool.POSITIVE
        self.points: Points | None = None
        self.shapes: Shapes | None = None
        self._shapes_in_use = True
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
        self.shapes = self._viewer.add_shapes(
            ndim=3,
            features={"positive": np.zeros(0, np.bool_)},
            feature_defaults={"positive": True},
            edge_color=REGION_COLOR,
            face_color=[0, 0, 0, 0],
            edge_width=max(shape[1:]) / 200,
            **beside(image, SHAPES),
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
        self._shapes_in_use = True
        self.shapes.events.data.connect(self._shapes_spoke)
        self.points.events.data.connect(self._points_spoke)
        self.show_ask()
        if self.tool is Tool.NONE:
            self.tool = Tool.POSITIVE
        self.take_up()

    def detach(self) -> None:
        """Take the prompt layers off the viewer."""
        layers = (self.points, self.shapes)
        self.points = self.shapes = None
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
        """Say what the next click or drag on the canvas gives."""
        self.tool = tool
        if self.points is not None and self.shapes is not None:
            if tool in (Tool.POSITIVE, Tool.NEGATIVE):
                self._take_points(self.points, positive=tool is Tool.POSITIVE)
            elif tool in _SHAPE_MODES:
                self._take_shapes(self.shapes, tool)
            elif tool is Tool.TOUCH_UP:
                self._take_brush()
        self.tool_changed.emit(tool.value)

    def _take_points(self, layer: Points, *, positive: bool) -> None:
        # napari gives a new current colour to the selected points too.
        layer.selected_data = set()
        layer.feature_defaults = {"positive": positive}
        layer.current_face_color = POSITIVE if positive else NEGATIVE
        layer.current_symbol = "disc" if positive else "x"
        self._viewer.layers.selection.active = layer
        layer.mode = "add"

    def _take_shapes(self, layer: Shapes, tool: Tool) -> None:
        positive = tool is not Tool.NEGATIVE_SCRIBBLE
        layer.selected_data = set()
        layer.feature_defaults = {"positive": positive}
        mode = _SHAPE_MODES[tool]
        layer.current_edge_color = edge_color(mode.removeprefix("add_"), positive=positive)
        self._show_shapes_in_use()
        self._viewer.layers.selection.active = layer
        layer.mode = mode

    def _take_brush(self) -> None:
        layer = self._preview_layer()
        if layer is not None:
            self._viewer.layers.selection.active = layer

    def take_up(self) -> None:
        """Go back to the tool once napari has chosen a layer that was just added."""
        self._take_up.start()

    def _choose_again(self) -> None:
        self.choose(self.tool)

    def _active_layer_changed(self) -> None:
        """Put the tool down when the person turns to another layer."""
        active = self._viewer.layers.selection.active
        # Between two active layers there is none for a moment.
        ours = self._preview_layer() if self.tool is Tool.TOUCH_UP else None
        lost = active is not None and active not in (self.points, self.shapes, ours)
        if lost and not self._take_up.isActive() and self.tool is not Tool.NONE:
            self.tool = Tool.NONE
            self.tool_changed.emit(self.tool.value)
        self._show_shapes_in_use()

    def _session_spoke(self) -> None:
        if self._quiet:
            # Inside a layer's own event its data must not be replaced.
            self._later.start()
        else:
            self.show_ask()

    def show_ask(self) -> None:
        """Show the session's prompts."""
        if self.points is None or self.shapes is None:
            return
        ask = self._session.ask
        with self._silence():
            if self._clicks() != ask.clicks or len(self.points.data) != len(ask.clicks):
                self._show_clicks(self.points, ask.clicks)
            wanted = ShapePrompts.of(ask)
            if self._drawn(self.shapes) != wanted or self.shapes.nshapes != len(wanted):
                show_shapes(self.shapes, wanted, self._session.view.slice)
        self._show_shapes_in_use()

    def _show_shapes_in_use(self) -> None:
        """Show or hide the shapes where that has changed; in between the person decides."""
        layer = self.shapes
        if layer is None:
            return
        active = self._viewer.layers.selection.active is layer
        in_use = active or self.tool in _SHAPE_MODES or layer.nshapes > 0
        if in_use is not self._shapes_in_use:
            self._shapes_in_use = in_use
            layer.visible = in_use

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

    def _points_spoke(self, event: Any) -> None:
        if not self._quiet and _is_finished(event):
            with self._silence():
                self._session.set_ask(self._session.ask.with_clicks(self._clicks()))
            self._later.start()

    def _shapes_spoke(self, event: Any) -> None:
        layer = self.shapes
        if layer is not None and not self._quiet and _is_finished(event):
            with self._silence():
                self._session.set_ask(self._drawn(layer).put_into(self._session.ask))
            self._later.start()

    def _drawn(self, layer: Shapes) -> ShapePrompts:
        view = self._session.view
        return read_shapes(layer, view.slice, view.slice.shape(view.shape))

    def _clicks(self) -> tuple[Click, ...]:
        """Return the points of the layer that lie on the slice on screen."""
        layer = self.points
        if layer is None:
            return ()
        clicks = []
        for position, positive in zip(layer.data, layer.features["positive"], strict=True):
            found = self._on_slice(position)
            if found is not None:
                clicks.append(Click(*found, bool(positive)))
        return tuple(clicks)

    def pixel_at(self, world: Sequence[float]) -> tuple[float, float] | None:
        """Return the pixel (x, y) of the slice at a world position; None off the slice."""
        if self.points is None or self._viewer.dims.ndisplay != 2:
            return None
        return self._on_slice(np.asarray(self.points.world_to_data(world)))

    def _on_slice(self, position: NDArray[np.float64]) -> tuple[float, float] | None:
        """Return where on the slice on screen a display position lies; None elsewhere."""
        view = self._session.view
        height, width = view.slice.shape(view.shape)
        x, y = view.slice.locate(position)
        inside = -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5
        return (x, y) if inside and view.slice.holds(position) else None

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
