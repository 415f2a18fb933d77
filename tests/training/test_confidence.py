"""Confidence intervals that resample patients, not images."""

import numpy as np
import pytest

from napari_fedsam.training.confidence import bootstrap_interval


def test_one_value_everywhere_leaves_no_doubt() -> None:
    assert bootstrap_interval([0.5] * 6, list("aabbcc")) == (0.5, 0.5)


def test_the_interval_holds_the_mean_and_narrows_with_more_groups() -> None:
    random = np.random.default_rng(0)
    values = random.normal(0.7, 0.1, 400)
    few = bootstrap_interval(values[:20], [str(i) for i in range(20)])
    many = bootstrap_interval(values, [str(i) for i in range(400)])
    assert few[0] < values[:20].mean() < few[1]
    assert many[1] - many[0] == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.15)
    assert many[1] - many[0] < few[1] - few[0]


def test_images_of_one_patient_count_as_one_piece_of_evidence() -> None:
    values = np.repeat(np.random.default_rng(0).normal(0, 1, 20), 30)
    patients = bootstrap_interval(values, np.repeat([str(i) for i in range(20)], 30).tolist())
    images = bootstrap_interval(values, [str(i) for i in range(len(values))])
    assert patients[1] - patients[0] > 3 * (images[1] - images[0])
