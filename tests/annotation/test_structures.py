"""Structures are told by their names, whatever numbers they were given."""

import pytest

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.structures import structures_of_cases
from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.samples import samples_from_store

LIVER = Structure(value=2, name="liver", color="#aa0000")
KIDNEY = Structure(value=2, name="kidney", color="#00aa00")
LATER_LIVER = Structure(value=1, name="Liver", color="#bb0000", definition="with its vessels")
SPLEEN = Structure(value=1, name="spleen", color="#0000aa")


@pytest.fixture
def keep(store, scene):
    """Return a function that keeps a training case of a structure, each of a scan of its own."""

    def accept(structure):
        return store.accept(
            NewCase(
                image=scene.image,
                mask=scene.ellipse,
                structure=structure,
                window=(0, 255),
                scan_key=f"scan {len(store.records())}",
                split="train",
            )
        )

    return accept


def numbers(structures):
    return {each.name: each.value for each in structures}


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        ([LIVER, KIDNEY], {"liver": 2, "kidney": 1}),
        ([LIVER, LATER_LIVER], {"Liver": 1}),
        ([LIVER, KIDNEY, LATER_LIVER, SPLEEN], {"Liver": 1, "kidney": 2, "spleen": 3}),
    ],
)
def test_every_case_is_trained_on_once(store, keep, kept, found):
    for structure in kept:
        keep(structure)
    structures = structures_of_cases(store.records())
    assert numbers(structures) == found
    recipe = Recipe(name="This site", structures=structures)
    samples = samples_from_store(store, recipe, "train")
    assert sorted(each.id for each in samples) == sorted(each.id for each in store.records())


def test_a_structure_is_spelt_and_coloured_as_last(store, keep):
    keep(LIVER)
    keep(LATER_LIVER)
    assert structures_of_cases(store.records()) == (LATER_LIVER,)


def test_a_structure_that_is_known_keeps_its_value(store, keep):
    first = keep(LIVER)
    keep(KIDNEY)
    known = structures_of_cases(store.records())
    assert structures_of_cases(store.records(), known) == known
    for structure in (LATER_LIVER, SPLEEN):
        keep(structure)
    now = structures_of_cases(store.records(), known)
    assert numbers(now) == {"Liver": 2, "kidney": 1, "spleen": 3}
    # Even where another case is now the oldest.
    store.delete(first.id)
    assert numbers(structures_of_cases(store.records(), now)) == numbers(now)


def test_the_value_of_what_has_no_cases_any_more_is_free(store, keep):
    keep(SPLEEN)
    assert structures_of_cases(store.records(), (LATER_LIVER,)) == (SPLEEN,)


def test_more_structures_than_values_are_refused(store, keep):
    record = keep(LIVER)
    records = [
        record.model_copy(update={"structure": LIVER.model_copy(update={"name": f"part {number}"})})
        for number in range(256)
    ]
    assert len(structures_of_cases(records[:255])) == 255
    with pytest.raises(AnnotationError, match="All 255 structure values are in use"):
        structures_of_cases(records)
