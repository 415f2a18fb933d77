"""Outlines against hand-made cases, in pixels and in millimetres."""

import numpy as np
import pytest

from napari_fedsam.training.surface_metrics import TOLERANCE, surface_metrics


def box(top: int, left: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((40, 50), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_the_same_outline_is_perfect() -> None:
    found = surface_metrics(box(5, 5), box(5, 5))
    assert (found.hd95, found.surface_dice) == (0, 1)


@pytest.mark.parametrize(("shift", "spacing", "distance"), [(6, None, 6), (3, (0.5, 4.0), 12)])
def test_the_distance_of_a_shifted_outline(shift, spacing, distance) -> None:
    found = surface_metrics(box(5, 5 + shift), box(5, 5), spacing)
    assert found.hd95 == pytest.approx(distance)
    assert 0 < found.surface_dice < 1


def test_outlines_within_the_tolerance_agree() -> None:
    assert surface_metrics(box(5, 5), box(5, 5 + int(TOLERANCE))).surface_dice == 1


def test_no_prediction_is_as_far_off_as_the_image_is_large() -> None:
    found = surface_metrics(np.zeros((30, 40), bool), box(5, 5)[:30, :40], (2.0, 2.0))
    assert (found.hd95, found.surface_dice) == (100, 0)


def test_an_empty_truth_has_no_outline() -> None:
    assert surface_metrics(box(5, 5), np.zeros((40, 50), bool)) is None
