"""Boxes from clicks, and which of their masks is taken."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_fedsam.sam import Prompts
from napari_fedsam.sam.click_search import (
    HALF_WIDTHS,
    agreement,
    candidate_boxes,
    clicked_components,
    is_too_coarse,
    most_consistent,
    most_supported,
    self_consistency,
    steadiness,
)

SHAPE = (60, 90)


def point(
    x: st.SearchStrategy[float] = st.floats(0, 89, width=32),
    y: st.SearchStrategy[float] = st.floats(0, 59, width=32),
) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(x, y)


@st.composite
def click_prompts(draw: st.DrawFn) -> Prompts:
    positives = draw(st.lists(point(), min_size=1, max_size=3))
    negatives = draw(st.lists(point(), max_size=3))
    labels = [True] * len(positives) + [False] * len(negatives)
    box = draw(st.none() | st.just((20.0, 10.0, 50.0, 40.0)))
    return Prompts(np.array([*positives, *negatives]), np.array(labels), box)


@given(click_prompts(), st.booleans())
def test_every_box_lies_in_the_image_and_holds_all_positive_clicks(
    prompts: Prompts, corrects: bool
) -> None:
    previous = np.zeros(SHAPE, np.bool_)
    previous[30:40, 60:80] = True
    boxes = candidate_boxes(prompts, SHAPE, previous if corrects else None)
    assert len(set(boxes)) == len(boxes)
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 <= x1 <= 89
        assert 0 <= y0 <= y1 <= 59
        assert (prompts.positives >= (x0, y0)).all()
        assert (prompts.positives <= (x1, y1)).all()


@given(point(), point())
def test_a_negative_click_off_the_positive_one_is_cut_off(
    positive: tuple[float, float], negative: tuple[float, float]
) -> None:
    if positive == negative:
        return
    prompts = Prompts(np.array([positive, negative]), np.array([True, False]))
    x, y = prompts.negatives[0]

    def holds(box: tuple[float, float, float, float]) -> bool:
        return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])

    plain = candidate_boxes(Prompts(prompts.positives, np.array([True])), SHAPE)
    boxes = candidate_boxes(prompts, SHAPE)
    assert set(plain) <= set(boxes)
    if any(holds(box) for box in plain):
        cuts = set(boxes) - set(plain)
        assert cuts
        assert not any(holds(cut) for cut in cuts)


def test_a_lone_click_tries_boxes_of_all_sizes() -> None:
    boxes = candidate_boxes(Prompts(np.array([[500, 500]]), np.array([True])), (1000, 1000))
    widths = [x1 - x0 for x0, _, x1, _ in boxes]
    assert widths == pytest.approx([2 * share * 1000 for share in HALF_WIDTHS])


def test_the_mask_so_far_is_grown_to_a_new_click() -> None:
    previous = np.zeros(SHAPE, np.bool_)
    previous[20:31, 30:41] = True
    prompts = Prompts(np.array([[60, 25]]), np.array([True]))
    assert (30, 20, 60, 30) in candidate_boxes(prompts, SHAPE, previous)
    assert (30, 20, 60, 30) not in candidate_boxes(prompts, SHAPE)


def test_a_given_box_is_tried() -> None:
    prompts = Prompts(np.array([[25, 25]]), np.array([True]), (11, 12, 43, 44))
    assert (11, 12, 43, 44) in candidate_boxes(prompts, SHAPE)


def test_agreement_counts_the_clicks_on_their_side() -> None:
    mask = np.zeros((10, 10), np.bool_)
    mask[:, :5] = True
    points = np.array([[2, 2], [7, 7], [3, 8], [8, 1]])
    assert agreement(mask, Prompts(points, np.array([True, False, True, False]))) == 1.0
    assert agreement(mask, Prompts(points, np.array([True, True, False, False]))) == 0.5
    assert agreement(mask, Prompts(points, np.array([False, True, False, True]))) == 0.0
    assert agreement(mask, Prompts.none()) == 1.0


def test_agreement_comes_before_the_score() -> None:
    right = np.zeros((10, 10), np.bool_)
    right[2, 2] = True
    wrong = ~right
    prompts = Prompts(np.array([[2, 2]]), np.array([True]))

    def same(masks: list[NDArray[np.bool_]]) -> Callable[[list[int]], list[NDArray[np.bool_]]]:
        return lambda indices: [masks[index] for index in indices]

    three, two = [wrong, right, right], [wrong, wrong]
    assert most_consistent(three, [0.99, 0.3, 0.4], prompts, same(three)) == 2
    assert most_consistent(two, [0.2, 0.1], prompts, same(two)) == 0


@given(st.integers(1, 12), st.integers(0, 10**6))
def test_asking_only_those_that_can_win_finds_the_same_as_asking_all(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    masks = [random.random((6, 6)) < random.random() for _ in range(count)]
    again = [mask ^ (random.random((6, 6)) < 0.2) for mask in masks]
    scores = random.uniform(-0.1, 1, count).tolist()
    prompts = Prompts(np.array([[2, 2], [4, 1]]), np.array([True, False]))
    asked: list[int] = []

    def repeat(indices: list[int]) -> list[NDArray[np.bool_]]:
        asked.extend(indices)
        return [again[index] for index in indices]

    best = most_consistent(masks, scores, prompts, repeat)
    expected = [
        (agreement(mask, prompts), max(score, 0) * steady * self_consistency(mask, repeated))
        for mask, repeated, score, steady in zip(
            masks, again, scores, steadiness(masks), strict=True
        )
    ]
    assert expected[best] == pytest.approx(max(expected))
    assert len(asked) == len(set(asked))


def test_candidates_that_cannot_win_are_not_asked() -> None:
    mask = np.ones((4, 4), np.bool_)
    asked: list[int] = []

    def repeat(indices: list[int]) -> list[NDArray[np.bool_]]:
        asked.extend(indices)
        return [mask for _ in indices]

    scores = [0.1, 0.2, 0.9, 0.3, 0.4, 0.5, 0.6]
    assert most_consistent([mask] * 7, scores, Prompts.none(), repeat) == 2
    assert asked == [2, 6]


def filled(left: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((10, 40), np.bool_)
    mask[:, left:right] = True
    return mask


CLICK = Prompts(np.array([[5, 5]]), np.array([True]))


def test_an_answer_that_another_way_supports_beats_a_higher_rank() -> None:
    cup, nearly_it, disc = filled(0, 10), filled(0, 11), filled(0, 40)
    assert most_supported([nearly_it, cup, disc], [0.7, 0.8, 0.95], CLICK) == 1


def test_only_answers_that_agree_with_the_clicks_count_and_support() -> None:
    # The first two are alike, but the second does not hold the click.
    beside, elsewhere, there = filled(5, 40), filled(6, 40), filled(0, 8)
    assert most_supported([beside, elsewhere, there], [0.8, 0.9, 0.85], CLICK) == 2
    assert most_supported([elsewhere, there], [0.9, 0.1], CLICK) == 1


def test_of_two_answers_alike_or_quite_unlike_the_rank_decides() -> None:
    assert most_supported([filled(0, 10), filled(0, 30)], [0.9, 0.8], CLICK) == 0
    assert most_supported([filled(0, 5), filled(20, 30)], [0.8, 0.9], Prompts.none()) == 1
    assert most_supported([filled(0, 5)], [0.0], CLICK) == 0


def square(side: int) -> NDArray[np.bool_]:
    mask = np.zeros((20, 20), np.bool_)
    mask[:side, :side] = True
    return mask


@pytest.mark.parametrize(
    ("masks", "scores", "expected"),
    [
        ([square(5), square(4)], [0.9, 0.8], True),
        ([square(9), square(8)], [0.9, 0.8], False),
        ([square(2), square(9), square(8)], [0.5, 0.9, 0.8], False),
        ([~square(9), ~square(8)], [0.9, 0.8], True),
    ],
    ids=["specks", "large", "the best is large", "none holds the click"],
)
def test_what_is_too_small_or_missed_is_compared_on_a_finer_grid(
    masks: list[NDArray[np.bool_]], scores: list[float], expected: bool
) -> None:
    assert is_too_coarse(masks, scores, Prompts(np.array([[1, 1]]), np.array([True]))) is expected


def test_self_consistency() -> None:
    a = np.zeros((4, 4), np.bool_)
    b = a.copy()
    a[:2], b[1:3] = True, True
    assert self_consistency(a, a) == 1.0
    assert self_consistency(a, b) == pytest.approx(0.5**0.5)
    assert self_consistency(a, ~a) == 0.0
    assert self_consistency(np.zeros_like(a), np.zeros_like(a)) == 0.0


def test_only_clicked_components_stay() -> None:
    mask = np.zeros((10, 30), np.bool_)
    mask[2:5, 2:5], mask[2:5, 10:15], mask[2:5, 20:22] = True, True, True
    kept = clicked_components(
        mask, Prompts(np.array([[3, 3], [21, 3], [12, 3]]), np.array([True, True, False]))
    )
    assert kept[3, 3]
    assert kept[3, 21]
    assert not kept[3, 12]
    assert kept.sum() == 9 + 6
    nowhere = Prompts(np.array([[28, 9]]), np.array([True]))
    assert np.array_equal(clicked_components(mask, nowhere), mask)
