"""Physical points and the voxels of oblique, flipped and anisotropic scans."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.display_grid import DisplayGrid
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan


def scan_on(geometry: Geometry) -> Scan:
    shape = geometry.array_shape
    pixels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return Scan(pixels, geometry, "scan", Path("scan.nii"))


@st.composite
def geometries(draw, sheared=st.booleans()) -> Geometry:
    """Any rotation, mirrored or not, sheared like a tilted gantry or not."""
    quaternion = draw(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
    matrix = Rotation.from_quat(quaternion).as_matrix()
    if draw(st.booleans()):
        matrix[:, draw(st.integers(0, 2))] *= -1
    if draw(sheared):
        tilted = matrix[:, 2] + draw(st.floats(-0.4, 0.4)) * matrix[:, 1]
        matrix[:, 2] = tilted / np.linalg.norm(tilted)
    return Geometry(
        draw(st.tuples(*[st.integers(1, 9)] * 3)),
        draw(st.tuples(*[st.floats(0.3, 6)] * 3)),
        draw(st.tuples(*[st.floats(-300, 300)] * 3)),
        tuple(float(value) for value in matrix.ravel()),
    )


places = st.tuples(*[st.floats(-20, 20)] * 3)


@given(geometries(), places)
def test_a_point_comes_back_to_its_position(geometry, place):
    grid = DisplayGrid.of(scan_on(geometry))
    np.testing.assert_allclose(grid.to_position(grid.to_point(place)), place, atol=1e-8)


@given(geometries(), st.data())
def test_itk_finds_the_displayed_voxel_at_its_point(geometry, data):
    scan = scan_on(geometry)
    grid = DisplayGrid.of(scan)
    display = scan.orientation.to_display(scan.pixels)
    assert grid.shape == display.shape
    voxel = tuple(data.draw(st.integers(0, extent - 1)) for extent in display.shape)
    image = sitk.GetImageFromArray(scan.pixels)
    geometry.stamp(image)
    index = image.TransformPhysicalPointToIndex(grid.to_point(voxel))
    assert image[index] == display[voxel]


@given(geometries(), geometries(), places, st.integers(0, 2))
def test_the_nearest_slice_of_another_scan_is_the_one_whose_plane_is_nearest(
    here, there, place, axis
):
    point = np.array(DisplayGrid.of(scan_on(here)).to_point(place))
    grid = DisplayGrid.of(scan_on(there))
    origin = np.array(grid.to_point((0, 0, 0)))
    steps = [np.array(grid.to_point(unit)) - origin for unit in np.eye(3)]
    normal = np.cross(*(steps[other] for other in range(3) if other != axis))
    normal /= np.linalg.norm(normal)
    distances = [
        abs((point - origin - index * steps[axis]) @ normal) for index in range(grid.shape[axis])
    ]
    found = grid.nearest_slice(point, axis)
    assert distances[found] <= min(distances) + 1e-6


@given(geometries(), places)
def test_a_point_is_held_within_the_outer_faces_only(geometry, place):
    grid = DisplayGrid.of(scan_on(geometry))
    inside = all(-0.5 <= p <= n - 0.5 for p, n in zip(place, grid.shape, strict=True))
    margin = min(
        abs(p - face) for p, n in zip(place, grid.shape, strict=True) for face in (-0.5, n - 0.5)
    )
    if margin > 1e-6:
        assert grid.holds(grid.to_point(place)) is inside


@given(geometries(sheared=st.just(False)), st.integers(0, 2), st.data())
def test_a_voxel_centre_lies_on_its_own_slice(geometry, axis, data):
    grid = DisplayGrid.of(scan_on(geometry))
    voxel = [data.draw(st.integers(0, extent - 1)) for extent in grid.shape]
    assert grid.nearest_slice(grid.to_point(voxel), axis) == voxel[axis]


def test_display_order_is_radiological_whatever_the_file_says():
    # A coronal acquisition, stored from left to right, from inferior to superior, from back to
    # front, shown as (S-I, A-P, R-L).
    direction = (-1, 0, 0, 0, 0, -1, 0, 1, 0)
    grid = DisplayGrid.of(scan_on(Geometry((4, 5, 6), (0.5, 0.7, 3), (10, -20, 30), direction)))
    start = np.array(grid.to_point((0, 0, 0)))
    assert grid.to_point((1, 0, 0)) - start == pytest.approx((0, 0, -0.7))
    assert grid.to_point((0, 1, 0)) - start == pytest.approx((0, 3, 0))
    assert grid.to_point((0, 0, 1)) - start == pytest.approx((0.5, 0, 0))


def test_a_picture_is_a_volume_of_one_slice():
    grid = DisplayGrid.of(scan_on(Geometry.identity((7, 5))))
    assert grid.shape == (1, 5, 7)
    assert grid.to_point((0, 2, 3)) == (3, 2, 0)
