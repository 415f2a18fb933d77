"""The layers that show masks: the accepted segmentation and the preview."""

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from scipy import ndimage

from napari_fedsam.annotation.label_edit import Indices
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.widgets.layers import SCAN_KEY, scan_of

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

SEGMENTATION = "segmentation"
PREVIEW = "preview"
ROLE_KEY = "napari_fedsam_role"


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

    Accepted masks go through `Labels.data_setitem`, so that napari's own undo knows them.

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
        session.answering.preview_changed.connect(self.show_preview)
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
        return self.segmentation.data

    def attach(self) -> None:
        """Let the session write through the segmentation layer; add the preview layer."""
        self._session.write_labels = self._write
        self.show_preview()

    def show_preview(self) -> None:
        """Show the session's preview as an outline, or nothing."""
        image, preview = self._image, self._session.preview
        if image is None or self._session.scan is not scan_of(image):
            return
        key = self._session.view.slice
        if preview is None:
            mask = np.zeros(key.shape(self._session.view.shape), np.uint8)
        else:
            mask = outline_of(preview.mask, self._thickness) * np.uint8(preview.place.structure)
        data = np.expand_dims(mask, key.axis)
        translate = np.array(_three(image.translate, 0.0))
        translate[key.axis] += key.index * _three(image.scale, 1.0)[key.axis]
        layer = self._preview_layer(image)
        if preview is None and not layer.data.any():
            return
        # The place first: an outline in the wrong slice must not flash up.
        if not np.array_equal(layer.translate, translate):
            layer.data = np.zeros_like(data)
            layer.translate = translate
        layer.data = data

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
            layer.data_setitem(indices, values)
        else:
            self._session.segmentation[indices] = values

    def _show_structures(self) -> None:
        colors: dict[int | None, Any] = {0: np.zeros(4), None: "#ffffff"}
        colors |= {each.value: each.color for each in self._session.view.structures}
        for layer in (self.segmentation, self.preview):
            if layer is not None:
                layer.colormap = DirectLabelColormap(color_dict=colors)
        if self.segmentation is not None:
            self.segmentation.selected_label = self._session.view.structure.value

    def close(self) -> None:
        """Take the preview off the viewer; the segmentation stays."""
        if self.preview is not None and self.preview in self._viewer.layers:
            self._viewer.layers.remove(self.preview)
