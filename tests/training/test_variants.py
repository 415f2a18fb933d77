"""Augmented variants: always the same ones, image and mask alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.variants import variant


@pytest.fixture(scope="module")
def sample() -> TrainingSample:
    mask = np.zeros((9, 14), np.bool_)
    mask[1:4, 2:9], mask[6, 10] = True, True
    image = np.where(mask, 200, 50).astype(np.uint8)
    return TrainingSample("case", "group", image, mask, 3)


def test_variant_zero_is_the_sample(sample) -> None:
    assert variant(sample, 0, seed=4) is sample


@given(index=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_image_and_mask_stay_aligned(sample, index: int, seed: int) -> None:
    changed = variant(sample, index, seed=seed)
    assert np.array_equal(changed.image > changed.image.mean(), changed.mask)
    assert changed.mask.sum() == sample.mask.sum()
    assert (changed.id, changed.group, changed.structure) == ("case", "group", 3)
    assert changed.image.dtype == np.uint8
    assert changed.image.shape == sample.image.shape


@given(index=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_variant(sample, index: int, seed: int) -> None:
    one, two = (variant(sample, index, seed=seed) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.mask, two.mask)


def test_seed_index_and_image_each_make_another_variant(sample) -> None:
    image = sample.image.copy()
    image[0, 0] += 1
    other = TrainingSample("case", "group", image, sample.mask, 3)
    images = [
        variant(sample, 1, seed=0).image,
        variant(sample, 2, seed=0).image,
        variant(sample, 1, seed=1).image,
        variant(other, 1, seed=0).image,
    ]
    assert len({image.tobytes() for image in images}) == 4


def test_the_variants_name_and_structure_do_not_matter(sample) -> None:
    other = TrainingSample("other", "groups", sample.image, ~sample.mask, 7)
    for index in range(1, 8):
        one, two = variant(sample, index, seed=0), variant(other, index, seed=0)
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.mask, ~two.mask)


def test_variants_are_mirrored_and_flipped_and_brightened_both_ways(sample) -> None:
    made = [variant(sample, index, seed=0) for index in range(1, 60)]
    masks = {v.mask.tobytes() for v in made}
    assert masks == {
        np.ascontiguousarray(m).tobytes()
        for m in (
            sample.mask,
            sample.mask[:, ::-1],
            sample.mask[::-1],
            sample.mask[::-1, ::-1],
        )
    }
    levels = [int(v.image.min()) for v in made]
    assert min(levels) < 45
    assert max(levels) > 60


def test_the_sample_itself_is_left_alone(sample) -> None:
    image, mask = sample.image.copy(), sample.mask.copy()
    made = variant(sample, 3, seed=0)
    made.image[:], made.mask[:] = 0, False
    assert np.array_equal(sample.image, image)
    assert np.array_equal(sample.mask, mask)


def test_colour_images_keep_their_channels(sample) -> None:
    image = np.stack([sample.image, sample.image // 2, 255 - sample.image], axis=-1)
    colour = TrainingSample("case", "group", image, sample.mask, 3)
    made = variant(colour, 1, seed=0)
    assert made.image.shape == (9, 14, 3)
    assert np.array_equal(made.image[..., 0] > 100, made.mask)
