"""The one place that knows which mask format a file name stands for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_fedsam.imaging.coco import read_coco, write_coco
from napari_fedsam.imaging.dicom_seg_reading import is_dicom_segmentation, read_dicom_segmentation
from napari_fedsam.imaging.dicom_seg_writing import require_dicom_source, write_dicom_segmentation
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import DICOM_SUFFIXES, explained_access, is_dicom, suffix_of
from napari_fedsam.imaging.label_pictures import read_label_picture, write_label_picture
from napari_fedsam.imaging.label_volumes import read_label_volume, write_label_volume
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure, Segmentation
from napari_fedsam.imaging.slicer_segmentation import (
    SLICER_SUFFIX,
    is_slicer_segmentation,
    read_slicer_segmentation,
    write_slicer_segmentation,
)

Writer = Callable[[NDArray[Any], Scan, tuple[MaskStructure, ...], Path], None]
Reader = Callable[[Path, Scan, str | None], Segmentation]


def _any_scan(scan: Scan, path: Path) -> None:
    del scan, path


def _require_one_slice(scan: Scan, path: Path) -> None:
    if scan.shape[0] > 1:
        raise ImagingError(
            f"{path.name} would hold one picture, but {scan.name} is a volume: name it .nii.gz, "
            ".seg.nrrd or .mha."
        )


@dataclass(frozen=True)
class MaskFormat:
    """A kind of mask file.

    Attributes
    ----------
    title : str
        Its name for people.
    suffixes : tuple of str
        The endings of the files that are written, lower case.
    read, write : callable
        From and to a file of this kind.
    also_read : tuple of str
        Further endings of files that can be read.
    require : callable
        Refuses scans whose masks it cannot hold.
    """

    title: str
    suffixes: tuple[str, ...]
    read: Reader
    write: Writer
    also_read: tuple[str, ...] = ()
    require: Callable[[Scan, Path], None] = _any_scan


def _write_volume(
    labels: NDArray[Any], scan: Scan, structures: tuple[MaskStructure, ...], path: Path
) -> None:
    del structures
    write_label_volume(labels, scan.geometry, path)


def _write_picture(
    labels: NDArray[Any], scan: Scan, structures: tuple[MaskStructure, ...], path: Path
) -> None:
    del scan
    write_label_picture(labels, structures, path)


def _read_nrrd(path: Path, scan: Scan, wanted: str | None) -> Segmentation:
    if is_slicer_segmentation(path):
        return read_slicer_segmentation(path, scan, wanted)
    return _read_volume(path, scan, wanted)


def _read_volume(path: Path, scan: Scan, wanted: str | None) -> Segmentation:
    del wanted
    return Segmentation(read_label_volume(path, scan))


def _read_picture(path: Path, scan: Scan, wanted: str | None) -> Segmentation:
    del wanted
    return Segmentation(read_label_picture(path, scan))


# The longer of two endings comes first.
MASK_FORMATS = (
    MaskFormat("3D Slicer", (SLICER_SUFFIX,), _read_nrrd, write_slicer_segmentation),
    MaskFormat("NIfTI", (".nii.gz", ".nii"), _read_volume, _write_volume),
    MaskFormat("NRRD", (".nrrd",), _read_nrrd, _write_volume, also_read=(".nhdr",)),
    MaskFormat("MetaImage", (".mha", ".mhd"), _read_volume, _write_volume),
    MaskFormat(
        "DICOM SEG",
        (".dcm",),
        read_dicom_segmentation,
        write_dicom_segmentation,
        require=require_dicom_source,
    ),
    MaskFormat(
        "PNG",
        (".png",),
        _read_picture,
        _write_picture,
        (".tif", ".tiff", ".bmp"),
        _require_one_slice,
    ),
    MaskFormat("COCO", (".json",), read_coco, write_coco, require=_require_one_slice),
)


def format_to_write(path: Path, scan: Scan) -> MaskFormat:
    """Return the format that a file name asks for.

    Raises
    ------
    ImagingError
        If it is none, or cannot hold a mask of this scan.
    """
    name = path.name.lower()
    for each in MASK_FORMATS:
        if name.endswith(each.suffixes):
            each.require(scan, path)
            return each
    raise ImagingError(
        f"{path.name} has no mask format: name it .nii.gz, .seg.nrrd or .mha, .dcm for a scan "
        "from DICOM files, or .png or .json for a picture."
    )


def format_to_read(path: Path) -> MaskFormat:
    """Return the format of a file by its name; DICOM files may have any name.

    Raises
    ------
    ImagingError
        If it is none.
    """
    name = path.name.lower()
    for each in MASK_FORMATS:
        if name.endswith((*each.suffixes, *each.also_read)):
            return each
    with explained_access(path):
        if suffix_of(path) in DICOM_SUFFIXES or (path.is_file() and is_dicom(path)):
            return next(each for each in MASK_FORMATS if ".dcm" in each.suffixes)
    raise ImagingError(
        f"{path.name} cannot hold a mask: use NIfTI, NRRD, MetaImage, DICOM SEG, or PNG or COCO "
        "JSON for a picture."
    )


def is_segmentation(path: Path) -> bool:
    """Say quickly whether a file's name or beginning makes it a segmentation, not a scan.

    Never raises.
    """
    if path.name.lower().endswith(SLICER_SUFFIX):
        return True
    try:
        return path.is_file() and is_dicom(path) and is_dicom_segmentation(path)
    except OSError:
        return False


def save_filter() -> str:
    """Return the endings of masks that can be written, as file dialogs want them."""
    return _filter([suffix for each in MASK_FORMATS for suffix in each.suffixes])


def open_filter() -> str:
    """Return the endings of masks that can be read, as file dialogs want them."""
    suffixes = [s for each in MASK_FORMATS for s in (*each.suffixes, *each.also_read)]
    # DICOM files often have no ending.
    return _filter([*suffixes, *DICOM_SUFFIXES[1:]]) + ";;All files (*)"


def _filter(suffixes: list[str]) -> str:
    return f"Masks ({' '.join(f'*{suffix}' for suffix in suffixes)})"
