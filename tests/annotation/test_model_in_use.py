import pytest

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.cases.case import Structure
from napari_fedsam.sam import Predictor, load_model
from napari_fedsam.sam.embedding_store import EmbeddingStore

SPLEEN = Structure(value=2, name="Spleen", color="#ff0000")


def test_labels_say_what_the_model_is(predictor):
    base = ModelInUse(predictor, "Disc")
    assert base.label == "Disc: base model"
    assert base.provenance == "Disc"
    third = ModelInUse(predictor, "Disc", round=3, version=5, structures=(SPLEEN,))
    assert third.label == "Disc: personalised, round 3, this site"
    assert third.provenance == "Disc round 3 version 5"
    alone = ModelInUse(predictor, "Disc", round=0, version=1)
    assert "personalised, trained at this site" in alone.label


def test_structures_are_known_by_their_name(predictor):
    model = ModelInUse(predictor, "Disc", round=1, version=1, structures=(SPLEEN,))
    assert model.structure_for(SPLEEN) == 2
    assert model.structure_for(Structure(value=7, name="spleen", color="#112233")) == 2
    assert model.structure_for(Structure(value=2, name="liver", color="#112233")) is None


@pytest.mark.parametrize("stored", [False, True])
def test_encoding_can_wait_with_and_without_a_store(tmp_path, scene, stored):
    base = Predictor(load_model(), bf16=False)
    model = ModelInUse(base, "LiteMedSAM", store=EmbeddingStore(tmp_path) if stored else None)
    calls = []
    model.encode(scene.image, lambda: calls.append(1))
    assert len(calls) == len(base.model.encoder_stages())
