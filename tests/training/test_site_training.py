"""Training at one site alone: what is judged is what is used."""

import dataclasses

import pytest

from napari_fedsam.cases.case import NewCase
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.training import new_version, site_training
from napari_fedsam.training.errors import TrainingError
from napari_fedsam.training.evaluation import JUDGED_PROMPTS, Evaluation, ImageResult
from napari_fedsam.training.feature_cache import CachedEncoder, FeatureCache
from napari_fedsam.training.judging import does_no_worse, judge
from napari_fedsam.training.local_update import local_update
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

    monkeypatch.setattr(new_version, "judge", watched)
    folder, recipe = site((26, 24))
    result = train_at_site(folder, recipe)
    assert (result.cases, result.held_out, result.version) == (2, 1, 1)
    VersionStore(profile_folder(folder, FIRST) / "versions").activate(1)
    model, _ = load_site_model(profile_folder(folder, FIRST))
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
    assert result.outcome == "unjudged"
    assert VersionStore(profile_folder(folder, FIRST) / "versions").active() is None


def test_without_training_cases_of_the_recipes_structures_nothing_is_trained(
    site, make_recipe
) -> None:
    with pytest.raises(TrainingError, match="no training cases of liver and kidney yet"):
        train_at_site(site((26, 24))[0], renamed(make_recipe(), "liver", "kidney"))


def renamed(recipe, *names):
    """The recipe with other names for its structures, and the values in turn."""
    structures = [
        each.model_copy(update={"name": name, "value": number})
        for number, (name, each) in enumerate(zip(names, recipe.structures, strict=True), start=1)
    ]
    return recipe.model_copy(update={"name": "Other", "structures": tuple(structures)})


def evaluation(dice):
    return Evaluation(tuple(ImageResult("x", "x", kind, dice, None) for kind in JUDGED_PROMPTS))


@pytest.fixture
def judged(site, monkeypatch):
    """Return a function that trains with given Dice before and after, and what was judged.

    `meanwhile` takes the place of the training itself.
    """

    def train(before, after, *, recipe=None, meanwhile=lambda: None, **options):
        folder, usual = site((26, 24))
        dice, seen = iter([before, after]), []

        def judge(model, held_out, *_):
            seen.append((model, held_out))
            return evaluation(next(dice))

        monkeypatch.setattr(new_version, "judge", judge)
        monkeypatch.setattr(site_training, "local_update", lambda *_, **__: meanwhile())
        return train_at_site(folder, recipe or usual, **options), seen

    return train


@pytest.fixture
def keep(tmp_path, personalise):
    """Return a function that keeps a version and uses it: of the site's recipe, or renamed."""

    def keep(*names):
        model = personalise(method="lora_fedavg_ft")
        recipe = renamed(model.recipe, *names) if names else model.recipe
        store = VersionStore(tmp_path / "versions")
        version = store.save(
            model.shared_state(), model.local_state(), round=0, recipe=recipe, dice={}
        )
        store.activate(version.number)
        return store, version

    return keep


@pytest.mark.parametrize(
    ("before", "after", "outcome", "words"),
    [(0.5, 0.5, "used", "is in use"), (0.9, 0.2, "worse", "did worse")],
)
def test_a_new_model_is_used_where_it_did_no_worse(
    judged, tmp_path, before, after, outcome, words
) -> None:
    result, _ = judged(before, after)
    assert result.outcome == outcome
    assert words in result.verdict
    active = VersionStore(tmp_path / "versions").active_number
    assert active == (1 if outcome == "used" else None)


def test_the_model_in_use_is_judged_though_the_recipe_is_another_one(
    judged, keep, tmp_path
) -> None:
    store, version = keep("Spleen", "POLYP")
    result, seen = judged(0.9, 0.2)
    (in_use, asked), (new, held_out) = seen
    assert in_use.recipe.hash == version.recipe_hash != new.recipe.hash
    # The structure is the polyp: 2 in the recipe of the model in use, 3 in that of the new one.
    assert [sample.structure for sample in asked] == [2]
    assert [sample.structure for sample in held_out] == [3]
    assert result.outcome == "worse"
    assert store.active() == version
    assert [each.recipe_hash for each in store.versions()] == [version.recipe_hash, new.recipe.hash]


def test_a_structure_that_the_model_in_use_does_not_know_has_no_token_there(judged, keep) -> None:
    keep("liver", "kidney")
    _, ((in_use, (sample,)), _) = judged(0.1, 0.2)
    assert in_use.structure_tokens(sample.structure, 1).shape[1] == 0


def test_what_came_into_use_while_another_was_trained_stays(judged, keep) -> None:
    store, first = keep()
    result, _ = judged(0.5, 0.6, meanwhile=keep)
    assert result.outcome == "overtaken"
    assert "another model has come into use meanwhile" in result.verdict
    assert store.active_number == first.number + 1
    assert store.versions()[-1].number == result.version
    assert store.versions()[-1].passed


def test_going_back_while_another_is_trained_is_not_undone(judged, keep) -> None:
    store, _ = keep()
    result, _ = judged(0.5, 0.6, meanwhile=store.go_back)
    assert result.outcome == "overtaken"
    assert store.active_number is None


def test_the_person_may_want_to_be_asked(judged, tmp_path) -> None:
    result, _ = judged(0.5, 0.6, ask_first=True)
    assert result.outcome == "asking"
    assert "waits for your yes" in result.verdict
    store = VersionStore(tmp_path / "versions")
    assert store.active() is None
    assert store.versions()[0].passed


@pytest.mark.parametrize("which", ["in use", "newest"])
def test_a_damaged_version_does_not_stop_training(judged, keep, tmp_path, which) -> None:
    store, _ = keep()
    _, newest = keep()
    if which == "newest":
        store.go_back()
    (tmp_path / "versions" / f"{newest.number:04}" / "shared.safetensors").write_bytes(b"")
    result, seen = judged(0.5, 0.6)
    assert result.outcome == "used"
    assert store.active_number == result.version
    assert hasattr(seen[0][0], "recipe") == (which == "newest")


def test_the_bar_covers_all_of_the_work(site, monkeypatch) -> None:
    """Each step and each judged case is one part, and time is left until the last of them."""
    folder, recipe = site((26, 24))
    more = recipe.model_copy(
        update={"method": "pfedsam", "training": recipe.training.model_copy(update={"epochs": 4})}
    )
    steps = []
    monkeypatch.setattr(
        site_training,
        "local_update",
        lambda *given, **options: steps.append(local_update(*given, **options).steps),
    )
    seen = []
    train_at_site(folder, more, progress=seen.append)
    assert len(steps) == 2
    assert min(steps) >= 1
    parts = sum(steps) + 2
    assert [each.fraction for each in seen] == pytest.approx(
        [number / parts for number in range(1, parts + 1)]
    )
    assert all(each.seconds_left > 0 for each in seen[:-1])


def test_an_image_of_several_structures_is_encoded_once(base, make_sample, monkeypatch) -> None:
    encoded = []
    encode = CachedEncoder.encode

    def counted(self, image):
        encoded.append(image)
        return encode(self, image)

    monkeypatch.setattr(CachedEncoder, "encode", counted)
    one, other = make_sample("a", (20, 22)), make_sample("b", (40, 26))
    same = dataclasses.replace(other, id="c", image=one.image.copy())
    result = judge(base, [one, other, same], FeatureCache())
    assert len(encoded) == 2
    assert len(result.images) == 3 * len(JUDGED_PROMPTS)
    assert result.images[3:6] == judge(base, [other], FeatureCache()).images


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
