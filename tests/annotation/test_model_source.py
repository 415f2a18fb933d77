"""Base and personalised models, with the real network and real files."""

import threading

import numpy as np
import pytest

from napari_fedsam.annotation.local_training import LocalTraining
from napari_fedsam.annotation.model_source import SITE_MODEL, ModelSource, model_name
from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import MethodOptions, Recipe, TrainingOptions
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.training.profile_folder import set_active
from napari_fedsam.training.versions import VersionStore

SMALL = MethodOptions(blocks=1, lora_rank=2, experts=2, expert_width=4, top_k=1)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        name="spleen",
        structures=(Structure(value=3, name="spleen", color="#112233"),),
        options=SMALL,
    )


@pytest.fixture
def site(tmp_path, recipe):
    (tmp_path / "federation").mkdir()
    recipe.write(tmp_path / "federation" / "recipe.json")
    return tmp_path


def keep_version(site, recipe, number, *, activate=True, passed=False):
    model = build_personalised_model(recipe)
    store = VersionStore(site / "versions")
    version = store.save(
        model.shared_state(),
        model.local_state(),
        round=number,
        recipe=recipe,
        dice={"none": 0.5},
        passed=passed,
    )
    if activate:
        store.activate(version.number)
    return version


def test_a_site_without_a_federation_uses_the_default_base_model(tmp_path):
    source = ModelSource(tmp_path)
    assert source.active_version is None
    assert source.recipe() is None
    assert source.structures() == ()
    assert source.load().label == "LiteMedSAM: base model"
    assert not (tmp_path / "versions").exists()


def test_a_site_uses_its_active_version(site, recipe):
    source = ModelSource(site)
    assert [structure.name for structure in source.structures()] == ["spleen"]
    assert not source.load().is_personalised
    version = keep_version(site, recipe, 4)
    assert source.active_version == version.number
    model = source.load(SITE_MODEL)
    assert model.label == "LiteMedSAM: personalised, round 4, this site"
    assert model.structures == recipe.structures
    assert model.can_propose


def test_going_back_ends_at_the_base_model(site, recipe):
    source = ModelSource(site)
    first, second = keep_version(site, recipe, 1), keep_version(site, recipe, 2)
    assert source.active_version == second.number
    source.go_back()
    assert source.active_version == first.number
    source.go_back()
    assert source.active_version is None
    source.go_back()
    assert not source.load().is_personalised


def test_a_version_that_was_not_taken_up_waits_for_the_person(site, recipe):
    source = ModelSource(site)
    assert source.unused_version is None
    first = keep_version(site, recipe, 1, activate=False)
    assert source.unused_version == first
    source.use_newest()
    assert source.active_version == first.number
    assert source.unused_version is None
    second = keep_version(site, recipe, 2, activate=False)
    assert source.unused_version == second
    source.use_newest()
    assert source.active_version == second.number


def other_structures(site):
    """Let the site work under another recipe, as after its first invitation."""
    liver = Structure(value=3, name="liver", color="#112233")
    other = Recipe(name="other", structures=(liver,), options=SMALL)
    other.write(site / "federation" / "recipe.json")
    return other


def test_a_version_stays_in_use_when_the_recipe_becomes_another_one(site, recipe):
    version = keep_version(site, recipe, 1)
    other = other_structures(site)
    source = ModelSource(site)
    model = source.load()
    assert (model.version, model.recipe_hash) == (version.number, recipe.hash)
    assert model.structure_for(recipe.structures[0]) == 3
    assert model.structure_for(other.structures[0]) is None
    assert source.structures() == other.structures
    assert source.load_global(model) is not None
    newer = keep_version(site, other, 1)
    assert source.load().version == newer.number
    source.go_back()
    assert source.load().version == version.number


def test_only_versions_of_the_present_recipe_are_offered(site, recipe):
    keep_version(site, recipe, 0, activate=False, passed=True)
    other = other_structures(site)
    source = ModelSource(site)
    assert source.unused_version is None
    source.use_newest()
    assert source.active_version is None
    wanted = keep_version(site, other, 1, activate=False)
    assert source.unused_version == wanted


def test_one_goes_back_from_a_version_that_cannot_be_read(site, recipe):
    source = ModelSource(site)
    first, second = keep_version(site, recipe, 1), keep_version(site, recipe, 2)
    keep_version(site, recipe, 3, activate=False)
    (site / "versions" / f"{second.number:04}" / "version.json").write_bytes(b"")
    assert source.active_version == second.number
    assert source.unused_version.round == 3
    source.go_back()
    assert source.active_version == first.number


def test_an_unknown_model_is_told(tmp_path):
    with pytest.raises(FedSamError, match="no model named 'nonsense'"):
        ModelSource(tmp_path).load("nonsense")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory with folders that are called like models."""
    folder = tmp_path / "elsewhere"
    for name in ("lite_medsam", "medsam", SITE_MODEL):
        (folder / name).mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_a_folder_that_is_called_like_a_model_does_not_take_its_place(
    tmp_path, elsewhere, monkeypatch
):
    monkeypatch.delenv("NAPARI_FEDSAM_MODELS", raising=False)
    source = ModelSource(tmp_path)
    with pytest.raises(FedSamError, match="put medsam_vit_b.pth into the folder"):
        source.load("medsam")
    model = source.load("lite_medsam")
    image = np.zeros((40, 50), np.uint8)
    model.encode(image)
    assert list((tmp_path / "encoded").iterdir())
    assert not any(list(folder.iterdir()) for folder in elsewhere.iterdir())


def test_what_another_sites_model_encodes_stays_at_this_site(site, recipe, elsewhere):
    keep_version(site, recipe, 4)
    here = elsewhere / SITE_MODEL
    model = ModelSource(here).load(str(site))
    assert model.label == "LiteMedSAM: personalised, round 4, this site"
    model.encode(np.zeros((40, 50), np.uint8))
    assert list((here / "encoded").iterdir())
    assert not (site / "encoded").exists()


def test_names_for_people():
    assert model_name("lite_medsam") == "LiteMedSAM"
    assert model_name("/somewhere/mine.pth") == "mine"


def test_the_global_model_is_the_active_version_without_what_is_the_sites_own(site, recipe):
    built = build_personalised_model(recipe)
    local = {name: value + 0.5 for name, value in built.local_state().items()}
    store = VersionStore(site / "versions")
    kept = store.save(built.shared_state(), local, round=1, recipe=recipe, dice={"none": 0.5})
    store.activate(kept.number)
    source = ModelSource(site)
    model = source.load()
    found = source.load_global(model)
    image = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    # At step 0 the shared part alone answers as the untouched model.
    expected = Predictor(built.stay_global()).encode(image).features
    for _ in range(2):
        # The second time from the store, where the two must not be confused.
        own, theirs = model.encode(image).features, found.encode(image).features
        assert theirs == pytest.approx(expected, abs=0.02)
        assert not np.allclose(own, theirs, atol=0.02)
    assert found.structures == model.structures


def test_there_is_no_global_model_beside_a_base_model_or_an_older_version(site, recipe):
    source = ModelSource(site)
    assert source.load_global(source.load()) is None
    keep_version(site, recipe, 1)
    model = source.load()
    keep_version(site, recipe, 2)
    assert source.load_global(model) is None


def test_each_federation_has_its_own_model(site, recipe):
    keep_version(site, recipe, 4)
    other = site / "profiles" / "liver-12345678"
    (other / "federation").mkdir(parents=True)
    recipe.write(other / "federation" / "recipe.json")
    first, second = ModelSource(site), ModelSource(site, other.name)
    assert second.active_version is None
    keep_version(other, recipe, 4)
    model, namesake = first.load(), second.load()
    # The same recipe, round and version, and yet another model.
    assert model.provenance == "LiteMedSAM round 4 version 1"
    assert namesake.provenance == "LiteMedSAM round 4 version 1 of liver-12345678"
    assert first.load_global(namesake) is None
    assert second.load_global(namesake) is not None
    set_active(site, other.name)
    assert ModelSource(site).profile == other.name


def test_what_is_trained_needs_cases(tmp_path):
    with pytest.raises(FedSamError, match="no training cases yet"):
        ModelSource(tmp_path).recipe_for_training(())


def test_training_here_belongs_to_the_federation_in_use(site, recipe, scene):
    """In a child process, as the window does it."""
    other = site / "profiles" / "liver-12345678"
    (other / "federation").mkdir(parents=True)
    quick = recipe.model_copy(update={"training": TrainingOptions(epochs=1, augmentations=0)})
    quick.write(other / "federation" / "recipe.json")
    CaseStore(site / "cases").accept(
        NewCase(
            image=scene.image,
            mask=scene.ellipse,
            structure=recipe.structures[0],
            window=(0, 255),
            scan_key="scan",
            split="train",
        )
    )
    training, ended = LocalTraining(), threading.Event()
    training.changed.connect(lambda state: state.status in ("done", "failed") and ended.set())
    training.start(ModelSource(site, other.name), ())
    assert ended.wait(300)
    assert training.state.status == "done", training.state.reason
    (version,) = VersionStore(other / "versions").versions()
    assert version.recipe_hash == quick.hash
    assert not (site / "versions").exists()
