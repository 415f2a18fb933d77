"""Interactive segmentation in napari with a personalised, federated Segment Anything Model."""

from importlib.metadata import version

__version__ = version("napari-fedsam")
