"""A federation in this process: what is exchanged, averaged and kept."""

import numpy as np
import pytest
import torch

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization import Recipe, TrainingOptions
from napari_fedsam.personalization.federation_options import FederationOptions
from napari_fedsam.training.aggregation import (
    add_update,
    case_weights,
    similarity_weights,
    update_between,
    weighted_mean,
)
from napari_fedsam.training.errors import TrainingError
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.simulated_federation import SimulatedFederation, SimulatedSite

POLYP = Structure(value=3, name="polyp", color="#ff0000")
CPU = torch.device("cpu")


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def sites(make_sample):
    return [
        SimulatedSite("north", [make_sample("a", (20, 22)), make_sample("aa", (30, 20))]),
        SimulatedSite("south", [make_sample("b", (40, 26))]),
    ]


@pytest.fixture(scope="module")
def cache():
    return FeatureCache()


@pytest.fixture
def federate(sites, cache):
    def build(method="pfedsam", minimum_sites=2, **federation):
        options = TrainingOptions(epochs=1, batch_size=1, augmentations=0)
        recipe = Recipe(
            name="Polyps",
            method=method,
            structures=(POLYP,),
            training=options,
            rounds=2,
            minimum_sites=minimum_sites,
            federation=FederationOptions(**federation),
        )
        return SimulatedFederation(recipe, sites, CPU, cache)

    return build


def test_the_average_is_weighted_by_hand() -> None:
    start = {"w": torch.tensor([1.0, 1.0])}
    trained = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([4.0, 8.0])}]
    updates = [update_between(start, state) for state in trained]
    average = add_update(start, weighted_mean(updates, case_weights([2, 1])))
    torch.testing.assert_close(average["w"], torch.tensor([2.0, 4.0]))
    assert average["w"].dtype == torch.float32


def test_like_updates_count_more() -> None:
    updates = [{"w": torch.tensor(v)} for v in ([1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 0.0])]
    weights = np.array(similarity_weights(updates, [0.25, 0.5, 0.125, 0.125]))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights[0], [1 / 3, 2 / 3, 0, 0])
    np.testing.assert_allclose(weights[2], [0, 0, 1, 0])


@pytest.mark.parametrize("times", [1.0, 1.5])
def test_a_round_averages_what_the_sites_trained(federate, sites, cache, times) -> None:
    federation = federate(method="lora_fedavg", extrapolation=times)
    start = federation.model.shared_state()
    federation.run_round(1)
    updates = []
    for site in sites:
        model = federate(method="lora_fedavg").model
        model.load_shared(start)
        local_update(model, site.train, seed=0, cache=cache)
        updates.append(update_between(start, model.shared_state()))
    expected = add_update(start, weighted_mean(updates, case_weights([2, 1])), times)
    assert equal(federation.shared["north"], expected)
    assert equal(federation.shared["south"], expected)
    assert not equal(expected, start)


def test_rounding_of_updates_is_made_up_for_in_the_next_round(federate) -> None:
    federation = federate(method="lora_fedavg", precision="int8")
    exact = federate(method="lora_fedavg")
    for run in (federation, exact):
        run.run_round(1)
    one, other = federation.shared["north"], exact.shared["north"]
    assert not equal(one, other)
    for name, value in other.items():
        left = sum(
            w * federation.left_over[s][name] for s, w in (("north", 2 / 3), ("south", 1 / 3))
        )
        torch.testing.assert_close(one[name] + left, value, rtol=1e-4, atol=1e-6)


def test_local_parameters_differ_from_site_to_site_and_last(federate) -> None:
    federation = federate()
    federation.run_round(1)
    first = dict(federation.local)
    assert not equal(first["north"], first["south"])
    federation.run_round(2)
    assert not equal(first["north"], federation.local["north"])
    model = federation.personalised("south")
    assert equal(model.local_state(), federation.local["south"])
    assert equal(model.shared_state(), federation.shared["south"])


def test_sites_that_train_alone_share_nothing(federate) -> None:
    federation = federate(method="local")
    federation.run_round(1)
    assert federation.shared["north"] == {}
    assert not equal(federation.local["north"], federation.local["south"])


def test_pooled_cases_train_one_model(federate, sites, cache) -> None:
    federation = federate(method="centralised")
    start = federation.model.shared_state()
    federation.run_round(1)
    model = federate(method="centralised").model
    model.load_shared(start)
    everything = [sample for site in sites for sample in site.train]
    local_update(model, everything, seed=0, cache=cache)
    # The start plus what changed, which differs from the sum by rounding.
    for name, value in model.shared_state().items():
        torch.testing.assert_close(federation.shared["south"][name], value, atol=1e-6, rtol=1e-6)


def test_similar_sites_get_averages_of_their_own(federate) -> None:
    federation = federate(method="fedsca")
    federation.run_round(1)
    assert not equal(federation.shared["north"], federation.shared["south"])


def test_similar_sites_get_an_average_of_what_the_others_hold(federate) -> None:
    federation = federate(method="fedsca")
    name = next(iter(federation.shared["north"]))
    held = {site: {name: torch.tensor([value])} for site, value in (("north", 1.0), ("south", 5.0))}
    federation.shared = held
    combined = federation._combined({site: {name: held[site][name] + 3} for site in held})
    # Their updates are the same, so that both count by their cases: two and one.
    for site in held:
        torch.testing.assert_close(combined[site][name], torch.tensor([7 / 3 + 3]))


@pytest.mark.parametrize(
    "options",
    [{"aggregation": "median"}, {"weights": "equal"}, {"case_cap": 3}, {"norm_limit": 2.0}],
)
def test_an_exchange_that_only_the_apps_have_is_refused(federate, options) -> None:
    with pytest.raises(TrainingError, match=f"federation.{next(iter(options))} has no effect"):
        federate(minimum_sites=3, **options)


def test_fine_tuning_comes_after_the_last_round_only(federate) -> None:
    federation = federate(method="lora_fedavg_ft")
    federation.run_round(1)
    assert not any(value.any() for value in federation.local["north"].values())
    federation.run_round(2)
    assert any(value.any() for value in federation.local["north"].values())


def test_the_order_of_a_sites_cases_makes_no_difference(federate, sites) -> None:
    turned = [SimulatedSite(site.name, site.train[::-1]) for site in sites]
    one = federate(method="lora_fedavg")
    other = SimulatedFederation(one.recipe, turned, CPU, FeatureCache())
    for federation in (one, other):
        federation.run_round(1)
    assert equal(one.shared["north"], other.shared["north"])
