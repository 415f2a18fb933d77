"""Masks to files, with the scan's exact geometry."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.mask_formats import format_to_write
from napari_fedsam.imaging.saving import replacing
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import StructureLike, described


def write_mask(
    mask: NDArray[Any], scan: Scan, path: Path | str, structures: Iterable[StructureLike] = ()
) -> None:
    """Write a mask whose size, spacing, origin and direction are the scan's.

    The file is written beside its destination, read back and compared, and then renamed, so that
    a complete file or none appears (a .mhd has its voxels in a second file, which is renamed
    first). MetaImage and NRRD keep the geometry to the last digits; NIfTI keeps it as 32-bit
    numbers, which beyond about 170 mm from the origin are coarser than 1e-5 mm; DICOM SEG lies
    where its source slices do.

    Parameters
    ----------
    mask : ndarray
        Shape (z, y, x) of the scan, bool or integers from 0 to 65535. Stored as uint8 if all are
        below 256, else as uint16.
    scan : Scan
        What the mask belongs to.
    path : Path or str
        Ends in .nii, .nii.gz, .nrrd, .mha or .mhd; in .seg.nrrd for 3D Slicer; in .dcm for a
        DICOM segmentation of a scan from DICOM files; in .png or .json (COCO) for a single slice,
        whose spacing these do not keep. An existing file is replaced.
    structures : iterable of StructureLike
        What the values stand for; 3D Slicer, DICOM and COCO keep names and colours, PNG colours.
        Values that none of them has are named by their numbers.

    Raises
    ------
    ImagingError
        If the format is unknown or cannot hold this mask, or the file cannot be written.
    ValueError
        If the mask has another shape than the scan, or values that a mask cannot have.
    """
    path = Path(path)
    labels = _labels(mask, scan)
    chosen = format_to_write(path, scan)
    with replacing(path) as temporary:
        chosen.write(labels, scan, described(labels, structures), temporary)
        if not np.array_equal(chosen.read(temporary, scan, None).labels, labels):
            raise OSError("what was written differs from the mask")


def _labels(mask: NDArray[Any], scan: Scan) -> NDArray[Any]:
    if mask.shape != scan.shape:
        raise ValueError(f"a mask of shape {mask.shape} does not fit a scan of {scan.shape}")
    if mask.dtype.kind not in "biu":
        raise ValueError(f"a mask holds integers or booleans, not {mask.dtype}")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high > 65535:
        raise ValueError(f"mask values must be 0 to 65535, not {low} to {high}")
    return np.ascontiguousarray(mask, dtype=np.uint8 if high < 256 else np.uint16)
