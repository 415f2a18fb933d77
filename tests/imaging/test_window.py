from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import (
    CT_PRESETS,
    Window,
    apply_window,
    default_window,
    presets_for,
)


def scan_of(pixels: Any, modality: str = "", **options: Any) -> Scan:
    values = np.asarray(pixels)
    return Scan(values, Geometry.identity(values.shape[2::-1]), "s", Path("s"), modality, **options)


def test_presets_are_levels_and_widths_in_hounsfield_units() -> None:
    found = {name: (w.level, w.width) for name, w in CT_PRESETS.items()}
    assert found == {
        "soft tissue": (40, 400),
        "lung": (-600, 1500),
        "bone": (400, 1800),
        "brain": (40, 80),
    }


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_refuses_an_empty_or_endless_window(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="low < high"):
        Window(low, high)


def test_maps_linearly_and_clips() -> None:
    values = np.array([-500, -160, 40, 240, 3000], np.int16)
    assert apply_window(values, CT_PRESETS["soft tissue"]).tolist() == [0, 0, 128, 255, 255]


def test_values_that_are_not_numbers_become_black_and_infinite_ones_are_clipped() -> None:
    values = np.array([np.nan, -np.inf, np.inf, 5.0], np.float32)
    assert apply_window(values, Window(0, 10)).tolist() == [0, 0, 255, 128]


def test_eight_bit_pixels_keep_their_values_in_a_new_array() -> None:
    colour = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    colour.flags.writeable = False
    shown = apply_window(colour, Window(0, 255))
    assert np.array_equal(shown, colour)
    assert shown.flags.writeable


@given(
    st.lists(st.integers(-3000, 3000), min_size=2, max_size=20),
    st.floats(-1000, 1000),
    st.floats(1, 4000),
)
def test_windowing_keeps_the_order_and_the_range(
    values: list[int], level: float, width: float
) -> None:
    shown = apply_window(np.array(sorted(values), np.int16), Window.from_level(level, width))
    assert shown.dtype == np.uint8
    assert (np.diff(shown.astype(int)) >= 0).all()


def test_unsigned_values_do_not_wrap_around() -> None:
    assert apply_window(np.array([0, 65535], np.uint16), Window(100, 200)).tolist() == [0, 255]


def test_ct_opens_in_soft_tissue() -> None:
    assert default_window(scan_of(np.zeros((1, 2, 2), np.int16), "CT")) == Window(-160, 240)


def test_mr_opens_between_percentiles_of_its_non_zero_voxels() -> None:
    values = np.concatenate([np.zeros(5000), np.arange(1, 1002)]).astype(np.int16)
    window = default_window(scan_of(values[None, None], "MR"))
    assert (window.low, window.high) == (6.0, 996.0)


def test_other_modalities_open_from_smallest_to_largest() -> None:
    values = np.array([[[3, 9, 200]]], np.uint8)
    assert default_window(scan_of(values, "US")) == Window(3, 200)


def test_colour_is_shown_as_it_is() -> None:
    scan = scan_of(np.full((1, 2, 2, 3), 7, np.uint8), "ES")
    assert default_window(scan) == Window(0, 255)
    assert list(presets_for(scan).values()) == [Window(0, 255)]


def test_a_volume_of_unknown_modality_counts_as_ct_by_its_hounsfield_units() -> None:
    like_ct = np.linspace(-1024, 1500, 1000, dtype=np.float32).reshape(10, 10, 10)
    assert default_window(scan_of(like_ct)) == CT_PRESETS["soft tissue"]
    assert list(presets_for(scan_of(like_ct))) == list(CT_PRESETS)
    like_mr = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    assert default_window(scan_of(like_mr)).low > 0


def test_a_picture_of_unknown_modality_opens_in_its_full_range() -> None:
    picture = Scan(
        np.array([[[0, 5, 250]]], np.uint8),
        Geometry.identity((3, 1)),
        "p",
        Path("p.png"),
        spacing_known=False,
    )
    assert default_window(picture) == Window(0, 250)


@pytest.mark.parametrize("modality", ["MR", "US", ""])
@pytest.mark.parametrize("value", [0, 4, np.nan])
def test_constant_or_empty_scans_have_a_window_too(modality: str, value: float) -> None:
    window = default_window(scan_of(np.full((2, 2, 2), value, np.float32), modality))
    assert window.high > window.low


def test_values_that_are_not_numbers_do_not_spoil_the_window() -> None:
    values = np.array([[[np.nan, np.inf, -np.inf, 2.0, 8.0]]], np.float32)
    assert default_window(scan_of(values, "US")) == Window(2, 8)


def test_large_volumes_are_sampled_evenly_and_always_alike() -> None:
    # Columns carry the signal: a step that divides the row length would see one of them only.
    ramp = np.broadcast_to(np.arange(256, dtype=np.int16), (160, 256, 256))
    window = default_window(scan_of(ramp, "US"))
    assert window == Window(0, 255)
    assert default_window(scan_of(ramp, "US")) == window


def test_mr_presets_start_with_the_default() -> None:
    scan = scan_of(np.arange(1000, dtype=np.int16).reshape(10, 10, 10), "MR")
    presets = presets_for(scan)
    assert next(iter(presets.values())) == default_window(scan)
    assert presets["full range"] == Window(0, 999)
