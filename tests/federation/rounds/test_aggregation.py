"""How updates become one: weights, precision, server steps, likeness, noise."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from simulated_sites import INITIAL, app_with, judgement, newest, run, update

from napari_fedsam.federation.errors import ReplyCode
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.packed_parameters import pack_parameters
from napari_fedsam.personalization.federation_options import PrivacyOptions
from napari_fedsam.training.update_rounding import round_update


def test_a_round_is_the_average_weighted_by_cases(tmp_path, agreed):
    recipe = agreed()
    store = run(tmp_path, recipe, app_with(), {2: "a", 3: "b"})
    expected = INITIAL["w"] + (1 * 10.0 + 3 * 2.0) / 4
    assert torch.allclose(newest(store, recipe), expected)
    (result,) = store.results()
    assert (result.round, result.aggregated, result.updates, result.cases) == (1, True, 2, 4)
    assert result.loss == pytest.approx((1 * 1.0 + 3 * (1 / 3)) / 4)
    assert result.dice == pytest.approx({"none": 0.04, "box": 0.02, "point": 0.01})
    assert (result.evaluations, result.activated, result.refused) == (2, 2, ())
    assert result.complete
    assert [site.norm for site in result.sites] == pytest.approx([10 * 2**0.5, 2 * 2**0.5])
    assert all(site.bytes_sent == 2 * site.bytes_received > 0 for site in result.sites)


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({"case_cap": 2}, (1 * 10.0 + 2 * 2.0) / 3),
        ({"case_cap": 1}, 6.0),
        ({"weights": "equal"}, 6.0),
        ({"weights": "equal", "extrapolation": 1.5}, 9.0),
    ],
)
def test_what_a_site_weighs_and_the_average_counts_are_options(tmp_path, agreed, options, added):
    recipe = agreed(**options)
    store = run(tmp_path, recipe, app_with(), {2: "a", 3: "b"})
    assert torch.allclose(newest(store, recipe), INITIAL["w"] + added)


def test_a_single_sites_update_is_taken_once(tmp_path, agreed):
    recipe = agreed(minimum_sites=1, extrapolation=1.5)
    store = run(tmp_path, recipe, app_with(), {2: "a"})
    assert torch.allclose(newest(store, recipe), INITIAL["w"] + 10.0)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_rounded_updates_are_averaged_and_others_refused(tmp_path, agreed, precision):
    recipe = agreed(minimum_sites=1, precision=precision)

    def rounded(message):
        changed, _ = round_update({"w": torch.tensor([2.0, -1.0])}, precision)
        reply = update(message, 0, 1)
        reply.content["shared"] = pack_parameters(changed)
        return reply

    store = run(tmp_path, recipe, app_with(a=rounded), {2: "a", 3: "b"})
    expected = INITIAL["w"] + torch.tensor([2.0, -1.0])
    torch.testing.assert_close(newest(store, recipe), expected, rtol=0, atol=0.02)
    (result,) = store.results()
    assert [site.code for site in result.refused] == [ReplyCode.REFUSED_ARRAYS.value]


def test_fedadam_steps_as_flowers_does_and_goes_on_after_a_restart(tmp_path, agreed):
    from flwr.serverapp.strategy import FedAdam

    recipe = agreed(aggregation="fedadam", server_learning_rate=0.1)
    sites = {2: "a", 3: "b"}
    flower = FedAdam(eta=0.1, weighted_by_key="num-examples")
    current = INITIAL["w"].numpy()
    for number in (1, 2, 3):
        # A new runner each time: the moments come from the disk.
        store = run(tmp_path, recipe, app_with(), sites)
        flower.current_arrays = {"w": current}
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(current + np.float32(4.0))}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        InProcessGrid(ClientApp(), {})
        reply = Message(content, 1, "train")
        reply.metadata.__dict__["_reply_to_message_id"] = "x"
        arrays, _ = flower.aggregate_train(number, [reply])
        current = arrays["w"].numpy()
        assert newest(store, recipe).numpy() == pytest.approx(current, rel=1e-4)


def test_every_site_receives_an_average_of_those_alike(tmp_path, agreed):
    received = []
    app = app_with(
        received,
        p=lambda m: update(m, [1.0, 0.0], 1),
        q=lambda m: update(m, [1.0, 0.0], 1),
        r=lambda m: update(m, [0.0, 1.0], 1),
    )
    recipe = agreed(method="fedsca")
    store = run(tmp_path, recipe, app, {2: "p", 3: "q", 4: "r"}, rounds=2)
    judged = {each.node: each.w for each in received if each.kind == "evaluate"}
    assert judged[2] == pytest.approx([2.0, 1.0])
    assert judged[3] == pytest.approx([2.0, 1.0])
    assert judged[4] == pytest.approx([0.0, 3.0])
    # Later joiners start from the average of all.
    assert newest(store, recipe).numpy() == pytest.approx([4 / 3, 1 + 2 / 3])
    received.clear()
    run(tmp_path, recipe, app, {2: "p", 4: "r", 5: "q"})
    asked = {each.node: each.w for each in received if each.kind == "train"}
    assert asked[4] == pytest.approx([0.0, 3.0])
    assert asked[5] == pytest.approx([4 / 3, 1 + 2 / 3])


def test_central_noise_clips_each_update_and_hides_a_single_site(tmp_path, agreed):
    privacy = PrivacyOptions(noise="central", clipping_norm=2**0.5, noise_multiplier=1e-3)
    recipe = agreed(weights="equal", privacy=privacy)
    store = run(tmp_path, recipe, app_with(), {2: "a", 3: "b"})
    # Both were longer than the limit: each counts as one clipping norm.
    change = newest(store, recipe) - INITIAL["w"]
    assert torch.allclose(change, torch.ones(2), atol=0.01)
    assert not torch.equal(change, torch.ones(2))
    loud = recipe.model_copy(
        update={
            "federation": recipe.federation.model_copy(
                update={"privacy": privacy.model_copy(update={"noise_multiplier": 1e3})}
            )
        }
    )
    other = run(tmp_path / "loud", loud, app_with(), {2: "a", 3: "b"})
    assert (newest(other, loud) - INITIAL["w"]).abs().max() > 5


def test_sites_without_held_out_cases_do_not_spoil_the_average(tmp_path, agreed):
    app = ClientApp()
    app.train()(lambda message, _context: update(message, 1.0, 1))
    app.evaluate()(lambda message, context: judgement(message, cases=context.node_id - 2, dice=0.8))
    (result,) = run(tmp_path, agreed(), app, {2: "a", 3: "b"}).results()
    assert (result.evaluations, result.dice["none"]) == (1, pytest.approx(0.8))
