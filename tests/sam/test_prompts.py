"""What may be given as a prompt, and where the simulated prompts come from."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from napari_fedsam.sam import PromptError, Prompts
from napari_fedsam.sam.prompts import box_of_mask, deepest_point

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))


@pytest.mark.parametrize(
    ("given_parts", "sentence"),
    [
        ({"points": [[1, 2]], "labels": []}, "1 points came with 0 labels"),
        ({"points": [[1, 2], [3, 4]], "labels": [True]}, "2 points came with 1 labels"),
        ({"points": [[np.nan, 2]], "labels": [True]}, "not a number"),
        ({"points": [[np.inf, 2]], "labels": [False]}, "not a number"),
        ({"points": [[1, 2, 3]], "labels": [True]}, "shape \\(1, 3\\)"),
        ({"points": [[1, 2, 3], [4, 5, 6]], "labels": [True] * 3}, "shape \\(2, 3\\)"),
        ({"points": [1, 2], "labels": [True]}, "shape \\(2,\\)"),
        ({"box": (5, 0, 4, 9)}, "inside out"),
        ({"box": (0, 5, 9, 4)}, "inside out"),
        ({"box": (0, 0, np.nan, 4)}, "inside out"),
        ({"box": (0, 0, np.inf, 4)}, "inside out"),
        ({"box": (0, 0, 4)}, "not four numbers"),
    ],
)
def test_bad_prompts_are_refused(given_parts: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PromptError, match=sentence):
        Prompts(**given_parts)


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(np.array([[20, 3]]), np.array([True])),
        Prompts(np.array([[3, 10]]), np.array([False])),
        Prompts(np.array([[-0.6, 3]]), np.array([True])),
        Prompts(box=(20, 0, 25, 5)),
        Prompts(box=(-5, 0, -1, 5)),
        Prompts(mask=np.ones((20, 10), np.bool_)),
    ],
)
def test_prompts_outside_the_slice_are_refused(prompts: Prompts) -> None:
    with pytest.raises(PromptError, match="slice"):
        prompts.check_within((10, 20))


def test_prompts_at_the_very_edge_are_taken() -> None:
    points = np.array([[-0.5, -0.5], [19.5, 9.5]])
    Prompts(points, np.array([True, False]), (-3, -3, 19, 9)).check_within((10, 20))


def test_clicks_are_told_apart() -> None:
    prompts = Prompts(np.array([[1, 2], [3, 4], [5, 6]]), np.array([True, False, True]))
    assert prompts.positives.tolist() == [[1, 2], [5, 6]]
    assert prompts.negatives.tolist() == [[3, 4]]
    assert prompts.points.dtype == np.float32


def test_only_a_prompt_without_any_help_is_empty() -> None:
    assert Prompts.none().is_empty
    assert not Prompts(box=(0, 0, 1, 1)).is_empty
    assert not Prompts(np.array([[1, 1]]), np.array([False])).is_empty
    assert not Prompts(mask=np.zeros((2, 2), np.bool_)).is_empty


@given(masks)
def test_the_box_is_tight(mask: np.ndarray) -> None:
    box = box_of_mask(mask)
    if not mask.any():
        assert box is None
        return
    assert box is not None
    x0, y0, x1, y1 = map(int, box)
    assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()
    for edge in (mask[y0], mask[y1], mask[:, x0], mask[:, x1]):
        assert edge.any()


@given(masks)
def test_the_deepest_point_is_the_middle_of_the_largest_component(mask: np.ndarray) -> None:
    point = deepest_point(mask)
    if not mask.any():
        assert point is None
        return
    assert point is not None
    x, y = map(int, point)
    components, _ = ndimage.label(mask)
    sizes = np.bincount(components[components > 0])
    assert components[y, x] > 0
    assert sizes[components[y, x]] == sizes.max()
    # The nearest background pixel by brute force, the outside of the image included.
    padded = np.pad(components == components[y, x], 1)
    background = np.argwhere(~padded)
    inside = np.argwhere(padded)
    depths = [((background - pixel) ** 2).sum(axis=1).min() for pixel in inside]
    assert ((background - (y + 1, x + 1)) ** 2).sum(axis=1).min() == max(depths)


@given(st.integers(0, 3), st.integers(0, 3))
def test_deepest_point_ties_go_to_the_first_pixel(rows: int, columns: int) -> None:
    mask = np.zeros((10, 10), np.bool_)
    mask[2 : 4 + rows, 3 : 5 + columns] = True
    depth = ndimage.distance_transform_edt(mask)
    y, x = np.argwhere(depth == depth.max())[0]
    assert deepest_point(mask) == (x, y)
