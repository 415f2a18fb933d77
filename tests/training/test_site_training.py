"""Training at one site alone: what is judged is what is used."""

import pytest

from napari_fedsam.cases.case import NewCase
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.training import site_training
from napari_fedsam.training.errors import TrainingError
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.judging import does_no_worse, judge
from napari_fedsam.training.profile_folder import FIRST, profile_folder
from napari_fedsam.training.samples import samples_from_store
from napari_fedsam.training.site_model import load_site_model
from napari_fedsam.training.site_training import train_at_site
from napari_fedsam.training.versions import VersionStore


@pytest.fixture
def site(tmp_path, make_recipe, make_sample):
    """Return a function that makes a site with two training cases and one held out."""
    recipe = make_recipe(method="lora_fedavg_ft")

    def make(held_out):
        store = CaseStore(tmp_path / "cases")
        parts = {"a": (20, 22), "b": (30, 20), "c": held_out}
        for name, centre in parts.items():
            sample = make_sample(name, centre)
            store.accept(
                NewCase(
                    image=sample.image,
                    mask=sample.mask,
                    structure=recipe.structures[0],
                    window=(0, 255),
                    scan_key=name,
                    patient_key=name,
                    annotator="",
                    split="val" if name == "c" else "train",
                )
            )
        return tmp_path, recipe

    return make


def test_the_model_that_is_judged_answers_as_it_will_in_use(site, monkeypatch) -> None:
    answers = []

    def watched(model, *others):
        answers.append(model.prompt_kinds)
        return judge(model, *others)

    monkeypatch.setattr(site_training, "judge", watched)
    folder, recipe = site((26, 24))
    result = train_at_site(folder, recipe)
    assert (result.cases, result.held_out, result.version) == (2, 1, 1)
    VersionStore(profile_folder(folder, FIRST) / "versions").activate(1)
    model, version = load_site_model(profile_folder(folder, FIRST), recipe)
    assert version is not None
    # Clicks are answered by a trained model itself, and only by way of boxes before.
    assert "point" in model.prompt_kinds
    assert answers[-1] == model.prompt_kinds
    held_out = samples_from_store(CaseStore(folder / "cases"), recipe, "val")
    judged = judge(model, held_out, FeatureCache())
    for kind, dice in result.after.items():
        assert judged.mean_dice(kind) == pytest.approx(dice, abs=1e-6)


def test_a_model_that_could_not_be_judged_is_kept_and_not_used(site) -> None:
    folder, recipe = site(None)
    result = train_at_site(folder, recipe)
    assert result.held_out == 1
    assert set(result.after.values()) == {None}
    assert not result.used
    assert VersionStore(profile_folder(folder, FIRST) / "versions").active() is None


def test_without_training_cases_nothing_is_trained(tmp_path, make_recipe) -> None:
    with pytest.raises(TrainingError, match="no training cases"):
        train_at_site(tmp_path, make_recipe())


@pytest.mark.parametrize(
    ("candidate", "present", "expected"),
    [
        (0.5, 0.5, True),
        (0.4, 0.5, False),
        (None, 0.5, False),
        (None, None, False),
        (0.0, None, True),
    ],
)
def test_what_does_no_worse_may_be_used(candidate, present, expected) -> None:
    assert does_no_worse(candidate, present) is expected
