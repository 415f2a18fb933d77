"""The base models' own preprocessing, and the way back to the image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.sam import PromptError
from napari_fedsam.sam.preprocessing import (
    SAM_PIXEL_MEAN,
    SAM_PIXEL_STD,
    PixelPreprocessing,
    logits_to_image,
    mask_to_input,
    resized_shape,
)

LITE = PixelPreprocessing(256)
SAM = PixelPreprocessing(1024, SAM_PIXEL_MEAN, SAM_PIXEL_STD)
sides = st.integers(1, 3000)


@given(sides, sides, st.sampled_from([256, 1024]))
def test_the_long_side_fills_the_input_and_the_ratio_stays(
    height: int, width: int, size: int
) -> None:
    resized = resized_shape((height, width), size)
    assert max(resized) == size
    assert min(resized) >= 1
    short = min(height, width) * size / max(height, width)
    assert abs(min(resized) - short) <= 0.5 or short < 0.5
    assert (resized[0] >= resized[1]) == (height >= width) or resized[0] == resized[1]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((512, 384), (256, 192)),
        ((100, 300), (85, 256)),
        ((2, 4000), (1, 256)),
        ((7, 7), (256, 256)),
    ],
)
def test_resized_shapes(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_shape(shape, 256) == expected


@pytest.mark.parametrize("shape", [(300, 400), (60, 31), (31, 60, 3), (256, 256, 3)])
def test_lite_medsam_sees_minimum_to_maximum_padded_at_right_and_bottom(
    shape: tuple[int, ...],
) -> None:
    image = np.random.default_rng(0).integers(40, 200, shape).astype(np.uint8)
    pixels = LITE(image)
    height, width = resized_shape(shape[:2], 256)  # type: ignore[arg-type]
    assert pixels.shape == (1, 3, 256, 256)
    assert pixels.dtype == torch.float32
    seen = pixels[0, :, :height, :width]
    assert (seen.min(), seen.max()) == (0, 1)
    assert not pixels[..., height:, :].any()
    assert not pixels[..., :, width:].any()
    assert (seen.mean(dim=(0, 1)) > 0).all()


def test_lite_medsam_averages_areas_when_it_shrinks() -> None:
    image = np.random.default_rng(1).integers(0, 256, (512, 512)).astype(np.uint8)
    blocks = image.reshape(256, 2, 256, 2).mean(axis=(1, 3))
    expected = (blocks - blocks.min()) / (blocks.max() - blocks.min())
    np.testing.assert_allclose(LITE(image)[0, 0].numpy(), expected, atol=1e-6)


def test_a_grey_image_becomes_three_equal_channels() -> None:
    pixels = LITE(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert torch.equal(pixels[0, 0], pixels[0, 1])
    assert torch.equal(pixels[0, 0], pixels[0, 2])


def test_an_even_image_gives_zeros_and_no_nan() -> None:
    assert not LITE(np.full((20, 30), 77, np.uint8)).any()


def test_sam_normalises_by_its_mean_and_deviation_before_padding() -> None:
    image = np.empty((50, 100, 3), np.uint8)
    image[:] = (10, 100, 250)
    pixels = SAM(image)
    assert pixels.shape == (1, 3, 1024, 1024)
    for channel, value in enumerate((10, 100, 250)):
        expected = (value - SAM_PIXEL_MEAN[channel]) / SAM_PIXEL_STD[channel]
        seen = pixels[0, channel, :512]
        torch.testing.assert_close(seen, torch.full_like(seen, expected))
    assert not pixels[:, :, 512:].any()


@pytest.mark.parametrize("shape", [(5,), (5, 5, 4), (5, 5, 1), (2, 5, 5, 3), (0, 5), (5, 0, 3)])
def test_what_is_no_slice_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PromptError, match="cannot be segmented"):
        LITE(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "shape", [(300, 400), (40, 31), (31, 97), (1, 50), (700, 3), (256, 256), (1024, 257)]
)
@pytest.mark.parametrize(("low", "size"), [(64, 256), (256, 256), (256, 1024)])
def test_logits_come_back_at_the_image_without_the_padding(
    shape: tuple[int, int], low: int, size: int
) -> None:
    height, width = resized_shape(shape, size)
    logits = torch.full((2, 1, low, low), -9.0)
    share = low / size
    logits[..., : int(np.ceil(height * share)), : int(np.ceil(width * share))] = 5.0
    full = logits_to_image(logits, shape, size)
    assert full.shape == (2, 1, *shape)
    assert full.dtype == torch.float32
    # Only the last pixels beside the padding may be touched by the interpolation.
    assert full[..., : max(1, shape[0] - 10), : max(1, shape[1] - 10)].min() > 0


@given(st.integers(20, 400), st.integers(20, 400), st.data())
def test_a_mask_survives_the_way_to_the_input_and_back(
    height: int, width: int, data: st.DataObject
) -> None:
    x0 = data.draw(st.integers(0, width // 2))
    y0 = data.draw(st.integers(0, height // 2))
    mask = np.zeros((height, width), np.bool_)
    mask[y0 : y0 + height // 2, x0 : x0 + width // 2] = True
    there = mask_to_input(mask, 256)
    assert there.shape == (1, 256, 256)
    back = logits_to_image(there[None] - 0.5, (height, width), 256)[0, 0].numpy() > 0
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.9
