"""Scans as napari layers, and napari layers as scans."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import StructureLike
from napari_fedsam.imaging.window import default_window

if TYPE_CHECKING:
    from napari.layers import Image, Layer

SCAN_KEY = "napari_fedsam_scan"
"""The layer metadata that holds the `Scan` a layer belongs to."""

STRUCTURES_KEY = "napari_fedsam_structures"
"""The layer metadata that holds the structures of a Labels layer."""

LayerData = tuple[Any, dict[str, Any], str]


def placement_of(scan: Scan) -> dict[str, Any]:
    """Return the layer options that put display arrays of a scan at its true proportions."""
    unit = scan.unit
    return {
        "scale": scan.orientation.display_spacing,
        "units": (unit, unit, unit),
        "axis_labels": scan.orientation.axis_labels,
        "metadata": {SCAN_KEY: scan},
    }


def image_layer_data(scan: Scan) -> LayerData:
    """Return a scan as napari's (data, options, "image").

    The data is a view in display order: no voxel is copied or resampled.
    """
    options = placement_of(scan) | {"name": scan.name}
    if scan.is_colour:
        options["rgb"] = True
    else:
        window = default_window(scan)
        options |= {"contrast_limits": (window.low, window.high), "colormap": "gray"}
    return scan.orientation.to_display(scan.pixels), options, "image"


def labels_layer_data(labels: NDArray[Any], scan: Scan, name: str) -> LayerData:
    """Return a mask of shape (z, y, x) on a scan's grid as napari's (data, options, "labels")."""
    return (
        np.ascontiguousarray(scan.orientation.to_display(labels)),
        placement_of(scan) | {"name": name},
        "labels",
    )


def colours_of(structures: Iterable[StructureLike]) -> DirectLabelColormap:
    """Return a Labels layer's colours: the structures', nothing for 0, white for other values."""
    colours: dict[int | None, Any] = {0: np.zeros(4), None: "#ffffff"}
    return DirectLabelColormap(color_dict=colours | {each.value: each.color for each in structures})


def scan_of(layer: "Layer") -> Scan | None:
    """Return the scan that a layer belongs to, if it is one of ours."""
    scan = layer.metadata.get(SCAN_KEY)
    return scan if isinstance(scan, Scan) else None


def scan_from_image(layer: "Image") -> Scan:
    """Make a scan of an image layer that came from elsewhere, as it is shown.

    Its scale becomes the spacing, in mm where napari's units say so; nothing is known of the
    patient's directions. The scan is remembered in the layer's metadata.

    Raises
    ------
    ImagingError
        When the layer has more than three dimensions, several resolutions, or lazy data.
    """
    known = scan_of(layer)
    if known is not None:
        return known
    data = layer.data
    spatial = layer.ndim
    if layer.multiscale or not isinstance(data, np.ndarray) or spatial not in (2, 3):
        raise ImagingError(
            f"The layer '{layer.name}' is not a plain 2-D or 3-D image: open the file with "
            "napari-fedsam, or choose another layer."
        )
    pixels = _supported(layer)
    unit = str(layer.units[-1])
    scale = tuple(float(abs(step)) for step in layer.scale)
    in_mm = {"millimeter": 1.0, "micrometer": 1e-3, "meter": 1e3, "centimeter": 10.0}.get(unit)
    spacing = tuple(step * in_mm for step in scale) if in_mm else scale
    path = layer.source.path
    scan = Scan(
        pixels=pixels[np.newaxis] if spatial == 2 else pixels,
        geometry=Geometry(
            size=tuple(reversed(data.shape[:spatial])),
            spacing=tuple(reversed(spacing)),
            origin=(0.0,) * spatial,
            direction=tuple(np.eye(spatial).ravel().tolist()),
        ),
        name=layer.name,
        source=Path(path) if path else Path(layer.name),
        spacing_known=in_mm is not None,
        is_anatomical=False,
    )
    layer.metadata[SCAN_KEY] = scan
    return scan


def _supported(layer: "Image") -> NDArray[Any]:
    """Bring stored values to a type that scans hold: at most 32 bits, 8-bit colour, no alpha."""
    data: NDArray[Any] = layer.data
    if layer.rgb:
        colour = data[..., :3]
        return colour if colour.dtype == np.uint8 else (colour * 255).astype(np.uint8)
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind in "iuf" and data.dtype.itemsize > 4:
        return data.astype(np.float32)
    return data
