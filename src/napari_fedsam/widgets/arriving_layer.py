"""A scan to look at while it is still being read."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from napari.layers import Image
from qtpy.QtCore import QObject, QTimer

from napari_fedsam.imaging.arriving_scan import ArrivingScan
from napari_fedsam.imaging.window import default_window
from napari_fedsam.widgets.layers import placement_of
from napari_fedsam.widgets.mask_layers import ARRIVING, ROLE_KEY

if TYPE_CHECKING:
    from napari.viewer import Viewer

_LOOK_MS = 100
_LOOKS_UNTIL_REDRAWN = 5


class ArrivingLayer(QObject):
    """Shows what has arrived of a scan in an image layer that cannot be annotated yet.

    It appears with the middle slice, and only where no other image is looked at.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    layer : Image or None
        None while there is nothing to show.
    """

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._arriving: ArrivingScan | None = None
        self._looks = 0
        self.layer: Image | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self._look)
        self._timer.start()

    def watch(self, arriving: ArrivingScan) -> None:
        """Show this scan; called in the reading thread."""
        self._arriving = arriving

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
        """Let the whole scan's layer, added meanwhile, take this one's place; go on looking."""
        if self.layer is None:
            yield
            return
        dims, camera = self._viewer.dims, getattr(self._viewer, "scene", self._viewer).camera
        step, order, center, zoom = dims.current_step, dims.order, camera.center, camera.zoom
        yield
        self.close()
        if dims.order == order:
            dims.current_step = step
            camera.center, camera.zoom = center, zoom

    def close(self) -> None:
        """Take the layer off the viewer."""
        self._timer.stop()
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def _look(self) -> None:
        arriving = self._arriving
        if arriving is None:
            return
        if self.layer is None:
            self._show_first(arriving)
            return
        self._looks += 1
        if self._looks % _LOOKS_UNTIL_REDRAWN == 0:
            self.layer.name = _name(arriving)
            self.layer.refresh()

    def _show_first(self, arriving: ArrivingScan) -> None:
        scan = arriving.scan
        middle = scan.shape[0] // 2
        # The one before is in the middle where the axis is shown turned.
        there = arriving.has(middle) and arriving.has(max(0, middle - 1))
        elsewhere = any(isinstance(each, Image) and each.visible for each in self._viewer.layers)
        if not there or elsewhere or scan.slice_axis != 0:
            return
        options = placement_of(scan) | {"name": _name(arriving), "metadata": {ROLE_KEY: ARRIVING}}
        if scan.is_colour:
            options["rgb"] = True
        else:
            window = default_window(arriving.slice_as_scan(middle))
            options |= {"contrast_limits": (window.low, window.high), "colormap": "gray"}
        self.layer = self._viewer.add_image(scan.orientation.to_display(scan.pixels), **options)
        dims = self._viewer.dims
        dims.order = tuple(range(dims.ndim))
        dims.set_current_step(range(dims.ndim)[-3:], [size // 2 for size in scan.shape])
        self._viewer.reset_view()


def _name(arriving: ArrivingScan) -> str:
    return f"{arriving.scan.name}: {arriving.count / arriving.scan.shape[0]:.0%} read"
