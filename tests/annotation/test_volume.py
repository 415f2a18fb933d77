"""Propagation, interpolation, volume tools and measures."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.interpolation import interpolated
from napari_fedsam.annotation.propagation import Limits, Look, Propagation
from napari_fedsam.annotation.volume_tools import (
    fill_holes,
    largest_component,
    measure,
    smooth,
)
from napari_fedsam.sam.prediction import Prediction

SHAPE = (30, 30)
SPACING = (3.0, 1.0, 0.5)


def disc(radius, x=15.0, y=15.0):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - y, columns - x) <= radius


class Volume:
    """Answers on each slice with the part of the truth that the prompt touches."""

    def __init__(self, radii, scores=None):
        self.truth = [disc(radius) if radius else np.zeros(SHAPE, bool) for radius in radii]
        self.scores = scores or [0.9] * len(radii)
        self.encoded = []

    def encode(self, index):
        self.encoded.append(index)
        return SimpleNamespace(index=index, image_shape=SHAPE)

    def predict(self, embedding, prompts, *, structure=None, previous=None):
        truth = self.truth[embedding.index]
        mask = truth if prompts.box is not None else np.zeros(SHAPE, bool)
        return Prediction(mask, self.scores[embedding.index], np.zeros((4, 4), np.float32))

    def follow(self, embedding, mask, *, structure=None):
        truth = self.truth[embedding.index]
        found = truth if (mask & truth).any() else truth & False
        return Prediction(found, self.scores[embedding.index], np.zeros((4, 4), np.float32))

    def found(self, seeds, limits=None, **options):
        limits = limits or Limits(0, len(self.truth) - 1, **options)
        return list(Propagation(self, self.encode, seeds, limits).run())


def masks(found):
    return {each.index for each in found if each.mask is not None}


def test_it_goes_both_ways_to_the_ends_of_the_structure():
    volume = Volume([0, 4, 6, 7, 7, 6, 4, 0, 0])
    found = volume.found({4: disc(7)})
    assert masks(found) == {1, 2, 3, 5, 6}
    assert {each.index: each.why for each in found if each.why} == {
        0: "nothing was found",
        7: "nothing was found",
    }
    assert 8 not in volume.encoded
    for each in found:
        if each.mask is not None:
            assert np.array_equal(each.mask, volume.truth[each.index])


def test_it_stops_where_the_model_is_unsure():
    volume = Volume([5] * 5, [0.9, 0.9, 0.9, 0.3, 0.9])
    found = volume.found({1: disc(5)})
    assert masks(found) == {0, 2}
    assert found[1].why == "the model was unsure (0.30)"


def test_it_stops_where_the_area_changes_suddenly():
    assert masks(Volume([5, 5, 12, 12]).found({0: disc(5)})) == {1}
    assert masks(Volume([10, 10, 2, 2]).found({0: disc(10)})) == {1}


def test_it_keeps_to_the_range():
    volume = Volume([5] * 9)
    assert masks(volume.found({4: disc(5)}, Limits(3, 6))) == {3, 5, 6}


@pytest.mark.parametrize(
    ("first", "last", "passed"), [(7, 8, {5, 6}), (1, 2, {3}), (9, 9, {5, 6, 7, 8})]
)
def test_on_the_way_to_a_range_beside_the_seed_nothing_is_filled(first, last, passed):
    volume = Volume([5] * 10)
    filled = set(range(first, last + 1))
    for seed in (disc(5), Ask(boxes=((8, 8, 22, 22),))):
        volume.encoded.clear()
        found = volume.found({4: seed}, Limits(first, last))
        assert {each.index for each in found} == filled
        assert set(volume.encoded) - {4} == filled | passed


def test_a_direction_that_never_comes_to_the_range_is_not_begun():
    volume = Volume([5] * 20)
    seeds = {2: Ask(boxes=((8, 8, 22, 22),)), 8: disc(5), 19: Ask(boxes=((8, 8, 22, 22),))}
    assert masks(volume.found(seeds, Limits(10, 12))) == {10, 11, 12}
    assert volume.encoded == [9, 10, 11, 12]


def test_a_structure_that_ends_before_the_range_is_told_of():
    (found,) = Volume([5, 5, 5, 0, 5, 5]).found({1: disc(5)}, Limits(4, 5))
    assert (found.index, found.mask, found.why) == (3, None, "nothing was found")


def test_prompts_are_answered_first_and_share_what_lies_between():
    volume = Volume([5] * 9)
    found = volume.found({1: Ask(boxes=((8, 8, 22, 22),)), 6: disc(5)})
    order = [each.index for each in found]
    assert order == [1, 2, 3, 0, 7, 8, 5, 4]
    assert masks(found) == {0, 1, 2, 3, 4, 5, 7, 8}


def test_an_absent_slice_is_a_border():
    volume = Volume([5] * 9)
    found = volume.found({2: disc(5), 6: np.zeros(SHAPE, bool)})
    assert masks(found) == {0, 1, 3, 4}


@given(st.sets(st.integers(0, 19), min_size=1, max_size=6))
def test_every_slice_is_reached_exactly_once(seeds):
    volume = Volume([5] * 20)
    found = volume.found({index: disc(5) for index in seeds})
    assert sorted(each.index for each in found) == sorted(set(range(20)) - seeds)


@given(
    st.sets(st.integers(0, 19), min_size=1, max_size=6),
    st.tuples(st.integers(0, 19), st.integers(0, 19)).map(sorted),
)
def test_every_slice_of_a_range_is_filled_exactly_once_and_no_other(seeds, ends):
    first, last = ends
    found = Volume([5] * 20).found({index: disc(5) for index in seeds}, Limits(first, last))
    assert sorted(each.index for each in found) == sorted(set(range(first, last + 1)) - seeds)


def test_it_stops_where_it_looks_different():
    volume = Volume([5] * 6)
    pixels = np.random.default_rng(0).normal(100, 5, (6, *SHAPE))
    pixels[4:] += 60
    steps = Propagation(
        volume,
        volume.encode,
        {1: disc(5)},
        Limits(0, 5),
        look=lambda index, mask: Look.of(pixels[index], mask),
    )
    found = list(steps.run())
    assert masks(found) == {0, 2, 3}
    assert found[2].why == "it looks different"


# --- interpolation


def test_between_two_discs_lies_one_of_the_size_between():
    found = interpolated({2: disc(4), 6: disc(10)}, (1, 1))
    assert sorted(found) == [3, 4, 5]
    areas = [int(found[index].sum()) for index in (3, 4, 5)]
    assert areas == sorted(areas)
    assert found[4].sum() == pytest.approx(disc(7).sum(), rel=0.1)


def test_nothing_is_put_beside_an_absent_slice():
    assert interpolated({2: disc(4), 6: disc(0) & False}, (1, 1)) == {}


# --- tools


def ball(shape=(11, 33, 33), radius=12.0):
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    return np.sqrt(((z - 5) * 3.0) ** 2 + ((y - 16) * 1.0) ** 2 + ((x - 16) * 0.5) ** 2) <= radius


def test_holes_are_filled():
    full = ball()
    holed = full.copy()
    holed[5, 16, 16] = False
    assert np.array_equal(fill_holes(holed, SPACING), full)
    ring = (disc(10) & ~disc(4))[None]
    assert np.array_equal(fill_holes(ring, SPACING)[0], disc(10))


def test_the_largest_component_stays():
    volume = ball(radius=6)
    expected = volume.copy()
    volume[0, 0:3, 0:3] = True
    assert np.array_equal(largest_component(volume, SPACING), expected)


def test_smoothing_takes_specks_and_keeps_the_volume():
    volume = ball()
    rough = volume.copy()
    rough[0, 0, 0] = True
    result = smooth(rough, SPACING)
    assert not result[0, 0, 0]
    assert result.sum() == pytest.approx(volume.sum(), rel=0.1)


@pytest.mark.parametrize("tool", [fill_holes, largest_component, smooth])
def test_nothing_stays_nothing(tool):
    empty = np.zeros((4, 8, 8), np.bool_)
    assert not tool(empty, SPACING).any()


# --- measures


def test_a_balls_volume_and_diameter():
    found = measure(ball().astype(np.uint8) * 3, 3, SPACING)
    assert found.voxels == ball().sum()
    assert found.millilitres == pytest.approx(found.voxels * 1.5 / 1000)
    assert found.diameter == pytest.approx(24, abs=2.5)


@pytest.mark.parametrize(
    ("voxels", "diameter"),
    [
        ([], 0),
        ([(1, 1, 1)], 0),
        ([(0, 1, 1), (2, 1, 1)], 6),
        ([(0, 0, 0), (0, 3, 8)], 5),
        ([(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 0, 0)], 15),
        ([(k, k, k) for k in range(6)], float(np.hypot(np.hypot(15, 5), 2.5))),
    ],
)
def test_diameters_of_little(voxels, diameter):
    volume = np.zeros((6, 10, 10), np.uint8)
    for voxel in voxels:
        volume[voxel] = 1
    assert measure(volume, 1, SPACING).diameter == pytest.approx(diameter)


@given(st.integers(0, 2**32 - 1))
def test_the_diameter_is_the_longest_distance_of_all(seed):
    volume = np.random.default_rng(seed).random((3, 5, 6)) > 0.8
    points = np.argwhere(volume) * SPACING
    longest = max((float(np.linalg.norm(a - b)) for a in points for b in points), default=0.0)
    assert measure(volume.astype(np.uint8), 1, SPACING).diameter == pytest.approx(longest)
