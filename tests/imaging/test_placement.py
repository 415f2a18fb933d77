"""Blocks of voxels find their place by coordinates, however they are turned and cropped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.placement import place_block

SIZE = (6, 5, 4)
MATRIX = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
GRID = Geometry(SIZE, (0.5, 0.7, 3.0), (-12.5, 40.25, 7.125), tuple(map(float, MATRIX.ravel())))
VALUES = np.arange(1, 121).reshape(SIZE[::-1])


def moved(geometry: Geometry, start: tuple[int, ...], size: tuple[int, ...]) -> Geometry:
    origin = tuple(float(v) for v in geometry.index_to_world(start))
    return Geometry(size, geometry.spacing, origin, geometry.direction)


@given(
    bounds=st.tuples(
        *[st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True) for n in SIZE]
    ),
    axes=st.permutations(range(3)),
    flipped=st.tuples(*[st.booleans()] * 3),
)
def test_any_turned_part_of_the_grid_is_found(bounds, axes, flipped) -> None:
    low, high = zip(*(sorted(pair) for pair in bounds), strict=True)
    part = VALUES[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))]
    block = moved(GRID, low, tuple(part.shape[::-1])).reindexed(tuple(axes), flipped)
    by_x_y_z = part.transpose(2, 1, 0).transpose(axes)
    stored = by_x_y_z[tuple(slice(None, None, -1 if f else 1) for f in flipped)].transpose(2, 1, 0)
    placement = place_block(block, GRID, 0.01)
    assert placement is not None
    found = placement.within(stored, VALUES.shape)
    assert found is not None
    region, inside = found
    assert np.array_equal(inside, VALUES[region])
    assert inside.size == part.size


def test_background_beyond_the_grid_is_cut_off_and_structures_there_are_not() -> None:
    block = moved(GRID, (-2, -1, 1), (9, 8, 2))
    placement = place_block(block, GRID, 0.01)
    assert placement is not None
    values = np.zeros((2, 8, 9), np.uint8)
    values[0, 1, 2] = 7
    region, inside = placement.within(values, VALUES.shape)
    assert region == (slice(1, 3), slice(0, 5), slice(0, 6))
    assert inside[0, 0, 0] == 7
    values[0, 0, 2] = 7
    assert placement.within(values, VALUES.shape) is None


def test_a_block_beside_the_grid_has_nothing_inside() -> None:
    placement = place_block(moved(GRID, (20, 0, 0), (2, 2, 2)), GRID, 0.01)
    assert placement is not None
    assert placement.within(np.ones((2, 2, 2)), VALUES.shape) is None
    region, inside = placement.within(np.zeros((2, 2, 2)), VALUES.shape)
    assert inside.size == 0
    assert VALUES[region].shape == inside.shape


@pytest.mark.parametrize(
    "block",
    [
        moved(GRID, (0.5, 0, 0), SIZE),
        Geometry(SIZE, (0.5, 0.7, 3.05), GRID.origin, GRID.direction),
        Geometry(SIZE, (1.0, 0.7, 3.0), GRID.origin, GRID.direction),
        Geometry(SIZE, GRID.spacing, GRID.origin, tuple(np.eye(3).ravel())),
        Geometry((6, 5, 1), GRID.spacing, GRID.origin, tuple(np.eye(3).ravel())),
    ],
    ids=["between voxels", "stretched", "twice as coarse", "unturned", "unturned slice"],
)
def test_what_would_need_interpolation_has_no_place(block: Geometry) -> None:
    assert place_block(block, GRID, 0.03) is None


def test_the_thickness_of_a_single_slice_does_not_matter() -> None:
    block = Geometry((6, 5, 1), (0.5, 0.7, 99.0), GRID.origin, GRID.direction)
    assert place_block(block, GRID, 0.01) is not None


def test_a_picture_is_a_volume_of_one_slice() -> None:
    picture = Geometry.identity((6, 5))
    placement = place_block(Geometry.identity((6, 5, 1)), picture, 0.01)
    assert placement is not None
    assert placement.start == (0, 0, 0)
