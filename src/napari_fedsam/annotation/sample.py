"""The embedded sample: a head MR average and its tissue labels (`resources/samples/README.md`)."""

import dataclasses
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.cases.case import Structure
from napari_fedsam.imaging.readers import read_mask, read_scan
from napari_fedsam.imaging.scan import Scan

SCAN_FILE = "icbm152_t1_2mm.nii.gz"
LABELS_FILE = "icbm152_labels_2mm.nii.gz"

SAMPLE_STRUCTURES = (
    Structure(
        value=1,
        name="grey matter",
        color="#3fbf5f",
        definition="Voxels whose most probable tissue in the ICBM 152 template is grey matter.",
    ),
    Structure(
        value=2,
        name="white matter",
        color="#ff8c1a",
        definition="Voxels whose most probable tissue in the ICBM 152 template is white matter.",
    ),
)
"""The structures that the sample's labels define (3, the rest of the brain, is none)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """The sample scan with its reference labels.

    Attributes
    ----------
    scan : Scan
        T1-weighted MR, uint8, 2 mm isotropic.
    labels : NDArray[np.uint16]
        (z, y, x): 0 background, 1 grey matter, 2 white matter, 3 the rest of the brain.
    """

    scan: Scan
    labels: NDArray[np.uint16]

    @property
    def brain(self) -> NDArray[np.bool_]:
        """Where the brain is, (z, y, x)."""
        return self.labels > 0

    def mask(self, structure: Structure) -> NDArray[np.bool_]:
        """Where one structure is, (z, y, x)."""
        return np.asarray(self.labels == structure.value)


def load_sample() -> Sample:
    """Read the sample scan and its labels from the installed package.

    Raises
    ------
    ImagingError
        When the installed files are damaged.
    """
    folder = files("napari_fedsam.resources") / "samples"
    with as_file(folder / SCAN_FILE) as scan_path, as_file(folder / LABELS_FILE) as labels_path:
        scan = read_scan(scan_path)
        labels = read_mask(labels_path, scan)
    return Sample(dataclasses.replace(scan, name="ICBM 152 T1 (sample)", modality="MR"), labels)
