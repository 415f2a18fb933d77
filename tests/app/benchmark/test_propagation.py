"""The simulated person who segments a volume from one prompted slice."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from napari_fedsam.app.cli import app
from napari_fedsam.errors import FedSamError


@pytest.fixture
def volume(tmp_path):
    """A rod through all five slices, of which the structure is the part on three."""
    rows, columns = np.mgrid[:64, :64]
    rod = np.hypot(rows - 30, columns - 34) < 12
    rng = np.random.default_rng(0)
    pixels = np.where(rod, 200, 60)[None] + rng.normal(0, 5, (5, 64, 64))
    truth = np.zeros((5, 64, 64), np.uint8)
    truth[1:4, rod] = 1
    paths = tmp_path / "scan.nrrd", tmp_path / "mask.nrrd"
    for path, values in zip(paths, (pixels.astype(np.int16), truth), strict=True):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((1.0, 1.0, 3.0))
        sitk.WriteImage(image, str(path))
    return paths


def run(*words):
    return CliRunner().invoke(app, ["benchmark", "propagation", *map(str, words)])


def test_it_prompts_where_most_is_wrong_until_the_target_is_reached(volume, tmp_path):
    scan, mask = volume
    report = tmp_path / "report.json"
    words = "--json", report, "--level", "130,260", "--target", "0.92"
    result = run("--scan", scan, "--mask", mask, *words)
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    kinds = [(step["kind"], step["slice"]) for step in found["steps"]]
    assert kinds[0] == ("box", 2)
    # The rod goes on beyond the structure, which the person has to say at both ends.
    assert {("absent", 1), ("absent", 5)} <= set(kinds)
    dice = [step["dice"] for step in found["steps"]]
    assert dice[0] < 0.8
    assert dice[-1] >= 0.92
    assert found["reached"]
    assert f"{len(kinds)} prompts" in result.output


def test_a_report_that_cannot_be_written_is_told_before_the_work(volume, tmp_path):
    scan, mask = volume
    result = run("--scan", scan, "--mask", mask, "--json", tmp_path)
    assert isinstance(result.exception, FedSamError)
    assert "is a folder" in str(result.exception)
    assert "prompts" not in result.output


def test_what_is_not_reached_is_said(volume):
    scan, mask = volume
    result = run("--scan", scan, "--mask", mask, "--prompts", 1)
    assert "Dice 0.95: not within 1 prompts" in result.output


def test_a_mask_without_the_structure_is_refused(volume, tmp_path):
    scan, _ = volume
    image = sitk.ReadImage(str(scan))
    empty = tmp_path / "empty.nrrd"
    sitk.WriteImage(image * 0, str(empty))
    assert isinstance(run("--scan", scan, "--mask", empty).exception, FedSamError)
    assert run("--scan", scan, "--mask", empty, "--level", "wide").exit_code == 2
