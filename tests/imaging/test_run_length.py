"""Run-length codes: exact for any mask, checked against codes written by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_fedsam.imaging.run_length import decode_runs, encode_runs, runs_from_text

MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))


def as_text(counts: list[int]) -> str:
    """COCO's compressed text, written from its definition."""
    text = ""
    for place, count in enumerate(counts):
        number = count - (counts[place - 2] if place > 2 else 0)
        while True:
            group, number = number & 31, number >> 5
            is_last = number == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if is_last else 32))
            if is_last:
                break
    return text


@given(MASKS)
def test_any_mask_comes_back(mask: np.ndarray) -> None:
    counts = encode_runs(mask)
    assert np.array_equal(decode_runs(counts, mask.shape), mask)


@given(MASKS)
def test_the_code_is_the_shortest_one(mask: np.ndarray) -> None:
    counts = encode_runs(mask)
    assert sum(counts) == mask.size
    assert all(counts[1:])
    assert sum(counts[1::2]) == mask.sum()
    expected = [len(list(run)) for _, run in itertools.groupby(mask.T.ravel().tolist())]
    assert counts == ([0, *expected] if mask[0, 0] else expected)


@given(MASKS)
def test_the_code_of_the_opposite_differs_by_the_leading_zero(mask: np.ndarray) -> None:
    counts, opposite = encode_runs(mask), encode_runs(~mask)
    assert counts == opposite[1:] if opposite[0] == 0 else counts[1:] == opposite


@given(st.lists(st.integers(0, 2**40)))
def test_compressed_text_is_read(counts: list[int]) -> None:
    assert runs_from_text(as_text(counts)) == counts


def test_columns_come_first_and_background_begins() -> None:
    assert encode_runs(np.array([[0, 1], [0, 1], [1, 0]], np.bool_)) == [2, 3, 1]
    assert encode_runs(np.array([[1, 0]], np.bool_)) == [0, 1, 1]
    assert encode_runs(np.zeros((2, 3), np.bool_)) == [6]
    assert runs_from_text("231") == [2, 3, 1]


def test_runs_of_no_length_are_read() -> None:
    assert decode_runs([1, 1, 0, 1, 1], (2, 2)).ravel(order="F").tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    "counts", [[], [3], [2, 3], [-1, 5], [4.0], [True, 3], ["4"], [2**62, 2**62], [None]]
)
def test_codes_that_do_not_fit_are_refused(counts: list) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        decode_runs(counts, (2, 2))


@pytest.mark.parametrize("text", ["2 1", "P", "2é", "\x01"])
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        runs_from_text(text)
