"""The crosshair as state: where it goes, and where a scan begins."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_fedsam.annotation.crosshair import Crosshair
from napari_fedsam.annotation.session_file import SavedSession
from napari_fedsam.annotation.session_state import restore, state_of
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.imaging.display_grid import DisplayGrid
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan

AXIAL = (1, 0, 0, 0, 1, 0, 0, 0, -1)
SAGITTAL = (0, 0, 1, 1, 0, 0, 0, -1, 0)


def volume(size, spacing, origin, direction, **more) -> Scan:
    pixels = np.zeros(size[::-1], np.int16)
    geometry = Geometry(size, spacing, origin, tuple(float(value) for value in direction))
    return Scan(pixels, geometry, more.pop("name", "scan"), Path("x.nii"), **more)


@pytest.fixture
def t1() -> Scan:
    return volume((40, 40, 10), (1, 1, 4), (0, 0, 0), AXIAL, name="t1")


@pytest.fixture
def t2() -> Scan:
    """Acquired in sagittal slices of 5 mm over the same head."""
    return volume((36, 36, 8), (1, 1, 5), (0, 2, 0), SAGITTAL, name="t2")


@pytest.fixture
def view(t1) -> Viewpoint:
    view = Viewpoint()
    view.open(t1)
    return view


@pytest.fixture
def crosshair(view, t1) -> Crosshair:
    crosshair = Crosshair(view)
    view.open(t1)
    crosshair.turn(True)
    return crosshair


def open_linked(view, crosshair, scan):
    view.open(scan, crosshair.start_of(scan))


def test_off_it_has_no_point_and_moves_nothing(view, t1, t2):
    crosshair = Crosshair(view)
    view.open(t1)
    crosshair.move_to((10, 10, -8))
    assert crosshair.point is None
    assert crosshair.position is None
    assert crosshair.index_along(1) is None
    assert crosshair.start_of(t2) is None


def test_it_begins_in_the_middle_of_the_slice_on_screen(view, crosshair):
    assert tuple(crosshair.position) == (view.slice.index, 19.5, 19.5)


def test_stepping_takes_it_along(view, crosshair):
    crosshair.move_to((10.0, 30.0, -8.0))
    assert view.slice.index == 2
    view.show_slice(0, 5)
    assert crosshair.point == pytest.approx((10, 30, -20))


def test_moving_it_goes_to_the_nearest_slice_of_the_plane(view, crosshair):
    crosshair.move_to((10.0, 30.0, -13.0))
    assert view.slice.index == 3
    assert crosshair.point == (10, 30, -13)
    view.show_slice(1, crosshair.index_along(1))
    assert (view.slice.axis, view.slice.index) == (1, 30)
    assert crosshair.point == (10, 30, -13)


def test_another_scan_begins_on_its_acquired_slice_nearest_to_it_and_back(view, crosshair, t1, t2):
    crosshair.move_to((22.0, 30.0, -8.0))
    before = view.slice
    open_linked(view, crosshair, t2)
    # Sagittal slices run from right to left, 5 mm apart: 20 is nearer to 22 than 25.
    assert (view.slice.axis, view.slice.index) == (2, 4)
    assert crosshair.point == (22, 30, -8)
    open_linked(view, crosshair, t1)
    assert view.slice == before


def test_a_scan_elsewhere_begins_in_its_middle_with_a_point_of_its_own(view, crosshair, t1):
    far = volume((40, 40, 10), (1, 1, 4), (900, 0, 0), AXIAL, name="far")
    crosshair.move_to((22.0, 30.0, -8.0))
    open_linked(view, crosshair, far)
    assert view.slice.index == 5
    assert tuple(crosshair.position) == (5, 19.5, 19.5)


def test_a_picture_has_none_and_leaves_none_behind(view, crosshair, t1):
    picture = Scan(
        np.zeros((1, 5, 7), np.uint8), Geometry.identity((7, 5)), "p", Path("p.png"),
        is_anatomical=False,
    )  # fmt: skip
    open_linked(view, crosshair, picture)
    crosshair.move_to((1.0, 1.0, 0.0))
    assert crosshair.point is None
    open_linked(view, crosshair, t1)
    assert crosshair.point is not None


def test_a_point_outside_shows_the_outermost_slice_and_no_crosshair(view, crosshair):
    crosshair.move_to((10.0, 30.0, -500.0))
    assert view.slice.index == 9
    assert crosshair.position is None
    view.show_slice(0, 8)
    assert tuple(crosshair.position) == pytest.approx((8, 30, 10))


def test_it_tells_of_every_move_once(view, crosshair):
    told = []
    crosshair.changed.connect(lambda: told.append(crosshair.point))
    crosshair.move_to((10.0, 30.0, -8.0))
    crosshair.move_to((10.0, 30.0, -8.0))
    view.next_slice()
    crosshair.turn(True)
    crosshair.turn(False)
    assert told == [(10, 30, -8), pytest.approx((10, 30, -12)), None]


rotations = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(rotations, rotations, st.booleans(), st.lists(st.integers(0, 2), max_size=4), st.data())
def test_wherever_one_goes_the_point_lies_on_the_slice_shown(
    quaternion, other, is_mirrored, turns, data
):
    matrices = [Rotation.from_quat(each).as_matrix() for each in (quaternion, other)]
    matrices[0][:, 2] *= -1 if is_mirrored else 1
    scans = [
        volume((9, 8, 7), (1, 2, 4), (-4, -8, -12), matrix.ravel(), name=str(number))
        for number, matrix in enumerate(matrices)
    ]
    view = Viewpoint()
    crosshair = Crosshair(view)
    view.open(scans[0])
    crosshair.turn(True)
    for axis in turns:
        view.show_slice(axis, data.draw(st.integers(0, view.shape[axis] - 1)))
        open_linked(view, crosshair, scans[data.draw(st.integers(0, 1))])
        grid = DisplayGrid.of(view.scan)
        assert grid.nearest_slice(crosshair.point, view.slice.axis) == view.slice.index


def test_the_session_keeps_it(session, scan):
    crosshair = session.crosshair
    crosshair.turn(True)
    crosshair.move_to((4.0, 6.0, 9.0))
    saved = SavedSession(state_of(session), ())
    crosshair.turn(False)
    session.open_scan(scan)
    restore(session, saved, [])
    assert crosshair.is_on
    assert crosshair.point == (4, 6, 9)
    saved = SavedSession(state_of(session).model_copy(update={"linked": False}), ())
    restore(session, saved, [])
    assert not crosshair.is_on


def test_a_linked_scan_is_opened_where_the_session_was(session, scan):
    session.crosshair.turn(True)
    session.crosshair.move_to(DisplayGrid.of(scan).to_point((1, 5, 7)))
    thin = volume((30, 20, 22), (0.5, 0.7, 0.8), (1, 2, 3), np.eye(3).ravel(), name="thin")
    session.open_scan(thin)
    position = DisplayGrid.of(thin).to_position(session.crosshair.point)
    assert session.view.slice.index == round(position[0]) == 6
