from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan


def scan_of(
    pixels: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0), **options: Any
) -> Scan:
    size = pixels.shape[2::-1]
    plain = Geometry.identity(size)
    geometry = Geometry(size, spacing, plain.origin, plain.direction)
    return Scan(pixels, geometry, "scan", Path("somewhere"), **options)


VALUES = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def test_pixels_are_read_only_but_the_callers_array_is_not() -> None:
    mine = VALUES.copy()
    scan = scan_of(mine)
    with pytest.raises(ValueError, match="read-only"):
        scan.pixels[0, 0, 0] = 1
    mine[0, 0, 0] = 1


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 3, 4), np.float64),
        np.zeros((2, 3, 4), np.int64),
        np.zeros((2, 3, 4), bool),
        np.zeros((2, 3, 4, 3), np.uint16),
        np.zeros((2, 3, 4, 4), np.uint8),
    ],
)
def test_refuses_pixel_types_that_the_rest_does_not_know(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixels"):
        scan_of(pixels)


def test_refuses_pixels_that_do_not_fit_the_geometry() -> None:
    with pytest.raises(ValueError, match="fit"):
        Scan(VALUES, Geometry.identity((2, 3, 4)), "scan", Path("x"))


def test_repr_tells_neither_the_patient_nor_the_path() -> None:
    scan = Scan(
        VALUES,
        Geometry.identity((4, 3, 2)),
        "CT series 3",
        Path("planted_name") / "x.dcm",
        patient_key="planted-id",
    )
    assert "planted" not in repr(scan)
    assert "CT series 3" in repr(scan)


@pytest.mark.parametrize(
    ("spacing", "options", "axis"),
    [
        ((0.8, 0.8, 5.0), {}, 0),
        ((0.8, 5.0, 0.8), {}, 1),
        ((5.0, 0.8, 0.8), {}, 2),
        ((1.0, 1.0, 1.0), {}, 0),
        ((1.0000001, 1.0, 1.0), {}, 0),
        ((1.0, 5.0, 1.0), {"is_stack_of_frames": True}, 0),
        ((1.0, 5.0, 1.0), {"spacing_known": False}, 0),
    ],
)
def test_slices_are_across_the_coarsest_axis(
    spacing: tuple[float, ...], options: dict[str, Any], axis: int
) -> None:
    assert scan_of(VALUES, spacing, **options).slice_axis == axis


def test_spacing_has_the_order_of_the_array_and_a_unit() -> None:
    assert scan_of(VALUES, (0.5, 0.7, 3.0)).spacing == (3.0, 0.7, 0.5)
    assert scan_of(VALUES).unit == "mm"
    assert scan_of(VALUES, spacing_known=False).unit == "pixel"


def test_a_picture_has_a_flat_geometry() -> None:
    picture = Scan(VALUES[:1], Geometry.identity((4, 3)), "picture", Path("p.png"))
    assert picture.is_picture
    assert picture.shape == (1, 3, 4)
    assert picture.spacing == (1.0, 1.0, 1.0)
    assert not picture.orientation.is_anatomical


def test_orientation_is_anatomical_only_where_the_directions_are_known() -> None:
    assert scan_of(VALUES).orientation.is_anatomical
    unknown = scan_of(VALUES, (0.5, 0.7, 3.0), is_anatomical=False)
    assert not unknown.orientation.is_anatomical
    assert unknown.orientation.display_spacing == (3.0, 0.7, 0.5)
    frames = scan_of(VALUES, is_anatomical=False, is_stack_of_frames=True)
    assert frames.orientation.axis_labels == ("frame", "y", "x")


def test_fingerprint_tells_content_and_place_apart_but_not_names() -> None:
    first = scan_of(VALUES)
    assert first.fingerprint == Scan(VALUES, first.geometry, "other", Path("elsewhere")).fingerprint
    assert len(first.fingerprint) == 64
    changed = VALUES.copy()
    changed[1, 2, 3] += 1
    others = [
        scan_of(changed),
        scan_of(VALUES.astype(np.float32)),
        scan_of(VALUES, (1.0, 1.0, 1.5)),
        scan_of(VALUES.reshape(3, 2, 4)),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_fingerprint_does_not_depend_on_memory_layout() -> None:
    big_endian = scan_of(VALUES.astype(">i2"))
    fortran = scan_of(np.asfortranarray(VALUES))
    assert scan_of(VALUES).fingerprint == big_endian.fingerprint == fortran.fingerprint
