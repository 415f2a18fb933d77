"""Keeps napari's sliders, plane and contrast in step with the session's viewpoint."""

from typing import TYPE_CHECKING

import numpy as np

from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.imaging.window import Window
from napari_fedsam.widgets.layers import scan_of

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer


class ViewpointBinding:
    """Two-way binding of a viewer and a viewpoint, for one image layer at a time."""

    def __init__(self, viewer: "Viewer", view: Viewpoint) -> None:
        self._viewer = viewer
        self._view = view
        self._image: Image | None = None
        view.slice_changed.connect(self._show_slice)
        view.window_changed.connect(self._show_window)
        viewer.dims.events.point.connect(self._dims_moved)
        viewer.dims.events.order.connect(self._dims_moved)
        viewer.dims.events.ndisplay.connect(self._dims_moved)

    def attach(self, image: "Image") -> None:
        """Show the viewpoint's slice of an image layer."""
        self._let_go()
        axes = range(self._viewer.dims.ndim)[-3:]
        self._viewer.dims.set_current_step(tuple(axes), [n // 2 for n in self._view.shape])
        self._set_order(self._view.slice.axis)
        # Only now do the sliders stand where the viewpoint is.
        self._image = image
        image.events.contrast_limits.connect(self._contrast_changed)
        self._show_window()
        self._show_slice()
        self._viewer.reset_view()

    def show_plane(self, axis: int, index: int | None = None) -> None:
        """Look at the scan across another display axis, by default where the sliders stand."""
        dims = self._viewer.dims
        dims.ndisplay = 2
        if index is not None:
            dims.set_point(axis + dims.ndim - 3, index * self._step(axis) + self._start(axis))
        self._set_order(axis)
        self._viewer.reset_view()

    def close(self) -> None:
        """Let go of the viewer."""
        self._let_go()
        events = self._viewer.dims.events
        for event in (events.point, events.order, events.ndisplay):
            event.disconnect(self._dims_moved)

    def _let_go(self) -> None:
        if self._image is not None:
            self._image.events.contrast_limits.disconnect(self._contrast_changed)
        self._image = None

    @property
    def _is_bound(self) -> bool:
        return self._image is not None and scan_of(self._image) is self._view.scan

    def _set_order(self, axis: int) -> None:
        dims = self._viewer.dims
        extra = dims.ndim - 3
        order = (axis, *(each for each in range(3) if each != axis))
        dims.order = (*range(extra), *(each + extra for each in order))

    def _show_slice(self) -> None:
        image = self._image
        if image is None or not self._is_bound:
            return
        dims, key = self._viewer.dims, self._view.slice
        extra = dims.ndim - 3
        world = key.index * self._step(key.axis) + self._start(key.axis)
        dims.set_point(key.axis + extra, world)
        if dims.ndisplay == 2 and dims.order[-3] != key.axis + extra:
            self._set_order(key.axis)

    def _dims_moved(self) -> None:
        dims = self._viewer.dims
        if not self._is_bound or dims.ndisplay != 2 or dims.ndim < 3:
            return
        axis = dims.order[-3] - (dims.ndim - 3)
        if axis < 0:
            return
        position = dims.point[axis + dims.ndim - 3]
        self._view.show_slice(axis, round((position - self._start(axis)) / self._step(axis)))

    def _step(self, axis: int) -> float:
        """Return the world distance between slices along a display axis."""
        scale = np.ones(3)
        if self._image is not None:
            scale[-self._image.ndim :] = self._image.scale
        return float(scale[axis])

    def _start(self, axis: int) -> float:
        """Return the world position of the first slice along a display axis."""
        translate = np.zeros(3)
        if self._image is not None:
            translate[-self._image.ndim :] = self._image.translate
        return float(translate[axis])

    def _show_window(self) -> None:
        image, window = self._image, self._view.window
        if image is not None and self._is_bound and not image.rgb:
            low, high = image.contrast_limits_range
            # A new range tells of the old limits first, which would become the window again.
            with image.events.contrast_limits.blocker(self._contrast_changed):
                image.contrast_limits_range = (min(low, window.low), max(high, window.high))
                image.contrast_limits = (window.low, window.high)

    def _contrast_changed(self) -> None:
        image = self._image
        if image is not None and self._is_bound:
            low, high = (float(limit) for limit in image.contrast_limits)
            if low < high:
                self._view.set_window(Window(low, high))
