"""Manifests, good and bad."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from napari_fedsam.training.errors import ManifestError
from napari_fedsam.training.manifest import load_row, read_binary_mask, read_manifest
from napari_fedsam.training.segmentation_task import labels_of, load_task

HEADER = ["task", "site", "split", "image", "mask", "group"]
ROWS = [
    ["polyp", "north", "train", "images/a.png", "masks/a.png", "patient 1"],
    ["polyp", "north", "test", "images/b.png", "masks/b.png", ""],
    ["polyp", "south", "test", "images/c.png", "masks/c.png", "patient 2"],
    ["disc", "south", "test", "images/d.png", "masks/d.png", "patient 3"],
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[list[str]], header: list[str] = HEADER, encoding: str = "utf-8") -> Path:
        path = tmp_path / "manifest.csv"
        with path.open("w", newline="", encoding=encoding) as handle:
            csv.writer(handle).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (20, 30, 3)).astype(np.uint8)).save(
        tmp_path / "images/a.png"
    )
    mask = np.zeros((20, 30), np.uint8)
    mask[2:6, 3:9] = 255
    mask[10, 10] = 1
    Image.fromarray(mask).save(tmp_path / "masks/a.png")
    return tmp_path


def test_rows_are_chosen_by_task_site_and_split(write, tmp_path: Path) -> None:
    path = write(ROWS)

    def labels(*args: str, **kwargs: str) -> list[str]:
        return [row.label for row in read_manifest(path, *args, **kwargs)]

    assert labels("polyp") == ["images/a.png", "images/b.png", "images/c.png"]
    assert labels("polyp", site="south") == ["images/c.png"]
    assert labels("polyp", split="test") == ["images/b.png", "images/c.png"]
    assert labels("polyp", site="north", split="test") == ["images/b.png"]
    row = read_manifest(path, "polyp")[0]
    assert (row.site, row.split, row.group) == ("north", "train", "patient 1")
    assert row.image == tmp_path / "images/a.png"
    assert row.mask == tmp_path / "masks/a.png"


def test_rows_without_a_group_are_groups_of_their_own(write) -> None:
    assert read_manifest(write(ROWS), "polyp")[1].group == "images/b.png"
    short = write([row[:5] for row in ROWS], HEADER[:5])
    assert [row.group for row in read_manifest(short, "disc")] == ["images/d.png"]


def test_a_manifest_saved_by_a_spreadsheet_is_read(write) -> None:
    assert len(read_manifest(write(ROWS, encoding="utf-8-sig"), "polyp")) == 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "lacks rows"),
        (b"task,site,split,image,mask\n", "lacks rows"),
        (b"task,site,image,mask\npolyp,north,a,b\n", "columns split"),
        (b"a;b\n1;2\n", "columns task, site, split, image, mask"),
        (b"\xff\xfe\x00\x01", "cannot be read as a CSV table"),
        (b"task,site,split,image,mask\npolyp,north,test,a.png\n", "too few columns"),
        (
            b"task,site,split,image,mask\ndisc,north,test,a,b\n",
            "no rows for polyp; its tasks: disc",
        ),
    ],
)
def test_bad_manifests_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=sentence) as caught:
        read_manifest(path, "polyp")
    assert "manifest.csv" in str(caught.value)


def test_a_missing_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.csv cannot be read"):
        read_manifest(tmp_path / "gone.csv", "polyp")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path, "polyp")


def test_a_site_or_split_without_rows_is_told(write) -> None:
    with pytest.raises(ManifestError, match="no rows for polyp, west, test"):
        read_manifest(write(ROWS), "polyp", site="west", split="test")


def test_a_row_becomes_a_sample(write, pictures: Path) -> None:
    sample = load_row(read_manifest(write(ROWS), "polyp")[0], 3)
    assert (sample.id, sample.group, sample.structure) == ("images/a.png", "patient 1", 3)
    assert sample.image.shape == (20, 30, 3)
    assert sample.image.dtype == np.uint8
    # Every value above zero is the structure.
    assert sample.mask.sum() == 4 * 6 + 1
    assert sample.mask[3, 4]
    assert not sample.absent


def test_a_scan_tells_its_pixels_size_and_a_picture_does_not(write, pictures: Path) -> None:
    scan = sitk.GetImageFromArray(np.arange(600, dtype=np.int16).reshape(1, 20, 30))
    scan.SetSpacing((0.5, 0.75, 4.0))
    sitk.WriteImage(scan, pictures / "images/scan.nii.gz")
    rows = [
        ["polyp", "north", "test", f"images/{name}", "masks/a.png", "x"]
        for name in ("a.png", "scan.nii.gz")
    ]
    picture, slice_ = (load_row(row, 1) for row in read_manifest(write(rows), "polyp"))
    assert picture.spacing is None
    assert slice_.spacing == pytest.approx((0.75, 0.5))


def test_a_group_on_both_sides_of_a_split_is_refused(write, pictures: Path) -> None:
    rows = [
        ["polyp", "north", split, "images/a.png", "masks/a.png", f"patient {number}"]
        for split, number in (("train", 1), ("train", 2), ("val", 3), ("test", 4))
    ]
    (site,) = load_task(write(rows), "polyp")
    assert [len(part) for part in (site.train, site.val, site.test)] == [2, 1, 1]
    for place, patient, splits in (
        (3, 2, "train and in test"),
        (3, 3, "val and in test"),
        (2, 1, "train and in val"),
    ):
        leaking = [list(row) for row in rows]
        leaking[place][-1] = f"patient {patient}"
        with pytest.raises(ManifestError, match=f"patient {patient} of north in {splits}"):
            load_task(write(leaking), "polyp")


def test_colour_masks_are_the_structure_where_any_channel_is(tmp_path: Path) -> None:
    pixels = np.zeros((6, 7, 3), np.uint8)
    pixels[1, 2, 0], pixels[3, 4, 2] = 9, 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert np.argwhere(read_binary_mask(tmp_path / "mask.png")).tolist() == [[1, 2], [3, 4]]


def test_only_the_labels_that_are_asked_for_are_the_structure(tmp_path: Path) -> None:
    pixels = np.zeros((6, 7), np.uint8)
    pixels[1, 2], pixels[3, 4] = 1, 2
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert np.argwhere(read_binary_mask(tmp_path / "mask.png", (2,))).tolist() == [[3, 4]]
    assert read_binary_mask(tmp_path / "mask.png", (1, 2)).sum() == 2


@pytest.mark.parametrize(
    ("task", "structure", "labels"),
    [
        ("polyp", 1, ()),
        ("polyp", 9, ()),
        ("optic_disc_cup", 1, (1, 2)),
        ("optic_disc_cup", 2, (2,)),
    ],
)
def test_the_labels_of_a_structure(task: str, structure: int, labels: tuple[int, ...]) -> None:
    assert labels_of(task, structure) == labels


def test_a_structure_that_the_masks_do_not_tell_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"structure 3: choose 1 \(optic disc\) or 2 \(optic"):
        labels_of("optic_disc_cup", 3)


@pytest.mark.parametrize("broken", ["images", "masks"])
@pytest.mark.parametrize("how", ["missing", "garbage", "truncated", "volume"])
def test_bad_files_are_told_by_their_row(write, pictures: Path, broken: str, how: str) -> None:
    path = pictures / broken / "a.png"
    row = read_manifest(write(ROWS), "polyp")[0]
    if how == "missing":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(b"no picture at all")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:50])
    else:
        volume = path.with_suffix(".nrrd")
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 20, 30), np.int16)), str(volume))
        row = type(row)(**{**vars(row), broken.removesuffix("s"): volume})
    with pytest.raises(ManifestError, match="slices" if how == "volume" else r"images/a\.png"):
        load_row(row, 3)


def test_a_mask_of_another_size_is_refused(write, pictures: Path) -> None:
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(pictures / "masks/a.png")
    with pytest.raises(ManifestError, match=r"mask of images/a\.png has \(20, 31\)"):
        load_row(read_manifest(write(ROWS), "polyp")[0], 3)
