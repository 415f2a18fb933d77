"""The embedded sample under napari's File > Open Sample."""

from typing import Any

from napari_fedsam.annotation.sample import load_sample
from napari_fedsam.widgets.layers import image_layer_data, labels_layer_data


def head_mr() -> list[Any]:
    """Return the sample scan as layers."""
    return [image_layer_data(load_sample().scan)]


def head_mr_with_tissues() -> list[Any]:
    """Return the sample scan with its tissue labels (1 grey, 2 white matter, 3 the rest)."""
    sample = load_sample()
    return [
        image_layer_data(sample.scan),
        labels_layer_data(sample.labels, sample.scan, "tissues (reference)"),
    ]
