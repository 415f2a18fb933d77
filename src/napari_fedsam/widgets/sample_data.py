"""The embedded sample under napari's File > Open Sample."""

import dataclasses
from importlib.resources import as_file, files
from typing import Any

from napari_fedsam.imaging.readers import read_mask, read_scan
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.widgets.layers import image_layer_data, labels_layer_data

SCAN_FILE = "icbm152_t1_2mm.nii.gz"
LABELS_FILE = "icbm152_labels_2mm.nii.gz"


def _sample_scan() -> Scan:
    with as_file(files("napari_fedsam.resources") / "samples" / SCAN_FILE) as path:
        scan = read_scan(path)
    return dataclasses.replace(scan, name="ICBM 152 T1 (sample)", modality="MR")


def head_mr() -> list[Any]:
    """Return the sample scan as layers."""
    return [image_layer_data(_sample_scan())]


def head_mr_with_tissues() -> list[Any]:
    """Return the sample scan with its tissue labels (1 grey, 2 white matter, 3 the rest)."""
    scan = _sample_scan()
    with as_file(files("napari_fedsam.resources") / "samples" / LABELS_FILE) as path:
        tissues = read_mask(path, scan)
    return [image_layer_data(scan), labels_layer_data(tissues, scan, "tissues (reference)")]
