"""Training samples out of a real case store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.training.samples import renumbered, samples_from_store


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    return CaseStore(tmp_path / "cases")


@pytest.fixture
def keep(store: CaseStore, make_recipe):
    structures = {s.value: s for s in make_recipe().structures}
    structures[9] = Structure(value=9, name="liver", color="#0000ff")

    def keep(structure: int = 3, **changes: Any):
        random = np.random.default_rng(structure)
        mask = np.zeros((12, 16), np.bool_)
        mask[3:9, 4:12] = True
        parts: dict[str, Any] = {
            "image": random.integers(-1000, 1000, (12, 16)).astype(np.int16),
            "mask": mask,
            "structure": structures[structure],
            "window": (-160.0, 240.0),
            "scan_key": "scan",
            "split": "train",
        }
        return store.accept(NewCase(**(parts | changes)))

    return keep


def test_cases_become_windowed_samples(store, keep, make_recipe) -> None:
    record = keep()
    (sample,) = samples_from_store(store, make_recipe(), "train")
    assert sample.id == record.id
    assert sample.group == record.patient
    assert sample.structure == 3
    assert sample.image.dtype == np.uint8
    raw = store.load(record.id).image
    assert (sample.image[raw <= -160] == 0).all()
    assert (sample.image[raw >= 240] == 255).all()
    inside = (raw > -160) & (raw < 240)
    expected = (raw[inside] + 160) / 400 * 255
    assert np.abs(sample.image[inside] - expected).max() <= 1
    assert sample.mask.sum() == 48
    assert not sample.absent


def test_only_the_recipes_structures_and_the_split_are_taken(store, keep, make_recipe) -> None:
    wanted = {keep(3, scan_key="one").id, keep(7, scan_key="one").id}
    keep(9, scan_key="one")
    held_out = keep(3, scan_key="two", split="val").id
    train = samples_from_store(store, make_recipe(), "train")
    assert {sample.id for sample in train} == wanted
    assert [sample.id for sample in train] == sorted(wanted)
    assert {sample.structure for sample in train} == {3, 7}
    assert [s.id for s in samples_from_store(store, make_recipe(), "val")] == [held_out]


def test_absent_structures_are_kept(store, keep, make_recipe) -> None:
    keep(mask=np.zeros((12, 16), np.bool_))
    (sample,) = samples_from_store(store, make_recipe(), "train")
    assert sample.absent


def test_colour_cases_stay_as_they_are(store, keep, make_recipe) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    keep(image=colours, window=(0.0, 255.0))
    (sample,) = samples_from_store(store, make_recipe(), "train")
    assert np.array_equal(sample.image, colours)


def test_a_broken_case_is_left_out(store, keep, make_recipe) -> None:
    broken, good = keep(3), keep(7)
    path = store.case_folder(broken.id) / "mask.nrrd"
    content = bytearray(path.read_bytes())
    content[-3] ^= 0xFF
    path.write_bytes(content)
    assert [s.id for s in samples_from_store(store, make_recipe(), "train")] == [good.id]
    assert [record.id for record in store.records()] == [good.id]


def test_a_case_that_is_deleted_meanwhile_is_left_out(
    store, keep, make_recipe, monkeypatch
) -> None:
    gone, good = keep(3), keep(7)
    load = store.load

    def deleted_before_it_is_read(case_id):
        if case_id == gone.id:
            store.delete(gone.id)
        return load(case_id)

    monkeypatch.setattr(store, "load", deleted_before_it_is_read)
    assert [s.id for s in samples_from_store(store, make_recipe(), "train")] == [good.id]


def test_samples_get_the_numbers_of_another_recipe_by_name(store, keep, make_recipe) -> None:
    recipe = make_recipe()
    keep(3), keep(7)
    first, second = recipe.structures
    structures = (
        second.model_copy(update={"value": 3, "name": second.name.upper()}),
        first.model_copy(update={"value": 7, "name": "liver"}),
    )
    other = recipe.model_copy(update={"structures": structures})
    samples = samples_from_store(store, recipe, "train")
    numbers = {3: 0, 7: 3}
    assert [sample.structure for sample in renumbered(samples, recipe, other)] == [
        numbers[sample.structure] for sample in samples
    ]


def test_an_empty_store_gives_no_samples(store, make_recipe) -> None:
    assert samples_from_store(store, make_recipe(), "train") == []
