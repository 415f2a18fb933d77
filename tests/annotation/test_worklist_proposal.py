"""What a model's proposals say of a scan, one slice a step."""

import numpy as np
import pytest
import SimpleITK as sitk

from napari_fedsam.annotation.structures import FIRST_STRUCTURE
from napari_fedsam.annotation.worklist_proposal import SLICES, propose_scan
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.sam.prediction import Prediction


@pytest.fixture
def path(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 900, (30, 20, 24)).astype(np.int16)
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((1.0, 1.0, 4.0))
    sitk.WriteImage(image, str(tmp_path / "scan.nii"))
    return tmp_path / "scan.nii"


def run(path, model, global_model=None, between=lambda: None):
    steps = propose_scan(path, FIRST_STRUCTURE, model, global_model, between)
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return count, end.value
        count += 1


def answering(model, monkeypatch, mask, score=0.9):
    def predict(embedding, _prompts, **_options):
        shown = np.zeros(embedding.image_shape, bool)
        shown[mask] = True
        return Prediction(shown, score, np.where(shown, 1, -1).astype(np.float32))

    monkeypatch.setattr(model.predictor, "predict", predict)


def test_some_slices_are_looked_at_the_middle_one_among_them(path, site_model):
    waited = []
    count, proposal = run(path, site_model, between=lambda: waited.append(1))
    assert count == SLICES == len(site_model.predictor.encoded)
    assert len(waited) > SLICES
    assert proposal.model == site_model.provenance
    assert proposal.confidence == pytest.approx(0.9)
    assert proposal.disagreement is None
    # The predictor was asked for the structure that the model knows, and nothing else.
    assert {structure for _, structure, _ in site_model.predictor.asked} == {1}


def test_the_global_models_proposals_are_compared(path, site_model, model, monkeypatch):
    answering(site_model, monkeypatch, (slice(0, 10), slice(0, 10)))
    answering(model, monkeypatch, (slice(0, 10), slice(5, 15)))
    assert run(path, site_model, model)[1].disagreement == pytest.approx(0.5)
    answering(model, monkeypatch, (slice(0, 10), slice(0, 10)))
    assert run(path, site_model, model)[1].disagreement == 0


def test_where_nothing_is_proposed_there_is_no_confidence(path, site_model, model, monkeypatch):
    answering(site_model, monkeypatch, (slice(0, 0), slice(0, 0)), score=0.99)
    answering(model, monkeypatch, (slice(0, 0), slice(0, 0)))
    proposal = run(path, site_model, model)[1]
    assert proposal.confidence == 0
    assert proposal.disagreement == 0


def test_a_damaged_scan_is_told(tmp_path, site_model):
    (tmp_path / "bad.nii").write_bytes(b"nothing")
    with pytest.raises(ImagingError, match=r"bad\.nii"):
        run(tmp_path / "bad.nii", site_model)
