from napari_fedsam.annotation.model_in_use import ModelInUse


def test_labels_say_what_the_model_is(predictor):
    base = ModelInUse(predictor, "Disc")
    assert base.label == "Disc: base model"
    assert base.provenance == "Disc"
    third = ModelInUse(predictor, "Disc", round=3, version=5, structures=frozenset({1}))
    assert third.label == "Disc: personalised, round 3, this site"
    assert third.provenance == "Disc round 3 version 5"
    alone = ModelInUse(predictor, "Disc", round=0, version=1)
    assert "trained here alone" in alone.label


def test_only_known_structures_are_predicted_as_such(predictor):
    model = ModelInUse(predictor, "Disc", round=1, version=1, structures=frozenset({2}))
    assert model.structure_for(2) == 2
    assert model.structure_for(3) is None
