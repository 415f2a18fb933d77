"""Simulated clicks lie where a mask is wrong."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_fedsam.training.click_simulation import Click, next_click, random_clicks

SHAPE = (7, 9)
masks = hnp.arrays(np.bool_, SHAPE)


def grid(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


@given(masks, masks)
def test_the_next_click_corrects_something(mask: np.ndarray, truth: np.ndarray) -> None:
    click = next_click(mask, truth)
    if np.array_equal(mask, truth):
        assert click is None
        return
    assert click is not None
    assert mask[click.y, click.x] != truth[click.y, click.x]
    assert click.positive == truth[click.y, click.x]


@given(masks)
def test_nothing_wrong_needs_no_click(mask: np.ndarray) -> None:
    assert next_click(mask, mask) is None


@given(masks, masks)
def test_a_click_is_as_deep_as_any_wrong_pixel(mask: np.ndarray, truth: np.ndarray) -> None:
    click = next_click(mask, truth)
    assume(click is not None)
    assert click is not None

    def depth(region: np.ndarray, y: int, x: int) -> float:
        rows, columns = np.nonzero(~np.pad(region, 1))
        return float(np.hypot(rows - y - 1, columns - x - 1).min())

    mine = depth(truth & ~mask if click.positive else mask & ~truth, click.y, click.x)
    for region in (truth & ~mask, mask & ~truth):
        for y, x in np.argwhere(region):
            assert depth(region, y, x) <= mine + 1e-9


def test_the_largest_error_comes_first() -> None:
    truth = grid(".......", ".###...", ".###...", ".###...", ".......")
    assert next_click(np.zeros_like(truth), truth) == Click(2, 2, True)
    assert next_click(truth, np.zeros_like(truth)) == Click(2, 2, False)
    both = grid("######.", ".....#.", ".....#.", ".....#.", ".......")
    missed = next_click(both, truth)
    assert missed is not None
    assert missed.positive


@given(masks, masks)
def test_a_careful_user_never_clicks_twice_on_one_pixel(
    mask: np.ndarray, truth: np.ndarray
) -> None:
    clicked: list[Click] = []
    while (click := next_click(mask, truth, clicked)) is not None:
        clicked.append(click)
    places = {(click.y, click.x) for click in clicked}
    assert len(places) == len(clicked) == np.count_nonzero(mask != truth)


@given(masks, masks, st.integers(1, 6), st.integers(0, 2**32))
def test_clicks_of_training_lie_in_the_error(mask, truth, count: int, seed: int) -> None:
    assume(truth.any())
    clicks = random_clicks(mask, truth, count, np.random.default_rng(seed))
    assert len(clicks) == count
    wrong = mask != truth
    for click in clicks:
        assert click.positive == truth[click.y, click.x]
        assert wrong[click.y, click.x] if wrong.any() else truth[click.y, click.x]
    assert clicks == random_clicks(mask, truth, count, np.random.default_rng(seed))


def test_clicks_of_training_reach_all_of_the_error() -> None:
    truth, mask = grid("##..", "##.."), grid("..#.", "..#.")
    clicks = random_clicks(mask, truth, 400, np.random.default_rng(0))
    counts = dict.fromkeys(zip(*np.nonzero(truth | mask), strict=True), 0)
    for click in clicks:
        counts[(click.y, click.x)] += 1
    assert len(counts) == 6
    assert min(counts.values()) > 400 / 6 / 2
    assert sum(click.positive for click in clicks) == pytest.approx(400 * 4 / 6, rel=0.2)
