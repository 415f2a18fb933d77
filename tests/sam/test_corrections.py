"""What is taken over of the answer to a corrective click."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from napari_fedsam.sam import Prompts
from napari_fedsam.sam.click_search import agreement
from napari_fedsam.sam.corrections import corrected

SHAPE = (60, 100)


def box(x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def click(x: int, y: int, *, positive: bool) -> Prompts:
    return Prompts(np.array([[x, y]], np.float32), np.array([positive]))


OBJECT = box(10, 20, 40, 40)


def test_a_positive_click_adds_its_own_region_and_loses_nothing() -> None:
    beside, elsewhere = box(40, 25, 50, 35), box(80, 5, 90, 15)
    answer = beside | elsewhere  # The object itself is gone from it.
    found = corrected(OBJECT, answer, click(44, 30, positive=True))
    assert np.array_equal(found, OBJECT | beside)


def test_a_negative_click_removes_its_own_region_and_adds_nothing() -> None:
    right, left = box(30, 20, 40, 40), box(10, 20, 15, 40)
    answer = (OBJECT & ~right & ~left) | box(60, 5, 70, 15)
    found = corrected(OBJECT, answer, click(34, 30, positive=False))
    assert np.array_equal(found, OBJECT & ~right)


@pytest.mark.parametrize("positive", [True, False])
def test_a_click_near_the_edge_does_not_reach_far(positive) -> None:
    everything = np.ones(SHAPE, np.bool_)
    answer = everything if positive else ~everything
    mask = OBJECT if positive else ~OBJECT
    found = corrected(mask, answer, click(44, 30, positive=positive))
    rows, columns = np.nonzero(found != mask)
    away = np.hypot(rows - 30, columns - 44)
    # Five pixels from the object's last column.
    assert 19 <= away.max() <= 20


def test_a_click_far_away_brings_the_whole_object() -> None:
    other = box(70, 10, 95, 50)
    found = corrected(OBJECT, other, click(82, 30, positive=True))
    assert np.array_equal(found, OBJECT | other)


@pytest.mark.parametrize("positive", [True, False])
def test_a_click_that_the_model_passes_over_is_obeyed(positive) -> None:
    mask = OBJECT if positive else ~OBJECT
    found = corrected(mask, mask, click(50, 30, positive=positive))
    changed = np.nonzero(found != mask)
    assert found[30, 50] == positive
    assert np.hypot(changed[0] - 30, changed[1] - 50).max() <= 11
    assert changed[1].min() == 40


def test_on_nothing_at_all_a_click_brings_the_whole_answer_or_a_dot() -> None:
    nothing = np.zeros(SHAPE, np.bool_)
    there = click(20, 30, positive=True)
    assert np.array_equal(corrected(nothing, OBJECT, there), OBJECT)
    assert corrected(nothing, nothing, there).sum() == 1


def test_clicks_that_were_right_before_change_nothing() -> None:
    answer = box(12, 20, 45, 40)
    found = corrected(OBJECT, answer, click(20, 30, positive=True))
    assert np.array_equal(found, OBJECT)


def test_a_click_that_was_right_stays_right() -> None:
    everything = np.ones(SHAPE, np.bool_)
    both = Prompts(np.array([[70, 30], [44, 30]], np.float32), np.array([True, False]))
    found = corrected(OBJECT, everything, both)
    assert found[30, 70]
    assert not found[30, 44]
    assert not found[30, 57]
    assert found[30, 58]


MASKS = arrays(np.bool_, (12, 17))
CLICKS = st.dictionaries(
    st.tuples(st.integers(0, 16), st.integers(0, 11)), st.booleans(), min_size=1, max_size=5
)


@settings(deadline=None)
@given(MASKS, MASKS, CLICKS)
def test_each_click_is_obeyed_and_changes_its_own_way_only(previous, answer, clicks) -> None:
    prompts = Prompts(np.array(list(clicks), np.float32), np.array(list(clicks.values())))
    found = corrected(previous, answer, prompts)
    assert agreement(found, prompts) == 1
    if prompts.labels.all():
        assert not (previous & ~found).any()
    if not prompts.labels.any():
        assert not (found & ~previous).any()
