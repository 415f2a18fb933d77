from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.messages import config_record, shared_record
from napari_fedsam.federation.strategy import CheckedFedAvg

HASH = "a" * 64
SPEC = {"w": ((2,), "float32")}
SITES = {2: (1, 10.0), 3: (3, 2.0)}  # node id: training cases, added by its training


def update(message, added, cases, recipe=HASH, **arrays):
    start = message.content.array_records["shared"]["w"].numpy()
    shared = ArrayRecord({"w": Array(start + np.float32(added)), **arrays})
    metrics = MetricRecord({"num-examples": cases, "loss": 1.0 / cases, "seconds": 1.0})
    content = {"shared": shared, "metrics": metrics, "config": config_record(recipe)}
    return Message(RecordDict(content), reply_to=message)


def judgement(message, cases=2, dice=0.5, activated=1):
    metrics = {
        "num-examples": cases,
        "dice-none": dice,
        "dice-box": dice / 2,
        "activated": activated,
    }
    content = {"metrics": MetricRecord(metrics), "config": config_record(HASH)}
    return Message(RecordDict(content), reply_to=message)


def app_with(**odd):
    """Sites that train by adding; `odd` replaces the answers of some, by name of their folder."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        name = context.node_config["site-folder"]
        if name in odd:
            return odd[name](message)
        cases, added = SITES[context.node_id]
        return update(message, added, cases)

    @app.evaluate()
    def evaluate(message, context):
        w = message.content.array_records["shared"]["w"].numpy()
        return judgement(message, cases=context.node_id, dice=float(w[0]) / 100)

    return app


def run(folder, app, sites, rounds=1, minimum=2):
    store = CheckpointStore(folder)
    shared = store.newest(HASH) or {"w": torch.tensor([0.0, 1.0])}
    CheckedFedAvg(HASH, SPEC, minimum, store).start(
        InProcessGrid(app, {node: Path(name) for node, name in sites.items()}),
        shared_record(shared),
        num_rounds=rounds,
        train_config=config_record(HASH),
        evaluate_config=config_record(HASH),
    )
    return store


def test_a_round_is_the_average_weighted_by_cases(tmp_path):
    store = run(tmp_path, app_with(), {2: "a", 3: "b"})
    expected = torch.tensor([0.0, 1.0]) + (1 * 10.0 + 3 * 2.0) / 4
    assert torch.allclose(store.newest(HASH)["w"], expected)
    (result,) = store.results()
    assert (result.round, result.aggregated, result.updates, result.examples) == (1, True, 2, 4)
    assert result.loss == pytest.approx((1 * 1.0 + 3 * (1 / 3)) / 4)
    assert result.dice == pytest.approx({"none": 0.04, "box": 0.02})
    assert (result.evaluations, result.activated, result.refused) == (2, 2, ())
    assert result.complete


def test_rounds_go_on_from_the_newest_checkpoint(tmp_path):
    run(tmp_path, app_with(), {2: "a", 3: "b"}, rounds=2)
    store = run(tmp_path, app_with(), {2: "a", 3: "b"})
    assert [result.round for result in store.results()] == [1, 2, 3]
    assert torch.allclose(store.newest(HASH)["w"], torch.tensor([12.0, 13.0]))
    assert store.newest("b" * 64) is None


BAD_UPDATES = {
    "nan": (lambda m: update(m, float("nan"), 1), "refused-arrays"),
    "extra": (lambda m: update(m, 1, 1, moe=Array(np.zeros(2))), "refused-arrays"),
    "recipe": (lambda m: update(m, 1, 1, recipe="b" * 64), "recipe-mismatch"),
    "nocases": (lambda m: update(m, 1, -1), "refused-arrays"),
    "error": (lambda m: Message(Error(100, "too-few-cases"), reply_to=m), "too-few-cases"),
    "words": (lambda m: Message(Error(2, "/home/anna/x.dcm"), reply_to=m), "failed"),
}


@pytest.mark.parametrize("name", BAD_UPDATES)
def test_a_bad_update_is_left_out_and_recorded(tmp_path, name):
    answer, code = BAD_UPDATES[name]
    store = run(tmp_path, app_with(**{name: answer}), {2: "a", 3: "b", 4: name})
    (result,) = store.results()
    assert (result.aggregated, result.updates) == (True, 2)
    assert [(refused.node_id, refused.code) for refused in result.refused] == [("4", code)]
    assert torch.allclose(store.newest(HASH)["w"], torch.tensor([4.0, 5.0]))
    assert "/home/anna" not in result.model_dump_json()


def test_too_few_good_updates_change_nothing_and_are_not_judged(tmp_path):
    bad = app_with(nan=BAD_UPDATES["nan"][0])
    store = run(tmp_path, bad, {2: "a", 4: "nan"})
    (result,) = store.results()
    assert (result.aggregated, result.evaluations, len(result.refused)) == (False, 0, 1)
    assert store.newest(HASH) is None
    assert "nothing changed" in result.summary
    store = run(tmp_path, app_with(), {2: "a", 3: "b"})
    assert [(r.round, r.aggregated) for r in store.results()] == [(1, False), (2, True)]


def test_sites_without_held_out_cases_do_not_spoil_the_average(tmp_path):
    app = ClientApp()
    app.train()(lambda message, _context: update(message, 1.0, 1))
    app.evaluate()(lambda message, context: judgement(message, cases=context.node_id - 2, dice=0.8))
    store = run(tmp_path, app, {2: "a", 3: "b"})
    (result,) = store.results()
    assert (result.evaluations, result.dice["none"]) == (1, pytest.approx(0.8))


def test_a_half_saved_round_is_never_seen(tmp_path):
    run(tmp_path, app_with(), {2: "a", 3: "b"})
    left = tmp_path / "rounds" / ".saving-x"
    left.mkdir()
    (left / "round.json").write_text("{")
    store = CheckpointStore(tmp_path)
    assert [result.round for result in store.results()] == [1]
    store.remove_unfinished()
    assert not left.exists()


def test_damaged_parameters_are_refused_in_words(tmp_path):
    store = run(tmp_path, app_with(), {2: "a", 3: "b"})
    path = tmp_path / "rounds" / "0001" / "shared.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(FederationError, match="round 1 are damaged"):
        store.newest(HASH)
