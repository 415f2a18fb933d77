from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.app.segmentation import SliceOfScan
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.sam.errors import PromptError

SHAPE = (3, 4, 5)


def scan_with(direction):
    geometry = Geometry(SHAPE[::-1], (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), tuple(direction))
    pixels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return Scan(pixels, geometry, "test", Path("test.nrrd"), "MR")


@st.composite
def axis_directions(draw):
    """Every way that a grid can lie along the patient's axes."""
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3))
    matrix = np.zeros((3, 3))
    for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[row, column] = sign
    return matrix.ravel()


@given(axis_directions(), st.integers(0, 2), st.data())
def test_a_stored_pixel_is_found_on_the_display(direction, axis, data):
    scan = scan_with(direction)
    index = data.draw(st.integers(0, SHAPE[axis] - 1))
    rows, columns = (n for i, n in enumerate(SHAPE) if i != axis)
    y, x = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    chosen = SliceOfScan(scan, axis, index)
    shown = chosen.display_key.pixels(scan.orientation.to_display(scan.pixels))
    shown_x, shown_y = chosen.display_point((x, y))
    assert shown[round(shown_y), round(shown_x)] == np.take(scan.pixels, index, axis)[y, x]


@given(axis_directions(), st.integers(0, 2), st.data())
def test_a_display_mask_returns_to_its_voxels(direction, axis, data):
    scan = scan_with(direction)
    chosen = SliceOfScan(scan, axis, data.draw(st.integers(0, SHAPE[axis] - 1)))
    shown = chosen.display_key.pixels(scan.orientation.to_display(scan.pixels))
    mask = shown % 3 == 0
    volume = chosen.volume_mask(mask, 7)
    assert volume.shape == SHAPE
    assert set(scan.pixels[volume == 7]) == set(shown[mask])


def test_a_box_keeps_its_corners_in_order_on_a_flipped_scan():
    chosen = SliceOfScan(scan_with([-1, 0, 0, 0, -1, 0, 0, 0, 1]), 0, 1)
    x0, y0, x1, y1 = chosen.display_box((0, 1, 2, 3))
    assert (x0, y0, x1, y1) == (2, 0, 4, 2)


@pytest.mark.parametrize(
    ("axis", "index", "words"), [(3, None, "no axis 3"), (0, 9, "0 to 2"), (1, -1, "0 to 3")]
)
def test_slices_that_do_not_exist_are_refused(axis, index, words):
    with pytest.raises(PromptError, match=words):
        SliceOfScan(scan_with(np.eye(3).ravel()), axis, index)


@pytest.mark.parametrize("point", [(-1, 0), (5, 0), (0, 4)])
def test_points_outside_the_slice_are_refused(point):
    with pytest.raises(PromptError, match="5 x 4 slice of test"):
        SliceOfScan(scan_with(np.eye(3).ravel()), 0, 1).display_point(point)


def test_boxes_outside_the_slice_are_refused():
    with pytest.raises(PromptError, match="lies outside"):
        SliceOfScan(scan_with(np.eye(3).ravel()), 0, 1).display_box((10, 10, 20, 20))
