import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.annotation.slices import SliceKey

axes = st.integers(0, 2)


def test_slice_planes_show_the_other_axes_in_order():
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert np.array_equal(SliceKey(0, 1).pixels(volume), volume[1])
    assert np.array_equal(SliceKey(1, 2).pixels(volume), volume[:, 2])
    assert np.array_equal(SliceKey(2, 3).pixels(volume), volume[:, :, 3])


def test_colour_stays_last():
    volume = np.zeros((2, 3, 4, 3), np.uint8)
    assert SliceKey(1, 0).pixels(volume).shape == (2, 4, 3)


@given(axes, st.integers(0, 9), st.floats(-5, 50), st.floats(-5, 50))
def test_place_and_locate_are_inverse(axis, index, x, y):
    key = SliceKey(axis, index)
    position = np.array(key.place(x, y))
    assert key.locate(position) == (x, y)
    assert key.holds(position)
    position[axis] += 1
    assert not key.holds(position)


@given(axes, st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_volume_indices_select_the_mask(axis, index, seed):
    volume = np.zeros((5, 6, 7), np.uint8)
    key = SliceKey(axis, index)
    mask = np.random.default_rng(seed).random(key.shape(volume.shape)) > 0.5
    volume[key.volume_indices(mask)] = 1
    assert np.array_equal(key.pixels(volume) == 1, mask)
    assert volume.sum() == mask.sum()
