"""Model versions on disk, and the one in use."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization import MethodOptions, Recipe
from napari_fedsam.training.errors import VersionError
from napari_fedsam.training.kept_models import KeptModels
from napari_fedsam.training.site_model import load_site_model, model_in_training
from napari_fedsam.training.versions import Version, VersionStore

SHARED = {"layer.lora_a": torch.arange(6.0).reshape(2, 3)}
SMALL = MethodOptions(decoder="frozen")
LOCAL = {"layer.experts.up": torch.ones(4)}
RECIPE = Recipe(name="One", structures=(Structure(value=1, name="spleen", color="#ff0000"),))
OTHER = RECIPE.model_copy(update={"name": "Other"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "versions"


@pytest.fixture
def store(folder: Path) -> VersionStore:
    return VersionStore(folder)


def save(store: VersionStore, *, round: int = 1, recipe: Recipe = RECIPE, **parts) -> Version:  # noqa: A002
    states = {"shared": SHARED, "local": LOCAL} | parts
    return store.save(**states, round=round, recipe=recipe, dice={"none": 0.5, "point": None})


def test_a_new_site_has_no_versions(store: VersionStore) -> None:
    assert store.versions() == []
    assert store.active() is None


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_versions_are_private(store: VersionStore, folder: Path) -> None:
    save(store)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "0001").stat().st_mode & 0o077 == 0


def test_a_version_is_kept_but_not_used_before_it_is_activated(store, folder) -> None:
    before = datetime.now(UTC)
    version = save(store, round=3)
    assert (version.number, version.round, version.recipe_hash) == (1, 3, RECIPE.hash)
    assert version.dice == {"none": 0.5, "point": None}
    assert before <= version.created <= datetime.now(UTC)
    assert store.versions() == [version]
    assert store.active() is None
    assert {path.name for path in (folder / "0001").iterdir()} == {
        "shared.safetensors",
        "local.safetensors",
        "recipe.json",
        "version.json",
    }
    assert store.recipe_of(version) == RECIPE
    store.activate(1)
    assert store.active() == version


def test_labels_are_words(store) -> None:
    assert save(store, round=3).label == "round 3, this site"
    assert save(store, round=0).label == "trained at this site"


def test_versions_are_counted_and_ordered_by_number(store, folder) -> None:
    save(store)
    (folder / "0001").rename(folder / "9999")
    assert save(store).number == 10000
    assert [path.name for path in sorted(folder.glob("[0-9]*"))] == ["10000", "9999"]
    assert [version.number for version in store.versions()] == [1, 10000]


def test_one_goes_back_along_what_was_in_use_and_ends_at_the_base(store) -> None:
    first = save(store, round=1)
    store.activate(first.number)
    rejected = save(store, round=2)
    third = save(store, round=3)
    store.activate(third.number)
    store.go_back()
    assert store.active() == first
    store.go_back()
    assert store.active() is None
    store.go_back()
    assert store.active() is None
    assert store.versions() == [first, rejected, third]


def test_a_version_that_is_used_again_is_left_once(store) -> None:
    for _ in range(2):
        store.activate(save(store).number)
    store.activate(1)
    store.go_back()
    assert store.active_number == 2
    store.go_back()
    assert store.active_number is None


@pytest.mark.parametrize("name", ["version.json", "recipe.json", "shared.safetensors"])
def test_going_back_leads_out_of_and_past_what_is_damaged(store, folder, name) -> None:
    for _ in range(3):
        store.activate(save(store).number)
    (folder / "0003/version.json").write_bytes(b"")
    (folder / "0002" / name).write_bytes(b"")
    assert store.active_number == 3
    store.go_back()
    assert store.active_number == 1


def test_a_version_takes_the_place_of_what_it_was_judged_against_alone(store) -> None:
    for _ in range(3):
        save(store)
    assert store.replace_active(1, instead_of=None)
    assert store.active_number == 1
    # Another process has used 2 by the time that 3 is judged.
    store.activate(2)
    assert not store.replace_active(3, instead_of=1)
    assert store.active_number == 2
    store.go_back()
    store.go_back()
    assert not store.replace_active(3, instead_of=1)
    assert store.active_number is None


def test_of_two_that_were_judged_against_the_same_one_is_used(store, folder) -> None:
    for _ in range(2):
        save(store)
    start = threading.Barrier(2)

    def take(number: int) -> bool:
        own = VersionStore(folder)
        start.wait()
        return own.replace_active(number, instead_of=None)

    with ThreadPoolExecutor(2) as pool:
        used = list(pool.map(take, (1, 2)))
    assert sorted(used) == [False, True]
    assert store.active_number == 1 + used.index(True)


def test_an_unknown_version_cannot_be_activated(store) -> None:
    version = save(store)
    store.activate(version.number)
    with pytest.raises(VersionError, match="no readable model version"):
        store.activate(7)
    assert store.active() == version


def test_another_instance_sees_new_versions_at_once(store, folder) -> None:
    reader = VersionStore(folder)
    version = save(store)
    assert reader.versions() == [version]
    store.activate(version.number)
    assert reader.active() == version
    assert save(reader).number == 2
    assert len(store.versions()) == 2
    store.go_back()
    assert reader.active() is None


def test_what_a_killed_process_left_is_not_a_version(store, folder) -> None:
    version = save(store)
    half = folder / ".new.killed"
    half.mkdir()
    (half / "shared.safetensors").write_bytes((folder / "0001/shared.safetensors").read_bytes())
    (half / "version.json").write_bytes((folder / "0001/version.json").read_bytes())
    (folder / ".active.killed").write_text("0009")
    store.activate(1)
    assert store.versions() == [version]
    assert store.active() == version
    assert save(store).number == 2
    assert not half.exists()


def test_old_versions_give_way_but_those_that_are_needed_stay(store) -> None:
    before, active = save(store), save(store)
    store.activate(before.number)
    store.activate(active.number)
    save(store)
    newest_of_other = save(store, recipe=OTHER)
    for _ in range(22):
        newest = save(store)
    assert newest.number == 26
    kept = [version.number for version in store.versions()]
    assert kept == [before.number, active.number, newest_of_other.number, *range(7, 27)]
    assert store.active() == active
    store.go_back()
    assert store.active() == before


def test_a_failure_in_between_leaves_no_version(store, folder, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(VersionError, match="No space left.*present one stays in use"):
            save(store)
    assert store.versions() == []
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []
    assert save(store).number == 1


@pytest.mark.parametrize("limit", [0, 100, 400])
def test_a_full_disk_is_told_and_nothing_is_left(store, folder, files_limited_to, limit) -> None:
    version = save(store)
    store.activate(1)
    big = {"layer.lora_a": torch.zeros(1000)}
    with files_limited_to(limit), pytest.raises(VersionError, match="could not be kept"):
        save(store, shared=big)
    assert store.versions() == [version]
    assert store.active() == version
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["0001"]


def test_other_folders_are_no_versions(store, folder) -> None:
    version = save(store)
    (folder / "0001 copy").mkdir()
    (folder / "0001 copy/version.json").write_bytes((folder / "0001/version.json").read_bytes())
    (folder / "notes").mkdir()
    assert store.versions() == [version]
    assert save(store).number == 2


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe"])
def test_an_unreadable_record_is_left_out_and_told_when_it_is_in_use(
    store, folder, content: bytes
) -> None:
    save(store)
    second = save(store)
    store.activate(1)
    (folder / "0001/version.json").write_bytes(content)
    assert store.versions() == [second]
    with pytest.raises(VersionError, match="no readable model version.*choose another"):
        store.active()
    assert store.active_number == 1


def test_a_version_without_its_recipe_is_unreadable(store, folder) -> None:
    save(store)
    (folder / "0001/recipe.json").unlink()
    assert store.versions() == []
    with pytest.raises(VersionError, match="no readable model version"):
        store.activate(1)


@pytest.mark.parametrize("content", ["{", OTHER.model_dump_json()])
def test_a_recipe_that_is_not_the_versions_is_told(store, folder, content: str) -> None:
    version = save(store)
    (folder / "0001/recipe.json").write_text(content)
    with pytest.raises(VersionError, match="version 1 is damaged"):
        store.recipe_of(version)


def same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(after[name], value) for name, value in before.items())


@pytest.fixture(scope="module")
def model(personalise):
    # Without the decoder the files are small.
    return personalise(options=SMALL)


@pytest.fixture
def kept(store, model):
    """A version whose parameters are all 0.25 (shared) and 0.5 (local)."""
    return save(
        store,
        recipe=model.recipe,
        shared={k: torch.full_like(v, 0.25) for k, v in model.shared_state().items()},
        local={k: torch.full_like(v, 0.5) for k, v in model.local_state().items()},
    )


def values(model) -> set[float]:
    states = [*model.shared_state().values(), *model.local_state().values()]
    return {value for state in states for value in state.unique().tolist()}


def test_a_version_takes_shared_and_local_parameters_back(store, kept, personalise) -> None:
    model = personalise(options=SMALL)
    store.load_into(model, kept)
    assert all((value == 0.25).all() for value in model.shared_state().values())
    assert all((value == 0.5).all() for value in model.local_state().values())


def test_a_method_without_local_parameters_has_versions_too(store, personalise) -> None:
    model = personalise(method="lora_fedavg", options=SMALL)
    version = save(store, recipe=model.recipe, shared=model.shared_state(), local={})
    store.load_into(model, version)


def test_a_version_of_another_recipe_is_refused(store, kept, personalise) -> None:
    other = personalise(name="Another", options=SMALL)
    before = other.shared_state()
    with pytest.raises(VersionError, match="belongs to another recipe"):
        store.load_into(other, kept)
    assert same(before, other.shared_state())


@pytest.mark.parametrize("name", ["shared.safetensors", "local.safetensors"])
@pytest.mark.parametrize("how", ["missing", "empty", "one bit"])
def test_damaged_parameters_are_refused_and_none_is_loaded(store, kept, model, name, how) -> None:
    path = store._folder / "0001" / name
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    else:
        content[-2] ^= 1
        path.write_bytes(b"" if how == "empty" else content)
    shared, local = model.shared_state(), model.local_state()
    with pytest.raises(VersionError, match="version 1 is damaged.*earlier version"):
        store.load_into(model, kept)
    assert same(shared, model.shared_state())
    assert same(local, model.local_state())


def test_parameters_that_the_program_no_longer_shares_are_refused(store, model) -> None:
    shared = model.shared_state()
    left_out = {name: shared[name] for name in list(shared)[1:]}
    version = save(store, recipe=model.recipe, shared=left_out, local=model.local_state())
    with pytest.raises(VersionError, match="does not fit this version of napari-fedsam"):
        store.load_into(model, version)


def test_a_record_without_checksums_is_damaged(store, kept, model) -> None:
    with pytest.raises(VersionError, match="is damaged"):
        store.load_into(model, kept.model_copy(update={"sha256": {}}))


def test_the_site_model_is_the_base_until_a_version_is_active(
    tmp_path: Path, store, kept, model
) -> None:
    assert load_site_model(tmp_path) is None
    store.activate(kept.number)
    loaded, version = load_site_model(tmp_path)
    assert version == kept
    assert loaded.recipe == model.recipe
    assert values(loaded) == {0.25, 0.5}


def test_the_site_model_says_when_its_version_is_damaged(tmp_path: Path, store, folder, kept):
    store.activate(kept.number)
    (folder / "0001/local.safetensors").write_bytes(b"")
    with pytest.raises(VersionError, match="damaged"):
        load_site_model(tmp_path)


def test_training_goes_on_from_the_newest_version_that_can_be_loaded(
    tmp_path: Path, store, folder, kept, model
) -> None:
    models = KeptModels()
    for _ in range(2):
        save(
            store,
            recipe=model.recipe,
            shared={k: torch.ones_like(v) for k, v in model.shared_state().items()},
            local=model.local_state(),
        )
    # Damaged after its shared parameters, and before: neither leaves anything behind.
    (folder / "0002/local.safetensors").write_bytes(b"")
    (folder / "0003/shared.safetensors").write_bytes(b"")
    save(store, recipe=OTHER)
    assert values(model_in_training(tmp_path, model.recipe, models)) == {0.25, 0.5}
    (folder / "0001/shared.safetensors").write_bytes(b"")
    fresh = model_in_training(tmp_path, model.recipe, models)
    assert same(models.untrained(model.recipe).shared_state(), fresh.shared_state())
    assert values(fresh) != {0.25, 0.5}
