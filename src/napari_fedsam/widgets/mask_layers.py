"""The layers that show masks: the accepted segmentation and the preview."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from scipy import ndimage

from napari_fedsam.annotation.label_edit import Indices
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.work import Preview
from napari_fedsam.widgets.brush_strokes import edit_of_stroke
from napari_fedsam.widgets.layers import SCAN_KEY, STRUCTURES_KEY, colours_of, scan_of

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

SEGMENTATION = "segmentation"
PREVIEW = "preview"
ARRIVING = "arriving"
ROLE_KEY = "napari_fedsam_role"
_HOVER_OPACITY = 0.6


def layer_with_role(viewer: "Viewer", role: str, scan: object) -> Any:
    """Return the layer that plays a role for a scan, or None."""
    for layer in viewer.layers:
        if layer.metadata.get(ROLE_KEY) == role and scan_of(layer) is scan:
            return layer
    return None


def beside(image: "Image", role: str) -> dict[str, Any]:
    """Return the options of a 3-D layer that lies exactly on an image layer."""
    return {
        "name": role,
        "scale": _three(image.scale, 1.0),
        "translate": _three(image.translate, 0.0),
        "units": tuple(str(unit) for unit in _three(image.units, image.units[-1])),
        "axis_labels": image.metadata[SCAN_KEY].orientation.axis_labels,
        "metadata": {SCAN_KEY: image.metadata[SCAN_KEY], ROLE_KEY: role},
    }


def _three(values: Any, first: Any) -> tuple[Any, ...]:
    """Extend a 2-D layer's values by that of the missing first axis."""
    return (first,) * (3 - len(values)) + tuple(values)


def outline_of(mask: NDArray[np.bool_], thickness: int) -> NDArray[np.bool_]:
    """Return the inner border of a mask; napari's own contours cannot be shown in 3-D."""
    inside: NDArray[np.bool_] = ndimage.binary_erosion(mask, iterations=thickness)
    return mask & ~inside


class MaskLayers:
    """Keeps the segmentation and the preview layer in step with a session.

    Undo and redo of both layers are the session's: napari's own history ends at 100 strokes and
    knows nothing of prompts and cases.

    Parameters
    ----------
    viewer : napari.Viewer
    session : AnnotationSession
    """

    def __init__(self, viewer: "Viewer", session: AnnotationSession) -> None:
        self._viewer = viewer
        self._session = session
        self._image: Image | None = None
        self.segmentation: Labels | None = None
        self.preview: Labels | None = None
        self._stroking = False
        self.is_touching_up = False
        session.answering.preview_changed.connect(self.show_preview)
        session.answering.hover.changed.connect(self.show_preview)
        session.view.slice_changed.connect(self._slice_changed)
        session.preserve_changed.connect(self._show_preserve)
        session.view.structure_changed.connect(self._show_structures)

    def segmentation_for(self, image: "Image") -> Any:
        """Return the segmentation array of an image layer's scan, adding its layer when new."""
        scan = image.metadata[SCAN_KEY]
        self._image = image
        self.segmentation = layer_with_role(self._viewer, SEGMENTATION, scan)
        if self.segmentation is None:
            shape = scan.orientation.to_display(np.empty(scan.shape, np.bool_)).shape
            self.segmentation = self._viewer.add_labels(
                np.zeros(shape, np.uint8), opacity=0.4, **beside(image, SEGMENTATION)
            )
        self._show_structures()
        self._take_over_history(self.segmentation)
        # Connecting twice is the same as once.
        self.segmentation.events.paint.connect(self._segmentation_painted)
        self.segmentation.events.preserve_labels.connect(self._preserve_chosen)
        self._show_preserve()
        return self.segmentation.data

    def _show_preserve(self) -> None:
        """Let napari's own brush spare other structures too, or overwrite them."""
        if self.segmentation is not None:
            self.segmentation.preserve_labels = self._session.preserve_others

    def _preserve_chosen(self) -> None:
        layer, session = self.segmentation, self._session
        if layer is not None and layer.preserve_labels != session.preserve_others:
            session.set_preserve_others(layer.preserve_labels)

    def _take_over_history(self, layer: Labels) -> None:
        layer.undo = self._session.undo
        layer.redo = self._session.redo

    def _segmentation_painted(self, event: Any) -> None:
        layer = self.segmentation
        if layer is not None and self._session.scan is scan_of(layer):
            self._session.painted(edit_of_stroke(event.value, layer.data))

    def attach(self) -> None:
        """Let the session write through the segmentation layer; add the preview layer."""
        self._session.write_labels = self._write
        self.show_preview()

    def show_preview(self) -> None:
        """Show the session's preview, or what a point under the cursor gives, or nothing."""
        image, hovered = self._image, self._hovered()
        preview = hovered or self._session.preview
        if image is None or self._session.scan is not scan_of(image) or self._stroking:
            return
        key = self._session.view.slice
        if preview is None:
            mask = np.zeros(key.shape(self._session.view.shape), np.uint8)
        else:
            mask = self._shown(preview.mask) * np.uint8(preview.place.structure)
        data = np.expand_dims(mask, key.axis)
        translate = np.array(_three(image.translate, 0.0))
        translate[key.axis] += key.index * _three(image.scale, 1.0)[key.axis]
        layer = self._preview_layer(image)
        if preview is None and not layer.data.any() and not self.is_touching_up:
            return
        if not self.is_touching_up:
            layer.opacity = 1.0 if hovered is None else _HOVER_OPACITY
        if layer.data.shape != data.shape:
            layer.data = np.zeros_like(data)
        # The place first: an outline in the wrong slice must not flash up.
        if not np.array_equal(layer.translate, translate):
            layer.data[:] = 0
            layer.translate = translate
        if not np.array_equal(layer.data, data):
            layer.data[:] = data
            # With the same extent the viewer has nothing to measure again.
            layer.refresh(extent=False)

    def _hovered(self) -> Preview | None:
        # The brush must paint on the answer alone.
        return None if self.is_touching_up else self._session.answering.hover.preview

    def _shown(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return mask if self.is_touching_up else outline_of(mask, self._thickness)

    def _slice_changed(self) -> None:
        if self.is_touching_up:
            self.show_preview()

    def touch_up(self, wanted: bool) -> None:
        """Let the preview be painted on with napari's brush, or show its outline again."""
        if wanted == self.is_touching_up or self.preview is None:
            return
        self.is_touching_up = wanted
        self.preview.editable = wanted
        self.preview.opacity = 0.5 if wanted else 1.0
        self.preview.mode = "paint" if wanted else "pan_zoom"
        self.show_preview()

    def _preview_painted_soon(self) -> None:
        QTimer.singleShot(0, self._preview_painted)

    def _preview_painted(self) -> None:
        """Tell the session what was painted on the answer and erased from it."""
        layer, session = self.preview, self._session
        if layer is None or not self.is_touching_up:
            return
        drawn = np.squeeze(np.asarray(layer.data), session.view.slice.axis) > 0
        answer = np.zeros_like(drawn) if session.preview is None else session.preview.mask
        session.paint_answer(drawn & ~answer, answer & ~drawn)

    def _stroke(self, _layer: Labels, _event: Any) -> Iterator[None]:
        """Leave the layer alone while a stroke is under way."""
        self._stroking = True
        yield
        while _event.type == "mouse_move":
            yield
        self._stroking = False

    def _preview_layer(self, image: "Image") -> Labels:
        if self.preview is not None and self.preview in self._viewer.layers:
            if scan_of(self.preview) is scan_of(image):
                return self.preview
            self._viewer.layers.remove(self.preview)
        active = self._viewer.layers.selection.active
        self.preview = self._viewer.add_labels(
            np.zeros((1, 1, 1), np.uint8), opacity=1.0, **beside(image, PREVIEW)
        )
        self.preview.editable = False
        self.is_touching_up = False
        self.preview.brush_size = max(2, max(self._session.view.shape) // 40)
        self._take_over_history(self.preview)
        # napari tells of some changes, such as filling, before it makes them.
        self.preview.events.paint.connect(self._preview_painted_soon)
        self.preview.mouse_drag_callbacks.append(self._stroke)
        self._show_structures()
        self._viewer.layers.selection.active = active
        return self.preview

    @property
    def _thickness(self) -> int:
        """Thick enough to be seen on a large image, not to hide a border on a small one."""
        return 1 if max(self._session.view.shape) < 256 else 2

    def _write(self, indices: Indices, values: NDArray[Any]) -> None:
        layer = self.segmentation
        if layer is not None and layer in self._viewer.layers:
            layer.data[indices] = values
            layer.refresh(extent=False)
        else:
            self._session.segmentation[indices] = values

    def _show_structures(self) -> None:
        for layer in (self.segmentation, self.preview):
            if layer is not None:
                layer.colormap = colours_of(self._session.view.structures)
                layer.metadata[STRUCTURES_KEY] = self._session.view.structures
                layer.selected_label = self._session.view.structure.value

    def close(self) -> None:
        """Take the preview off the viewer; the segmentation stays, with napari's own undo."""
        layer = self.segmentation
        if layer is not None and "undo" in vars(layer):
            layer.events.paint.disconnect(self._segmentation_painted)
            layer.events.preserve_labels.disconnect(self._preserve_chosen)
            del layer.undo, layer.redo
        if self.preview is not None and self.preview in self._viewer.layers:
            self._viewer.layers.remove(self.preview)
