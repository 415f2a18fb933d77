"""napari's way out for masks: the npe2 writer."""

from pathlib import Path
from typing import Any

import numpy as np

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.writers import write_mask
from napari_fedsam.widgets.layers import SCAN_KEY, STRUCTURES_KEY


def write_labels(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Write a Labels layer that belongs to a scan, with the scan's exact geometry.

    Parameters
    ----------
    path : str
        Its ending chooses the format (see `imaging.writers.write_mask`).
    data : integer array in display order
    options : dict
        The layer's options; the scan, and the structures if known, are in its metadata.

    Raises
    ------
    ImagingError
        When the layer belongs to no scan, or the file cannot be written.
    """
    metadata = options.get("metadata", {})
    scan = metadata.get(SCAN_KEY)
    if not isinstance(scan, Scan):
        raise ImagingError(
            f"{Path(path).name} was not written: the layer '{options.get('name', '')}' belongs to "
            "no scan opened with napari-fedsam, so its geometry is unknown; save it as TIFF."
        )
    mask = scan.orientation.from_display(np.asarray(data))
    write_mask(mask, scan, Path(path), metadata.get(STRUCTURES_KEY, ()))
    return [path]
