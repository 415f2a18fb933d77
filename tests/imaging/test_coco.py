"""COCO JSON of a picture: exact round trips, other programs' files, and bad ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.readers import read_mask, read_segmentation
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure
from napari_fedsam.imaging.writers import write_mask

LABELS = np.array([[[0, 3, 3, 0], [0, 3, 0, 7], [0, 0, 7, 7]]], np.uint16)
STRUCTURES = (
    MaskStructure(3, "Polyp", "#56b4e9"),
    MaskStructure(7, "größerer Polyp", "#e69f00"),
    MaskStructure(8, "not drawn", "#000000"),
)


def picture_of(shape: tuple[int, ...], name: str = "photo.png") -> Scan:
    _, height, width = shape
    return Scan(
        np.zeros((*shape, 3), np.uint8),
        Geometry.identity((width, height)),
        "photo",
        Path("folder", name),
        spacing_known=False,
        is_anatomical=False,
    )


PICTURE = picture_of(LABELS.shape)


def written(folder: Path, change: dict[str, Any] | None = None) -> Path:
    path = folder / "m.json"
    write_mask(LABELS, PICTURE, path, STRUCTURES)
    if change:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return path


def test_the_content_is_coco(tmp_path: Path) -> None:
    content = json.loads(written(tmp_path).read_text(encoding="utf-8"))
    (image,) = content["images"]
    assert image == {"id": 1, "file_name": "photo.png", "width": 4, "height": 3}
    assert [each["name"] for each in content["categories"]] == [
        "Polyp",
        "größerer Polyp",
        "not drawn",
    ]
    first, second = content["annotations"]
    assert first == {
        "id": 1,
        "image_id": 1,
        "category_id": 3,
        "iscrowd": 1,
        "segmentation": {"size": [3, 4], "counts": [3, 2, 1, 1, 5]},
        "bbox": [1, 0, 2, 2],
        "area": 3,
    }
    assert (second["category_id"], second["bbox"], second["area"]) == (7, [2, 1, 2, 2], 3)


def test_labels_names_and_colours_come_back(tmp_path: Path) -> None:
    back = read_segmentation(written(tmp_path), PICTURE)
    assert np.array_equal(back.labels, LABELS)
    assert back.structures == STRUCTURES


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays.arrays(
        np.uint16,
        st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0, 1, 2, 255, 256, 65535]),
    )
)
def test_any_mask_comes_back(tmp_path: Path, labels: np.ndarray) -> None:
    picture = picture_of(labels.shape)
    write_mask(labels, picture, tmp_path / "any.json")
    assert np.array_equal(read_mask(tmp_path / "any.json", picture), labels)


def test_compressed_codes_of_other_programs_are_read(tmp_path: Path) -> None:
    code = {"size": [3, 4], "counts": "32116"}
    path = written(
        tmp_path,
        {"annotations": [{"id": 9, "image_id": 1, "category_id": 3, "segmentation": code}]},
    )
    # The fourth and fifth number are differences: 3, 2, 1, 2+1, 1+6 would not fit.
    with pytest.raises(ImagingError, match=r"m\.json is no COCO file, or a damaged one"):
        read_mask(path, PICTURE)
    code["counts"] = "321O4"
    path = written(
        tmp_path,
        {"annotations": [{"id": 9, "image_id": 1, "category_id": 3, "segmentation": code}]},
    )
    assert np.array_equal(read_mask(path, PICTURE), np.where(LABELS == 3, 3, 0))


def test_several_annotations_make_one_structure(tmp_path: Path) -> None:
    parts = [[3, 2, 7], [6, 1, 5]]
    annotations = [
        {"image_id": 1, "category_id": 3, "segmentation": {"size": [3, 4], "counts": counts}}
        for counts in parts
    ]
    back = read_mask(written(tmp_path, {"annotations": annotations}), PICTURE)
    assert np.array_equal(back, np.where(LABELS == 3, 3, 0))


def test_the_picture_is_found_by_its_name_among_several(tmp_path: Path) -> None:
    images = [
        {"id": 5, "file_name": "other.png", "width": 9, "height": 9},
        {"id": 1, "file_name": "C:\\data\\photo.png", "width": 4, "height": 3},
    ]
    assert np.array_equal(read_mask(written(tmp_path, {"images": images}), PICTURE), LABELS)
    with pytest.raises(ImagingError, match=r"2 pictures, none of them named scan\.png"):
        read_mask(written(tmp_path, {"images": images}), picture_of(LABELS.shape, "scan.png"))


def test_one_of_overlapping_structures_is_read_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, {"annotations": [annotation(), annotation(category_id=7)]})
    assert (read_segmentation(path, PICTURE, wanted="polyp").labels == 3).all()


def test_category_zero_becomes_a_structure(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {
            "categories": [{"id": 0, "name": "polyp"}, {"id": 5, "name": "wall"}],
            "annotations": [
                {
                    "image_id": 1,
                    "category_id": 0,
                    "segmentation": {"size": [3, 4], "counts": [0, 12]},
                }
            ],
        },
    )
    back = read_segmentation(path, PICTURE)
    assert (back.labels == 1).all()
    assert [(each.value, each.name) for each in back.structures] == [(1, "polyp"), (2, "wall")]


def annotation(**change: Any) -> dict[str, Any]:
    code = {"size": [3, 4], "counts": [0, 12]}
    return {"image_id": 1, "category_id": 3, "segmentation": code} | change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"annotations": [annotation(segmentation=[[0, 0, 2, 0, 2, 2]])]}, "holds polygons"),
        ({"annotations": [annotation(category_id=99)]}, "category 99, which it does not name"),
        (
            {"annotations": [annotation(), annotation(category_id=7)]},
            r"overlap \('Polyp' and 'größerer Polyp'\)",
        ),
        (
            {"annotations": [annotation(segmentation={"size": [4, 3], "counts": [12]})]},
            "another size",
        ),
        (
            {"annotations": [annotation(segmentation={"size": [3, 4], "counts": [11]})]},
            "damaged one",
        ),
        ({"annotations": [annotation(segmentation={"size": [3, 4], "counts": 12})]}, "damaged one"),
        ({"annotations": [annotation(category_id=[])]}, "damaged one"),
        ({"annotations": None}, "damaged one"),
        ({"images": []}, "describes 0 pictures"),
        (
            {"images": [{"id": 1, "file_name": "a", "width": 3, "height": 4}]},
            "another size or position than photo",
        ),
        ({"categories": [{"name": "x"}]}, "no COCO file"),
    ],
)
def test_bad_files_are_explained(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    path = written(tmp_path, change)
    with pytest.raises(ImagingError, match=rf"^m\.json .*{told}.*\.$"):
        read_mask(path, PICTURE)


@pytest.mark.parametrize("content", [b"", b'{"images": [', b"[]", b"null", b'"x"', b"\xff\xfe\x00"])
def test_what_is_no_coco_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.json"
    path.write_bytes(content)
    with pytest.raises(ImagingError, match=r"^notes\.json is (truncated|no COCO)"):
        read_mask(path, PICTURE)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match=r"gone\.json does not exist"):
        read_mask(tmp_path / "gone.json", PICTURE)


@pytest.mark.parametrize("suffix", ["json", "png"])
def test_a_volume_is_refused(tmp_path: Path, suffix: str) -> None:
    volume = Scan(np.zeros((2, 3, 4), np.uint8), Geometry.identity((4, 3, 2)), "v", Path("v"))
    with pytest.raises(ImagingError, match=rf"m\.{suffix} would hold one picture, but v"):
        write_mask(np.zeros((2, 3, 4), np.uint8), volume, tmp_path / f"m.{suffix}")
