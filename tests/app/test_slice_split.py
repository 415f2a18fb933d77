"""The slice split: nothing that is measured lies near anything that is trained on."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.app.slice_split import SliceSplitError, split_slices
from napari_fedsam.errors import FedSamError


@st.composite
def stacks(draw) -> tuple[list[bool], float, int]:
    """Slices with enough of the structure, a few holes in it, its spacing, and some sites."""
    spacing, sites = draw(st.floats(0.3, 9.0)), draw(st.integers(1, 5))
    enough = 2 * (2 * math.ceil(10 / spacing) + sites + 10)
    shown = [True] * draw(st.integers(enough, 2 * enough))
    for hole in draw(st.sets(st.integers(0, len(shown) - 1), max_size=5)):
        shown[hole] = False
    below, above = ([False] * draw(st.integers(0, 20)) for _ in range(2))
    return below + shown + above, spacing, sites


@given(stacks())
def test_ten_millimetres_of_tissue_separate_the_slab_from_training(stack):
    foreground, spacing, sites = stack
    split = split_slices(foreground, spacing, sites=sites)
    for site in split.train:
        for trained, measured in itertools.product(site, split.held_out):
            faces_apart = (abs(trained - measured) - 1) * spacing
            assert faces_apart >= 10.0 - 1e-9


@given(stacks())
def test_sites_share_the_remaining_slices_evenly_and_without_overlap(stack):
    foreground, spacing, sites = stack
    split = split_slices(foreground, spacing, sites=sites)
    trained = list(itertools.chain.from_iterable(split.train))
    assert len(split.train) == sites
    assert len(set(trained)) == len(trained)
    assert max(map(len, split.train)) - min(map(len, split.train)) <= 1
    assert all(foreground[k] for k in [*trained, *split.held_out])
    assert all(list(site) == sorted(site) and site for site in split.train)


def test_the_slab_is_the_middle_fifth_and_training_takes_both_sides():
    split = split_slices([True] * 80, 2.0, sites=3)
    assert split.held_out == tuple(range(32, 48))
    assert sorted(itertools.chain.from_iterable(split.train)) == [*range(27), *range(53, 80)]
    assert split.train[0][:3] == (0, 3, 6)
    assert all(site[0] < 32 and site[-1] > 47 for site in split.train)


def test_nothing_between_the_ends_of_the_slab_is_trained_on():
    """A hole in the structure widens the slab instead of letting training into it."""
    foreground = [True] * 40 + [False] * 20 + [True] * 40
    split = split_slices(foreground, 2.0, sites=2)
    inside = range(split.held_out[0], split.held_out[-1] + 1)
    assert not set(inside) & set(itertools.chain.from_iterable(split.train))


@pytest.mark.parametrize("foreground", [[], [False] * 30, [True] * 8])
def test_too_few_slices_are_explained(foreground):
    with pytest.raises(SliceSplitError, match="too few slices") as caught:
        split_slices(foreground, 5.0, sites=3)
    assert isinstance(caught.value, FedSamError)


@pytest.mark.parametrize(
    ("spacing", "options"),
    [
        (0.0, {}),
        (1.0, {"sites": 0}),
        (1.0, {"gap_mm": -1.0}),
        (1.0, {"held_out_share": 1.0}),
    ],
)
def test_impossible_arguments_are_refused(spacing, options):
    with pytest.raises(ValueError, match="Cannot split"):
        split_slices([True] * 50, spacing, **options)
