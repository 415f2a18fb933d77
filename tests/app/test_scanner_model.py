"""The simulated scanners: each effect alone, and the presets together."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.app.scanner_model import (
    BRIGHTEST,
    SCANNERS,
    Scanner,
    add_rician_noise,
    bias_field,
    simulate_scanner,
)
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan

PLAIN = Scanner("simulated scanner without effects")
SPACING = (1.0, 1.0, 4.0)


def scan_of(pixels: np.ndarray, spacing=SPACING) -> Scan:
    depth, height, width = pixels.shape[:3]
    geometry = Geometry(
        size=(width, height, depth),
        spacing=spacing,
        origin=(-30.0, 12.5, 7.0),
        direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0),
    )
    return Scan(pixels=pixels, geometry=geometry, name="phantom", source=Path("phantom.nii"))


@pytest.fixture
def phantom() -> Scan:
    """A bright box with fine vertical stripes of two tissues in empty air."""
    pixels = np.zeros((6, 48, 40), np.int16)
    pixels[:, 8:40, 8:32] = 100
    pixels[:, 8:40, 9:32:2] = 200
    return scan_of(pixels)


def test_without_effects_only_the_range_changes(phantom):
    result = simulate_scanner(phantom, PLAIN, seed=0)
    assert result.pixels.dtype == np.uint16
    np.testing.assert_array_equal(
        result.pixels, np.round(phantom.pixels / 200 * BRIGHTEST).astype(np.uint16)
    )


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda scanner: scanner.name)
def test_presets_keep_the_geometry_and_say_that_they_are_simulated(phantom, scanner):
    result = simulate_scanner(phantom, scanner, seed=3)
    assert result.geometry == phantom.geometry
    assert result.shape == phantom.shape
    assert scanner.name.startswith("simulated scanner")
    assert result.name == f"phantom, {scanner.name}"


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda scanner: scanner.name)
def test_the_seed_decides_every_pixel(phantom, scanner):
    first, again, other = (
        simulate_scanner(phantom, scanner, seed=seed).pixels for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.3


def test_presets_differ_from_each_other(phantom):
    one, two, three = (simulate_scanner(phantom, s, seed=0).pixels.astype(float) for s in SCANNERS)
    for a, b in ((one, two), (one, three), (two, three)):
        assert np.abs(a - b).mean() > 0.02 * BRIGHTEST


def test_contrast_knots_and_gamma_move_the_tissues(phantom):
    scanner = dataclasses.replace(PLAIN, contrast=((0, 0), (0.5, 0.25), (1, 1)), gamma=0.5)
    pixels = simulate_scanner(phantom, scanner, seed=0).pixels
    assert set(np.unique(pixels)) == {0, round(0.25**0.5 * BRIGHTEST), BRIGHTEST}


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(2, 9), st.integers(2, 9)),
    peak=st.floats(0.0, 2.0),
    seed=st.integers(0, 2**32),
)
def test_the_bias_field_reaches_its_peak_and_no_further(shape, peak, seed):
    logarithm = np.log(bias_field(shape, peak, np.random.default_rng(seed)))
    assert np.abs(logarithm).max() == pytest.approx(np.log1p(peak), abs=1e-9)


def test_the_bias_field_is_smooth():
    field = bias_field((20, 60, 60), 0.5, np.random.default_rng(1))
    for axis in range(3):
        assert np.abs(np.diff(field, axis=axis)).max() < 0.25 * np.ptp(field)


def test_noise_is_rayleigh_in_air_and_gaussian_on_tissue():
    random = np.random.default_rng(0)
    air = add_rician_noise(np.zeros(200_000), 0.05, random)
    tissue = add_rician_noise(np.ones(200_000), 0.05, random)
    assert air.min() >= 0
    assert air.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.01)
    assert air.std() == pytest.approx(0.05 * np.sqrt(2 - np.pi / 2), rel=0.01)
    assert tissue.mean() == pytest.approx(np.sqrt(1 + 0.05**2), rel=0.001)
    assert tissue.std() == pytest.approx(0.05, rel=0.01)


def test_coarse_resolution_blurs_in_plane_and_never_across_slices(phantom):
    pixels = phantom.pixels.copy()
    pixels[3:] = 0
    scanner = dataclasses.replace(PLAIN, in_plane_spacing=3.0)
    result = simulate_scanner(scan_of(pixels), scanner, seed=0).pixels.astype(float)
    stripes = result[1, 20, 12:28]
    assert np.ptp(stripes) < 0.1 * BRIGHTEST
    assert stripes.mean() == pytest.approx(0.75 * BRIGHTEST, rel=0.05)
    assert not result[3:].any()


def test_the_coarsest_axis_is_the_one_that_is_left_alone():
    """In a coronal acquisition the slices follow y: x and z get coarser, y does not."""
    pixels = np.zeros((30, 8, 30), np.float32)
    pixels[10:20, 4:, 10:20] = 1
    scan = scan_of(pixels, spacing=(1.0, 5.0, 1.0))
    assert scan.slice_axis == 1
    result = simulate_scanner(scan, dataclasses.replace(PLAIN, in_plane_spacing=3.0), seed=0).pixels
    assert not result[:, :4].any()
    assert result[8, 4, 15] > 0
    assert result[15, 4, 8] > 0


def test_resolution_finer_than_the_scan_changes_nothing(phantom):
    fine = simulate_scanner(phantom, dataclasses.replace(PLAIN, in_plane_spacing=0.5), seed=0)
    np.testing.assert_array_equal(fine.pixels, simulate_scanner(phantom, PLAIN, seed=0).pixels)


def test_resampling_does_not_move_the_anatomy():
    pixels = np.zeros((4, 61, 61), np.float32)
    pixels[:, 20:41, 20:41] = 1
    scanner = dataclasses.replace(PLAIN, in_plane_spacing=2.7)
    plane = simulate_scanner(scan_of(pixels), scanner, seed=0).pixels[2].astype(float)
    rows, columns = np.mgrid[:61, :61]
    assert np.average(rows, weights=plane) == pytest.approx(30, abs=0.1)
    assert np.average(columns, weights=plane) == pytest.approx(30, abs=0.1)


def test_an_empty_scan_stays_finite():
    empty = scan_of(np.zeros((3, 8, 8), np.uint8))
    assert simulate_scanner(empty, SCANNERS[1], seed=0).pixels.max() < 0.5 * BRIGHTEST


def test_colour_is_refused():
    with pytest.raises(ValueError, match="in colour"):
        simulate_scanner(scan_of(np.zeros((1, 8, 8, 3), np.uint8)), PLAIN, seed=0)


@pytest.mark.parametrize(
    "options",
    [
        {"contrast": ((0.0, 0.0), (0.5, 1.0))},
        {"contrast": ((0.0, 0.0), (0.6, 0.1), (0.6, 0.2), (1.0, 1.0))},
        {"gamma": 0.0},
        {"bias": -0.1},
        {"noise": -0.1},
        {"in_plane_spacing": -1.0},
    ],
)
def test_impossible_scanners_are_refused(options):
    with pytest.raises(ValueError, match="simulated scanner X"):
        Scanner("simulated scanner X", **options)
