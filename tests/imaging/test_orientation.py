import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.orientation import DisplayOrientation, EdgeLetters

SIZE = (4, 5, 6)
SPACING = (0.5, 0.7, 3.0)
ORIGIN = (10.0, -20.0, 30.0)
LETTERS = {
    "L": (1, 0, 0),
    "P": (0, 1, 0),
    "S": (0, 0, 1),
    "R": (-1, 0, 0),
    "A": (0, -1, 0),
    "I": (0, 0, -1),
}

rotations = st.builds(
    lambda quaternion, mirrored: (
        Rotation.from_quat(quaternion).as_matrix() @ np.diag([1, 1, -1 if mirrored else 1])
    ),
    st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
    st.booleans(),
)


def geometry_of(matrix: np.ndarray) -> Geometry:
    return Geometry(SIZE, SPACING, ORIGIN, tuple(float(v) for v in np.asarray(matrix).ravel()))


def axis_aligned() -> list[np.ndarray]:
    """Return all 48 ways to permute and flip the patient's axes."""
    found = []
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            for column, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
                matrix[axis, column] = sign
            found.append(matrix)
    return found


def world_of_display_voxels(geometry: Geometry, orientation: DisplayOrientation) -> np.ndarray:
    """Return the LPS position of each voxel of the display array, from the geometry alone."""
    z, y, x = np.indices(geometry.array_shape)
    positions = geometry.index_to_world(np.stack([x, y, z], axis=-1))
    return orientation.to_display(positions)


@pytest.mark.parametrize("matrix", axis_aligned())
def test_every_flipped_scan_is_shown_in_radiological_convention(matrix: np.ndarray) -> None:
    geometry = geometry_of(matrix)
    orientation = DisplayOrientation.from_geometry(geometry)
    world = world_of_display_voxels(geometry, orientation)
    assert (np.diff(world[..., 2], axis=0) < 0).all()  # superior to inferior
    assert (np.diff(world[..., 1], axis=1) > 0).all()  # anterior to posterior
    assert (np.diff(world[..., 0], axis=2) > 0).all()  # right to left
    assert orientation.edge_letters(0) == EdgeLetters(left="R", right="L", top="A", bottom="P")
    assert orientation.edge_letters(1) == EdgeLetters(left="R", right="L", top="S", bottom="I")
    assert orientation.edge_letters(2) == EdgeLetters(left="A", right="P", top="S", bottom="I")


@given(rotations)
def test_letters_of_oblique_scans_agree_with_the_world(matrix: np.ndarray) -> None:
    geometry = geometry_of(matrix)
    orientation = DisplayOrientation.from_geometry(geometry)
    world = world_of_display_voxels(geometry, orientation)
    first = world[0, 0, 0]
    for plane in range(3):
        down_axis, right_axis = (axis for axis in range(3) if axis != plane)
        letters = orientation.edge_letters(plane)
        for axis, start, end in (
            (down_axis, letters.top, letters.bottom),
            (right_axis, letters.left, letters.right),
        ):
            last = np.take(world, -1, axis=axis)[0, 0]
            direction = (last - first) / np.linalg.norm(last - first)
            along = {letter: float(direction @ vector) for letter, vector in LETTERS.items()}
            best = max(along.values())
            assert along[end[0]] == pytest.approx(best, abs=1e-6)
            assert along[start[0]] == pytest.approx(-best, abs=1e-6)
            expected = sum(value > np.sin(np.radians(15)) for value in along.values())
            assert len(end) == len(start) == min(2, expected)
            assert all(along[letter] > 0.25 for letter in end)


@given(rotations)
def test_display_axes_are_the_nearest_anatomical_ones(matrix: np.ndarray) -> None:
    orientation = DisplayOrientation.from_geometry(geometry_of(matrix))
    wanted = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]])
    assert orientation.directions is not None
    shown = np.array(orientation.directions)
    assert (np.sum(shown * wanted, axis=1) >= 0).all()
    chosen = np.abs(shown * wanted).sum()
    for axes in itertools.permutations(range(3)):
        assert chosen >= np.abs(shown[list(axes)] * wanted).sum() - 1e-8


@given(rotations)
def test_display_is_undone_exactly_and_is_a_view(matrix: np.ndarray) -> None:
    geometry = geometry_of(matrix)
    orientation = DisplayOrientation.from_geometry(geometry)
    array = np.arange(120).reshape(geometry.array_shape)
    shown = orientation.to_display(array)
    assert np.shares_memory(shown, array)
    assert np.array_equal(orientation.from_display(shown), array)
    colour = np.stack([array] * 3, axis=-1)
    assert np.array_equal(orientation.from_display(orientation.to_display(colour)), colour)
    assert orientation.to_display(colour).shape == (*shown.shape, 3)


@given(rotations)
def test_spacing_goes_with_its_axis(matrix: np.ndarray) -> None:
    geometry = geometry_of(matrix)
    orientation = DisplayOrientation.from_geometry(geometry)
    world = world_of_display_voxels(geometry, orientation)
    steps = [np.linalg.norm(np.take(world, 1, a) - np.take(world, 0, a), axis=-1) for a in range(3)]
    for axis in range(3):
        np.testing.assert_allclose(steps[axis], orientation.display_spacing[axis], atol=1e-9)
        assert orientation.display_axis(orientation.permutation[axis]) == axis


def test_a_writable_mask_can_be_edited_through_the_display_view() -> None:
    geometry = geometry_of(axis_aligned()[13])
    orientation = DisplayOrientation.from_geometry(geometry)
    mask = np.zeros(geometry.array_shape, np.uint8)
    orientation.to_display(mask)[0, 1, 2] = 7
    assert mask.sum() == 7


def test_a_tilted_axis_gets_two_letters_dominant_first() -> None:
    tilt = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    letters = DisplayOrientation.from_geometry(geometry_of(tilt)).edge_letters(0)
    assert letters == EdgeLetters(left="RA", right="LP", top="AL", bottom="PR")
    slight = Rotation.from_euler("z", 10, degrees=True).as_matrix()
    assert DisplayOrientation.from_geometry(geometry_of(slight)).edge_letters(0).left == "R"


def test_unknown_directions_are_left_alone() -> None:
    picture = DisplayOrientation.from_geometry(Geometry.identity((5, 4)))
    array = np.arange(20).reshape(1, 4, 5)
    assert np.array_equal(picture.to_display(array), array)
    assert picture.edge_letters(0) == EdgeLetters()
    assert picture.plane_name(0) == "slice"
    flipped = geometry_of(np.diag([-1.0, -1.0, 1.0]))
    unknown = DisplayOrientation.from_geometry(flipped, spacing_known=False)
    assert unknown.permutation == (0, 1, 2)
    assert not any(unknown.flipped)
    assert unknown.display_spacing == SPACING[::-1]


def test_planes_have_names_and_axes_labels() -> None:
    orientation = DisplayOrientation.from_geometry(geometry_of(np.eye(3)))
    assert [orientation.plane_name(i) for i in range(3)] == ["axial", "coronal", "sagittal"]
    assert orientation.axis_labels == ("S-I", "A-P", "R-L")
