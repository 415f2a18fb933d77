"""napari's door to scans: the npe2 reader."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_fedsam.imaging.mask_formats import is_segmentation
from napari_fedsam.imaging.readers import is_supported
from napari_fedsam.widgets.layers import image_layer_data

ReaderFunction = Callable[[str | Sequence[str]], list[Any]]

NOTHING_YET = [(None,)]
"""napari's way to say that a file was read and no layer came of it (here: not yet)."""


def get_reader(path: str | Sequence[str]) -> ReaderFunction | None:
    """Return a function that reads scans from a path, or None when it cannot be one."""
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    return read_layers if paths and all(is_supported(Path(each)) for each in paths) else None


def read_layers(path: str | Sequence[str]) -> list[Any]:
    """Read scans as layers; where a window is open, in a worker that adds them later.

    There, a segmentation (3D Slicer's or DICOM's) becomes a Labels layer on its scan.

    Raises
    ------
    ImagingError
        Without a window: when a file cannot be read, or a folder holds several series.
    """
    paths = [Path(path)] if isinstance(path, str | os.PathLike) else [Path(each) for each in path]
    viewer = _viewer_with_window()
    if viewer is not None:
        from napari_fedsam.widgets.scan_opening import ScanOpening
        from napari_fedsam.widgets.segmentation_opening import SegmentationOpening

        for each in paths:
            opening = SegmentationOpening if is_segmentation(each) else ScanOpening
            opening(viewer, each)
        return NOTHING_YET
    from napari_fedsam.imaging.readers import read_scan

    return [image_layer_data(read_scan(each)) for each in paths]


def _viewer_with_window() -> Any:
    """Return the current viewer when it has a live window, else None."""
    try:
        from napari.viewer import current_viewer
        from qtpy.QtWidgets import QApplication
    except ImportError:
        return None
    if QApplication.instance() is None:
        return None
    viewer = current_viewer()
    return viewer if viewer is not None and hasattr(viewer.window, "_qt_window") else None
