"""LiteMedSAM on real endoscopy images, as published: tight boxes, and lone clicks."""

from pathlib import Path

import numpy as np
import pytest

from napari_fedsam.sam import Predictor
from napari_fedsam.training.evaluation import Evaluation, evaluate
from napari_fedsam.training.manifest import load_row, read_manifest


@pytest.fixture(scope="module")
def measured(data_folder: Path, lite_medsam) -> Evaluation:
    rows = read_manifest(data_folder / "manifest.csv", "polyp", site="kvasir", split="test")
    chosen = [rows[int(i)] for i in np.linspace(0, len(rows) - 1, 8)]
    return evaluate(Predictor(lite_medsam), [load_row(row, 1) for row in chosen], ("box", "point"))


@pytest.mark.data
@pytest.mark.parametrize(("prompt", "least"), [("box", 0.90), ("point", 0.65)])
def test_mean_dice(measured: Evaluation, prompt, least: float) -> None:
    assert measured.count(prompt) == 8
    mean = measured.mean_dice(prompt)
    assert mean is not None
    assert mean >= least
