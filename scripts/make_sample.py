# /// script
# requires-python = ">=3.11"
# dependencies = ["nilearn==0.13.1", "numpy", "SimpleITK"]
# ///
"""Make the embedded sample scan and its label map from the ICBM 152 template in nilearn's wheel.

Usage: `python scripts/make_sample.py [folder]` (default: `resources/samples`), with nilearn
installed; napari-fedsam itself does not need it. The same sources give the same bytes: the
sources' checksums are verified, and `resources/samples/README.md` lists those of the results.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

GREY_MATTER = 1
WHITE_MATTER = 2
REST_OF_BRAIN = 3

SOURCES = {
    "t1": (
        "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
        "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
    ),
    "grey": (
        "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
        "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
    ),
    "white": (
        "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
        "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
    ),
}


def reduce_template(
    t1: sitk.Image, grey: sitk.Image, white: sitk.Image, *, factor: int = 2, margin: int = 4
) -> tuple[sitk.Image, sitk.Image]:
    """Average the template over blocks of voxels, crop it to the head, and label its tissues.

    Parameters
    ----------
    t1 : sitk.Image
        Skull-stripped T1 average, uint8, exactly 0 outside the brain.
    grey, white : sitk.Image
        Tissue probabilities on the same grid, uint8, 255 for a probability of 1.
    factor : int
        Block size along each axis, in voxels.
    margin : int
        Background kept around the brain, in voxels of the result.

    Returns
    -------
    tuple of sitk.Image
        The scan and the label map, uint8, on one grid. A voxel is brain when most of its block
        is; a brain voxel gets the most probable of grey matter, white matter and the rest.
    """
    blocks = [factor] * t1.GetDimension()
    brain = sitk.BinShrink(sitk.Cast(t1 > 0, sitk.sitkFloat32), blocks) >= 0.5
    scan = sitk.Cast(
        sitk.Round(sitk.BinShrink(sitk.Cast(t1, sitk.sitkFloat32), blocks)), t1.GetPixelID()
    )
    probabilities = [
        sitk.GetArrayFromImage(sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), blocks)) / 255
        for image in (grey, white)
    ]
    stacked = np.stack([*probabilities, 1 - sum(probabilities)])
    tissue = np.array([GREY_MATTER, WHITE_MATTER, REST_OF_BRAIN])[stacked.argmax(axis=0)]
    labels = sitk.GetImageFromArray(
        np.where(sitk.GetArrayFromImage(brain), tissue, 0).astype(np.uint8)
    )
    labels.CopyInformation(scan)
    return _crop(scan, brain, margin), _crop(labels, brain, margin)


def _crop(image: sitk.Image, brain: sitk.Image, margin: int) -> sitk.Image:
    """Cut to the brain's bounding box plus a margin, padding with zeros where it runs out."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(brain, sitk.sitkUInt8))
    box = shape.GetBoundingBox(1)
    start, size = box[: len(box) // 2], box[len(box) // 2 :]
    padding = [margin] * len(size)
    padded = sitk.ConstantPad(image, padding, padding, 0)
    return sitk.RegionOfInterest(padded, [n + 2 * margin for n in size], [int(s) for s in start])


def read_sources(folder: Path) -> dict[str, sitk.Image]:
    """Read nilearn's template files.

    Raises
    ------
    SystemExit
        When a file is not the one that this script was written for.
    """
    images = {}
    for key, (name, expected) in SOURCES.items():
        path = folder / name
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise SystemExit(f"{name} differs from nilearn 0.13.1's: install nilearn==0.13.1.")
        images[key] = sitk.ReadImage(str(path))
    return images


def main(destination: Path) -> None:
    """Write the scan and the label map into a folder."""
    specification = importlib.util.find_spec("nilearn")
    if specification is None or specification.origin is None:
        raise SystemExit("nilearn is not installed: pip install nilearn==0.13.1")
    data = Path(specification.origin).parent / "datasets" / "data"
    scan, labels = reduce_template(**read_sources(data))
    for image, name in ((scan, "icbm152_t1_2mm.nii.gz"), (labels, "icbm152_labels_2mm.nii.gz")):
        path = destination / name
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=9)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sys.stdout.write(f"{digest}  {name}  {image.GetSize()}\n")


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "resources" / "samples"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
