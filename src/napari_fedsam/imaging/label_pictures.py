"""Masks as pictures: PNG whose numbers are label values, shown in the structures' colours."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_fedsam.imaging.label_volumes import as_labels, lies_elsewhere
from napari_fedsam.imaging.pictures import read_labels
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure, rgb_of


def write_label_picture(
    labels: NDArray[Any], structures: tuple[MaskStructure, ...], path: Path
) -> None:
    """Write a PNG: a palette's indices up to 255, 16-bit gray above.

    Parameters
    ----------
    labels : ndarray of uint8 or uint16
        Shape (1, y, x).
    structures : tuple of MaskStructure
        Their colours make the palette; background is black.
    path : Path
        Ends in .png.
    """
    image = Image.fromarray(labels[0])
    if labels.dtype == np.uint8:
        palette = np.zeros((256, 3), np.uint8)
        for structure in structures:
            if structure.value < 256:
                palette[structure.value] = rgb_of(structure.color)
        image.putpalette(palette.ravel().tolist())
    image.save(path, "PNG")


def read_label_picture(path: Path, scan: Scan) -> NDArray[np.uint16]:
    """Read the numbers of a gray or palette picture; the pages of a TIFF make a stack.

    Returns
    -------
    ndarray of uint16
        Shape (z, y, x) of the scan.

    Raises
    ------
    ImagingError
        If the file cannot be read, is in colour, or has another size than the scan.
    """
    values = read_labels(path)
    if values.shape != scan.shape:
        raise lies_elsewhere(path, scan)
    return as_labels(values, path)
