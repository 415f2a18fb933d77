"""3D Slicer's .seg.nrrd: exact round trips, and files as Slicer writes them."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.readers import read_mask, read_segmentation
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure
from napari_fedsam.imaging.writers import write_mask

SIZE = (6, 5, 4)
STRUCTURES = (
    MaskStructure(1, "spleen", "#56b4e9"),
    MaskStructure(4, "Größe: 脾 \\ 100 %", "#010203"),
    MaskStructure(300, "not drawn yet", "#ffffff"),
)
LABELS = np.random.default_rng(3).choice([0, 1, 4], SIZE[::-1]).astype(np.uint16)
LABELS[:, 0] = LABELS[..., 0] = 0


def scan_of(spacing: tuple[float, ...], angles: tuple[float, ...], mirrored: bool) -> Scan:
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix = matrix @ np.diag([1, 1, -1 if mirrored else 1])
    geometry = Geometry(SIZE, spacing, (-12.5, 40.25, 7.125), tuple(map(float, matrix.ravel())))
    return Scan(np.zeros(geometry.array_shape, np.int16), geometry, "scan", Path("scan.nii"))


OBLIQUE = scan_of((0.5, 0.7, 3.0), (20, -35, 50), mirrored=False)
SCANS = {
    "oblique": OBLIQUE,
    "flipped": scan_of((1, 1, 1), (0, 0, 0), mirrored=True),
    "anisotropic": scan_of((0.2, 0.9, 8), (0, 0, 0), mirrored=False),
    "turned": scan_of((0.5, 0.7, 3.0), (90, 0, 180), mirrored=True),
}


def slicer_file(
    path: Path,
    values: np.ndarray,
    notes: dict[str, Any],
    geometry: Geometry = OBLIQUE.geometry,
    corner: tuple[int, int, int] = (0, 0, 0),
) -> Path:
    """Write a header by hand; values are (z, y, x) or, in several layers, (z, y, x, layer)."""
    many = values.ndim == 4
    steps = geometry.matrix * geometry.spacing
    vectors = [f"({','.join(repr(float(v)) for v in steps[:, i])})" for i in range(3)]
    origin = ",".join(repr(float(v)) for v in geometry.index_to_world(corner))
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "type: unsigned char",
        f"dimension: {values.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(n) for n in (values.shape[-1:] if many else ()))} "
        f"{' '.join(str(n) for n in values.shape[2::-1])}",
        f"space directions: {'none ' if many else ''}{' '.join(vectors)}",
        f"kinds: {'list ' if many else ''}domain domain domain",
        "encoding: gzip",
        f"space origin: ({origin})",
        *(f"{key}:={value}" for key, value in notes.items()),
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|Closed surface|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
    ]
    header = "\n".join(lines) + "\n\n"
    path.write_bytes(header.encode() + gzip.compress(values.astype(np.uint8).tobytes()))
    return path


def segment(number: int, name: str, **notes: Any) -> dict[str, Any]:
    fields = {"ID": f"Segment_{number + 1}", "Name": name, "Color": "0.501961 0.682353 1"}
    return {f"Segment{number}_{key}": value for key, value in (fields | notes).items()}


@pytest.mark.parametrize("kind", SCANS)
def test_labels_names_and_colours_come_back(tmp_path: Path, kind: str) -> None:
    scan = SCANS[kind]
    path = tmp_path / "m.seg.nrrd"
    write_mask(LABELS, scan, path, STRUCTURES)
    back = read_segmentation(path, scan)
    assert np.array_equal(back.labels, LABELS)
    assert back.structures == STRUCTURES
    assert Geometry.from_image(sitk.ReadImage(str(path))).matches(scan.geometry)


def test_the_header_is_what_slicer_expects(tmp_path: Path) -> None:
    write_mask(LABELS, OBLIQUE, tmp_path / "m.seg.nrrd", STRUCTURES)
    image = sitk.ReadImage(str(tmp_path / "m.seg.nrrd"))
    notes = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert notes["Segment0_ID"] == "Segment_1"
    assert notes["Segment0_Color"] == "0.337255 0.705882 0.913725"
    assert notes["Segment1_LabelValue"] == "4"
    assert notes["Segment1_Layer"] == "0"
    z, y, x = np.nonzero(LABELS == 4)
    assert notes["Segment1_Extent"] == (
        f"{x.min()} {x.max()} {y.min()} {y.max()} {z.min()} {z.max()}"
    )
    assert notes["Segment2_Extent"] == "0 -1 0 -1 0 -1"
    assert notes["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert notes["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"


def test_a_picture_has_three_dimensions(tmp_path: Path) -> None:
    picture = Scan(
        np.zeros((1, 5, 6), np.uint8),
        Geometry.identity((6, 5)),
        "p",
        Path("p.png"),
        spacing_known=False,
        is_anatomical=False,
    )
    write_mask(LABELS[:1], picture, tmp_path / "m.seg.nrrd")
    assert sitk.ReadImage(str(tmp_path / "m.seg.nrrd")).GetSize() == (6, 5, 1)
    assert np.array_equal(read_mask(tmp_path / "m.seg.nrrd", picture), LABELS[:1])


def test_an_empty_mask_comes_back_empty(tmp_path: Path) -> None:
    write_mask(LABELS * 0, OBLIQUE, tmp_path / "m.seg.nrrd")
    assert not read_mask(tmp_path / "m.seg.nrrd", OBLIQUE).any()


def test_a_plain_nrrd_has_no_names(tmp_path: Path) -> None:
    write_mask(LABELS, OBLIQUE, tmp_path / "m.nrrd", STRUCTURES)
    assert read_segmentation(tmp_path / "m.nrrd", OBLIQUE).structures == ()


def test_names_are_read_whatever_the_file_is_called(tmp_path: Path) -> None:
    notes = segment(0, "spleen", LabelValue=1, Layer=0)
    path = slicer_file(tmp_path / "renamed.nrrd", LABELS == 1, notes)
    back = read_segmentation(path, OBLIQUE)
    assert back.structures == (MaskStructure(1, "spleen", "#80aeff"),)
    assert np.array_equal(back.labels, LABELS == 1)


def test_a_cropped_file_is_put_where_it_lies(tmp_path: Path) -> None:
    values = (LABELS[1:3, 2:4, 1:5] == 4) * 9
    notes = segment(0, "cyst", LabelValue=9, Layer=0)
    path = slicer_file(tmp_path / "c.seg.nrrd", values, notes, corner=(1, 2, 1))
    expected = np.zeros_like(LABELS)
    expected[1:3, 2:4, 1:5] = values
    assert np.array_equal(read_mask(path, OBLIQUE), expected)


def test_background_beyond_the_scan_is_cut_off(tmp_path: Path) -> None:
    padded = np.pad(LABELS, 2)
    notes = segment(0, "a", LabelValue=1) | segment(1, "b", LabelValue=4)
    path = slicer_file(tmp_path / "p.seg.nrrd", padded, notes, corner=(-2, -2, -2))
    assert np.array_equal(read_mask(path, OBLIQUE), LABELS)


def test_several_layers_are_joined(tmp_path: Path) -> None:
    values = np.stack([LABELS == 1, (LABELS == 4) * 2], axis=-1)
    notes = segment(0, "a", LabelValue=1, Layer=0) | segment(1, "b", LabelValue=2, Layer=1)
    back = read_segmentation(slicer_file(tmp_path / "l.seg.nrrd", values, notes), OBLIQUE)
    assert np.array_equal(back.labels, np.where(LABELS == 4, 2, LABELS))
    assert [each.name for each in back.structures] == ["a", "b"]


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_layers_of_older_versions_are_counted(tmp_path: Path, layers: int) -> None:
    parts = np.random.default_rng(1).integers(0, layers + 1, SIZE[::-1])
    values = np.stack([parts == i + 1 for i in range(layers)], axis=-1)
    notes: dict[str, Any] = {}
    for number in range(layers):
        notes |= segment(number, f"s{number}")
    back = read_segmentation(slicer_file(tmp_path / "o.seg.nrrd", values, notes), OBLIQUE)
    assert np.array_equal(back.labels, parts)
    assert [each.value for each in back.structures] == list(range(1, layers + 1))


def test_one_voxel_stands_for_nothing(tmp_path: Path) -> None:
    path = slicer_file(
        tmp_path / "e.seg.nrrd",
        np.zeros((1, 1, 1)),
        segment(0, "later"),
        Geometry.identity((1,) * 3),
    )
    back = read_segmentation(path, OBLIQUE)
    assert not back.labels.any()
    assert [each.name for each in back.structures] == ["later"]


TWO = segment(0, "a", LabelValue=1, Layer=0) | segment(1, "b", LabelValue=2, Layer=1)


@pytest.mark.parametrize(
    ("values", "notes", "corner", "told"),
    [
        (np.ones((4, 5, 6, 2)) * [1, 2], TWO, (0, 0, 0), r"overlap \('a' and 'b'\).*export"),
        (LABELS == 1, segment(0, "a", Layer=1), (0, 0, 0), r"does not fit .* \(Segment0\)"),
        (LABELS == 1, segment(0, "a", LabelValue="one"), (0, 0, 0), r"does not fit"),
        (LABELS == 1, segment(0, "a", LabelValue=0), (0, 0, 0), r"does not fit"),
        (LABELS, segment(0, "a", LabelValue=1), (0, 0, 0), "value 4, which its header"),
        (LABELS == 1, segment(0, "a"), (0.5, 0, 0), "another size or position than scan"),
        (LABELS == 1, segment(0, "a"), (3, 0, 0), "another size or position than scan"),
    ],
    ids=["overlap", "layer", "label", "zero", "unnamed", "shifted", "outside"],
)
def test_bad_files_are_explained(
    tmp_path: Path, values: np.ndarray, notes: dict[str, Any], corner: Any, told: str
) -> None:
    path = slicer_file(tmp_path / "bad.seg.nrrd", values, notes, corner=corner)
    with pytest.raises(ImagingError, match=rf"^bad\.seg\.nrrd .*{told}.*\.$"):
        read_mask(path, OBLIQUE)


def test_one_of_overlapping_structures_is_read_by_its_name(tmp_path: Path) -> None:
    values = np.stack([LABELS > 0, (LABELS == 4) * 2], axis=-1)
    path = slicer_file(tmp_path / "o.seg.nrrd", values, TWO)
    back = read_segmentation(path, OBLIQUE, wanted=" B")
    assert np.array_equal(back.labels, (LABELS == 4) * 2)
    assert [each.name for each in back.structures] == ["a", "b"]
    assert np.array_equal(read_segmentation(path, OBLIQUE, wanted="a").labels, LABELS > 0)
    with pytest.raises(ImagingError, match="overlap"):
        read_segmentation(path, OBLIQUE, wanted="c")


def test_a_file_without_segments_is_told(tmp_path: Path) -> None:
    write_mask(LABELS, OBLIQUE, tmp_path / "m.nrrd")
    path = (tmp_path / "m.nrrd").rename(tmp_path / "m.seg.nrrd")
    with pytest.raises(ImagingError, match=r"m\.seg\.nrrd names no segments"):
        read_mask(path, OBLIQUE)


@pytest.mark.parametrize("part", [0.0, 0.2, 0.97])
def test_a_truncated_file_is_told(tmp_path: Path, part: float) -> None:
    path = tmp_path / "cut.seg.nrrd"
    write_mask(LABELS, OBLIQUE, path, STRUCTURES)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ImagingError, match=r"^cut\.seg\.nrrd "):
        read_mask(path, OBLIQUE)


def test_names_in_latin_1_and_odd_keys_are_read(tmp_path: Path) -> None:
    path = slicer_file(tmp_path / "l.seg.nrrd", LABELS == 1, segment(0, "Drüse") | {"Ü": "?"})
    content = path.read_bytes()
    path.write_bytes(content.replace("ü".encode(), b"\xfc").replace("Ü".encode(), b"\xdc"))
    assert read_segmentation(path, OBLIQUE).structures[0].name == "Drüse"


def test_an_odd_colour_gives_way_to_the_palette(tmp_path: Path) -> None:
    notes = segment(0, "a", Color="0.5 7")
    back = read_segmentation(slicer_file(tmp_path / "c.seg.nrrd", LABELS == 1, notes), OBLIQUE)
    assert back.structures[0].color == "#56b4e9"
