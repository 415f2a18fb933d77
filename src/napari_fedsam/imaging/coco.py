"""COCO JSON of one picture's structures: run-length codes with names, boxes and areas."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access
from napari_fedsam.imaging.label_volumes import lies_elsewhere
from napari_fedsam.imaging.run_length import decode_runs, encode_runs, runs_from_text
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import (
    PALETTE,
    LabelCanvas,
    MaskStructure,
    Segmentation,
    distinct_values,
    hex_of,
    present_values,
    rgb_of,
)

_IMAGE_ID = 1


def write_coco(
    labels: NDArray[Any], scan: Scan, structures: tuple[MaskStructure, ...], path: Path
) -> None:
    """Write one annotation for each structure that is present, and all as categories.

    Parameters
    ----------
    labels : ndarray of uint8 or uint16
        Shape (1, y, x).
    scan : Scan
        The picture; its file's name becomes the image's `file_name`.
    structures : tuple of MaskStructure
        One for each value in the mask; a category's id is the value.
    path : Path
        Ends in .json.
    """
    _, height, width = scan.shape
    content = {
        "info": {"description": "napari-fedsam, research use only"},
        "images": [
            {"id": _IMAGE_ID, "file_name": scan.source.name, "width": width, "height": height}
        ],
        "categories": [
            {
                "id": structure.value,
                "name": structure.name,
                "supercategory": "structure",
                "color": rgb_of(structure.color),
            }
            for structure in structures
        ],
        "annotations": [
            _annotation(number, value, labels[0] == value)
            for number, value in enumerate(present_values(labels), start=1)
        ],
    }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _annotation(number: int, value: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return {
        "id": number,
        "image_id": _IMAGE_ID,
        "category_id": value,
        # What COCO calls a crowd: one code for all parts, not a polygon for each.
        "iscrowd": 1,
        "segmentation": {"size": list(mask.shape), "counts": encode_runs(mask)},
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "area": int(np.count_nonzero(mask)),
    }


def read_coco(path: Path, scan: Scan, wanted: str | None = None) -> Segmentation:
    """Read the run-length coded annotations of a picture.

    A file of several images is searched for the one with the scan's file name. Category ids
    become the mask's values where they can. Of several structures, one may be `wanted` alone.

    Raises
    ------
    ImagingError
        If the file cannot be read, is not COCO, holds polygons or overlapping structures, or
        describes other pictures.
    """
    try:
        with explained_access(path):
            content = json.loads(path.read_text(encoding="utf-8"))
        return _segmentation(content, scan, path, wanted)
    except json.JSONDecodeError as error:
        raise ImagingError(
            f"{path.name} is truncated or no JSON: copy or export it again."
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImagingError(
            f"{path.name} is no COCO file, or a damaged one: export it again with images, "
            "categories and run-length coded annotations."
        ) from error


def _segmentation(
    content: dict[str, Any], scan: Scan, path: Path, wanted: str | None
) -> Segmentation:
    image = _image_of(content["images"], scan)
    if image is None:
        raise ImagingError(
            f"{path.name} describes {len(content['images'])} pictures, none of them named "
            f"{scan.source.name}: choose the file that belongs to this picture."
        )
    if (1, int(image["height"]), int(image["width"])) != scan.shape:
        raise lies_elsewhere(path, scan)
    structures = _structures(content["categories"])
    annotations = [each for each in content["annotations"] if each["image_id"] == image["id"]]
    canvas = LabelCanvas(scan.shape, path.name, structures.values(), wanted)
    for annotation in annotations:
        category = annotation["category_id"]
        if category not in structures:
            raise ImagingError(
                f"{path.name} has an annotation of the category {category!r}, which it does not "
                "name: add it to the categories or export the file again."
            )
        mask = _decoded(annotation["segmentation"], scan, path)
        canvas.add(mask, structures[category].value, 0)
    ordered = tuple(sorted(structures.values(), key=lambda each: each.value))
    return Segmentation(canvas.labels, ordered)


def _image_of(images: list[dict[str, Any]], scan: Scan) -> dict[str, Any] | None:
    """Return the entry with the scan's file name, or the only one."""
    for image in images:
        # Some programs write paths, of Windows too.
        if str(image["file_name"]).replace("\\", "/").rpartition("/")[2] == scan.source.name:
            return image
    return images[0] if len(images) == 1 else None


def _structures(categories: list[dict[str, Any]]) -> dict[int, MaskStructure]:
    """Return the structures by category id."""
    values = distinct_values([int(each["id"]) for each in categories])
    found = {}
    for value, category in zip(values, categories, strict=True):
        color = category.get("color")
        found[int(category["id"])] = MaskStructure(
            value,
            str(category["name"]),
            hex_of(color) if color else PALETTE[(value - 1) % len(PALETTE)],
        )
    return found


def _decoded(code: Any, scan: Scan, path: Path) -> NDArray[np.bool_]:
    if isinstance(code, list):
        raise ImagingError(
            f"{path.name} holds polygons, which do not say exactly which pixels are meant: "
            "export it with run-length codes (RLE), or as PNG."
        )
    height, width = code["size"]
    if (1, height, width) != scan.shape:
        raise lies_elsewhere(path, scan)
    counts = code["counts"]
    return decode_runs(
        runs_from_text(counts) if isinstance(counts, str) else counts, scan.shape[1:]
    )
