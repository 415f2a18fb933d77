"""A poisoned site among five, with the real model, trainer and aggregation."""

import pytest

from napari_fedsam.app.benchmark.poisoning import (
    ATTACKS,
    PoisonedFederation,
    manifest_sites,
    recipe_for_poisoning,
    sample_sites,
)

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    structures, sites = sample_sites(train=8, held_out=6)
    recipe = recipe_for_poisoning(structures, rounds=1, epochs=10)
    return PoisonedFederation(recipe, sites, tmp_path_factory.mktemp("poisoned"))


@pytest.fixture(scope="module")
def reference(federation):
    return federation.reference()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("defence", ["median", "trimmed mean", "Krum"])
def test_the_honest_sites_lose_less_than_a_point(federation, reference, defence, attack):
    run = federation.attacked(defence, attack)
    assert run.left_out == 0
    assert run.dice > reference.dice - 0.01


def test_a_norm_limit_alone_leaves_out_what_is_far_too_large(federation, reference):
    run = federation.attacked("norm limit", "scaled by 100")
    assert run.left_out == 1
    assert run.dice > reference.dice - 0.01


def test_without_a_defence_the_model_is_spoilt(federation, reference):
    run = federation.attacked("none", "scaled by 100")
    assert run.dice < reference.dice - 0.1


@pytest.mark.data
def test_sites_of_a_manifest_are_halved_into_five(data_folder):
    _, sites = manifest_sites(data_folder / "manifest.csv", "polyp", train=4, held_out=3)
    assert len({site.name for site in sites}) == 5
    assert all((len(site.train), len(site.test)) == (4, 3) for site in sites)
    everything = [sample.id for site in sites for sample in (*site.train, *site.test)]
    assert len(set(everything)) == len(everything)
