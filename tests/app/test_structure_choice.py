"""Which structure a command takes, of those that the site's model tells apart."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from typer.testing import CliRunner

from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.app.cli import app
from napari_fedsam.app.evaluation_report import evaluate_rows, labels_in
from napari_fedsam.app.segmentation import segment_slice
from napari_fedsam.app.structure_choice import chosen_structure
from napari_fedsam.cases.case import Structure
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.readers import read_scan, read_segmentation
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.errors import PromptError
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.registry import load_model
from napari_fedsam.training.manifest import read_manifest

SPLEEN = Structure(value=2, name="Spleen", color="#56b4e9")
LIVER = Structure(value=5, name="liver", color="#e69f00")


@pytest.fixture(scope="module")
def base() -> Predictor:
    return Predictor(load_model())


@pytest.fixture(scope="module")
def one(site) -> Predictor:
    return ModelSource(site).load().predictor


@pytest.fixture(scope="module")
def two(site) -> Predictor:
    recipe = Recipe.read(site / "recipe.json")
    several = recipe.model_copy(update={"structures": (SPLEEN, LIVER)})
    return Predictor(build_personalised_model(several))


@pytest.fixture
def scan(tmp_path) -> Path:
    path = tmp_path / "scan.nrrd"
    pixels = np.random.default_rng(0).integers(0, 200, (3, 64, 72)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
    return path


def run(*arguments) -> object:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_only_structure_is_taken_when_none_is_given(one):
    assert chosen_structure(one, None) == SPLEEN


@pytest.mark.parametrize("wanted", [5, "5", "liver", " Liver "])
def test_a_structure_is_given_by_value_or_name(two, wanted):
    assert chosen_structure(two, wanted) == LIVER


@pytest.mark.parametrize("wanted", [1, "1", "kidney", None])
def test_what_a_model_does_not_have_is_refused_with_what_it_has(two, wanted):
    with pytest.raises(PromptError, match=r"choose 2 \(Spleen\) or 5 \(liver\)\.$"):
        chosen_structure(two, wanted)


def test_a_base_model_takes_any_value_and_no_name(base):
    assert chosen_structure(base, None).value == 1
    assert chosen_structure(base, "7").value == 7
    for wanted in ("spleen", "0", "256", "-1", "²"):
        with pytest.raises(PromptError, match="give a value from 1 to 255"):
            chosen_structure(base, wanted)


def test_a_script_segments_with_the_models_structure(one, scan):
    opened = read_scan(scan)
    mask = segment_slice(opened, one)
    assert set(np.unique(mask)) == {0, 2}
    assert np.array_equal(mask, segment_slice(opened, one, structure=2))
    with pytest.raises(PromptError, match="has no structure 1"):
        segment_slice(opened, one, structure=1)


@pytest.mark.parametrize("prompt", [("--no-prompt",), ("--box", "10,10,40,40")])
def test_segment_writes_the_models_structure(site, scan, tmp_path, prompt):
    output = tmp_path / "mask.seg.nrrd"
    result = run("segment", scan, *prompt, "--model", site, "-o", output)
    assert result.exit_code == 0, result.output
    found = read_segmentation(output, read_scan(scan))
    assert [(each.value, each.name) for each in found.structures] == [(2, "Spleen")]
    refused = run("segment", scan, *prompt, "--model", site, "-o", output, "--structure", "1")
    assert isinstance(refused.exception, FedSamError)
    assert "has no structure 1: choose 2 (Spleen)" in str(refused.exception)


@pytest.fixture
def manifest(tmp_path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 60, (64, 72)).astype(np.uint8)
    mask = np.zeros((64, 72), np.uint8)
    mask[20:40, 20:50] = 255
    Image.fromarray(np.where(mask, 200, pixels).astype(np.uint8)).save(tmp_path / "i.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    path = tmp_path / "manifest.csv"
    path.write_text("task,site,split,image,mask,group\norgan,one,test,i.png,m.png,g\n")
    return path


@pytest.mark.parametrize("given", [(), ("--structure", "2"), ("--structure", "spleen")])
def test_evaluate_measures_with_the_models_structure(site, one, manifest, tmp_path, given):
    out = tmp_path / "eval.json"
    words = ("evaluate", "--data", manifest, "--task", "organ", "--prompt", "none", "--out", out)
    result = run(*words, "--model", site, *given)
    assert result.exit_code == 0, result.output
    rows = read_manifest(manifest, "organ", split="test")
    dice = {
        value: evaluate_rows(one, rows, "none", structure=value)["mean_dice"] for value in (1, 2)
    }
    # Without a token nothing is known of where to look.
    assert dice[1] != dice[2]
    assert json.loads(out.read_text())["mean_dice"] == dice[2]


def test_evaluate_refuses_what_the_model_does_not_have(site, manifest, tmp_path):
    out = tmp_path / "eval.json"
    words = ("evaluate", "--data", manifest, "--task", "organ", "--prompt", "none", "--out", out)
    refused = run(*words, "--model", site, "--structure", "1")
    assert isinstance(refused.exception, FedSamError)
    assert "has no structure 1: choose 2 (Spleen)" in str(refused.exception)
    assert not out.exists()


def test_the_masks_values_are_found_by_the_structures_name():
    cup = Structure(value=1, name="Optic cup", color="#56b4e9")
    assert labels_in("optic_disc_cup", cup) == (2,)
    assert labels_in("optic_disc_cup", SPLEEN) == (2,)
    assert labels_in("optic_disc_cup", cup.model_copy(update={"name": "rim"})) == (1, 2)
    assert labels_in("polyp", LIVER) == ()
