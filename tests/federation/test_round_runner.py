import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.errors import FederationError, ReplyCode
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.messages import (
    DIGEST_KEY,
    config_record,
    left_out_of,
    round_of,
)
from napari_fedsam.federation.packed_parameters import (
    digest_of,
    pack_parameters,
    unpack_parameters,
)
from napari_fedsam.federation.round_runner import RoundRunner
from napari_fedsam.personalization.federation_options import FederationOptions, PrivacyOptions
from napari_fedsam.training.update_rounding import round_update

SPEC = {"w": ((2,), "float32")}
INITIAL = {"w": torch.tensor([0.0, 1.0])}
SITES = {2: (1, 10.0), 3: (3, 2.0)}  # node id: training cases, added by its training


@pytest.fixture
def agreed(recipe):
    """Return the recipe with other options of the federation."""

    def make(minimum_sites=2, method="pfedsam", **options):
        changes = {"federation": FederationOptions(**options), "minimum_sites": minimum_sites}
        if method != recipe.method:
            changes.update(method=method, options=type(recipe.options)())
        return recipe.model_copy(update=changes)

    return make


def received_by(message):
    return unpack_parameters(message.content.array_records["shared"])["w"]


def update(message, added, cases, recipe_hash=None, round_number=None, **arrays):
    start = received_by(message)
    shared = pack_parameters({"w": start + torch.as_tensor(added), **arrays})
    metrics = MetricRecord({"num-examples": cases, "loss": 1.0 / cases, "seconds": 1.0})
    config = config_record(
        recipe_hash or message.content["config"]["recipe-hash"],
        round_number or round_of(message.content),
    )
    content = {"shared": shared, "metrics": metrics, "config": config}
    return Message(RecordDict(content), reply_to=message)


def judgement(message, cases=2, dice=0.5, activated=1):
    metrics = {
        "num-examples": cases,
        "dice-none": dice,
        "dice-box": dice / 2,
        "dice-point": dice / 4,
        "activated": activated,
    }
    content = {"metrics": MetricRecord(metrics), "config": message.content["config"]}
    return Message(RecordDict(content), reply_to=message)


@dataclasses.dataclass
class Received:
    node: int
    kind: str
    w: np.ndarray | None
    left_out: ReplyCode | None
    # Whether the parameters were in the message.
    sent: bool


def app_with(received=None, **odd):
    """Sites that train by adding; `odd` replaces the answers of some, by name of their folder.

    They keep what they judge, but those called `forgetful`.
    """
    app = ClientApp()
    log = received if received is not None else []
    kept = {}

    def note(message, context):
        sent = "shared" in message.content.array_records
        own = kept.get(context.node_id)
        if own is not None and message.content["config"].get(DIGEST_KEY) == digest_of(own):
            message.content["shared"] = pack_parameters(own)
        there = "shared" in message.content.array_records
        w = received_by(message).numpy() if there else None
        kind = message.metadata.message_type
        log.append(Received(context.node_id, kind, w, left_out_of(message.content), sent))
        return w

    @app.train()
    def train(message, context):
        name = context.node_config["site-folder"]
        if note(message, context) is None:
            return Message(Error(100, "parameters-missing"), reply_to=message)
        if name in odd:
            return odd[name](message)
        cases, added = SITES[context.node_id]
        return update(message, added, cases)

    @app.evaluate()
    def evaluate(message, context):
        w = note(message, context)
        if context.node_config["site-folder"] != "forgetful":
            kept[context.node_id] = unpack_parameters(message.content["shared"])
        return judgement(message, cases=context.node_id, dice=abs(float(w[0])) / 100)

    return app


def run(folder, recipe, app, sites, rounds=1, grid=None, **options):
    store = CheckpointStore(folder)
    grid = grid or InProcessGrid(app, {node: Path(name) for node, name in sites.items()})
    RoundRunner(grid, recipe, SPEC, INITIAL, store, **options).run(rounds)
    return store


def newest(store, recipe):
    return store.newest(recipe.hash).shared["w"]


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


def instructions(received, node, kind="train"):
    return [each.sent for each in received if (each.node, each.kind) == (node, kind)]


def test_what_a_site_has_judged_is_not_sent_to_it_again(tmp_path, agreed):
    received = []
    recipe = agreed()
    store = run(tmp_path, recipe, app_with(received), {2: "a", 3: "b"}, rounds=3)
    for node in (2, 3):
        assert instructions(received, node) == [True, False, False]
        assert instructions(received, node, "evaluate") == [True, True, True]
    # As if it had been sent.
    assert torch.allclose(newest(store, recipe), INITIAL["w"] + 3 * 4.0)
    first, *later = store.results()
    assert all(site.bytes_sent == 2 * site.bytes_received for site in first.sites)
    assert all(site.bytes_sent == site.bytes_received for r in later for site in r.sites)


def test_a_site_that_has_lost_it_is_sent_it_after_all(tmp_path, agreed):
    received = []
    recipe = agreed()
    store = run(tmp_path, recipe, app_with(received), {2: "a", 3: "forgetful"}, rounds=2)
    assert instructions(received, 2) == [True, False]
    assert instructions(received, 3) == [True, False, True]
    result = store.results()[-1]
    assert (result.updates, result.refused) == (2, ())
    assert torch.allclose(newest(store, recipe), INITIAL["w"] + 2 * 4.0)


@pytest.mark.faults
def test_a_site_that_keeps_asking_for_it_is_left_out(tmp_path, agreed):
    received = []
    asking = {"c": lambda m: Message(Error(100, "parameters-missing"), reply_to=m)}
    store = run(tmp_path, agreed(), app_with(received, **asking), {2: "a", 3: "b", 4: "c"}, 2)
    # It had judged the first round, and is asked twice in the second.
    assert instructions(received, 4) == [True, False, True]
    for result in store.results():
        assert [(site.node_id, site.code) for site in result.refused] == [
            ("4", "parameters-missing")
        ]


def test_a_coordinator_that_is_started_again_knows_what_sites_have_judged(tmp_path, agreed):
    received, recipe = [], agreed()
    app = app_with(received, c=lambda m: update(m, 4.0, 1))
    run(tmp_path, recipe, app, {2: "a", 3: "b"})
    store = run(tmp_path, recipe, app, {2: "a", 3: "b", 4: "c"})
    assert instructions(received, 2) == [True, False]
    # A newcomer.
    assert instructions(received, 4) == [True]
    assert store.have_newest(recipe.hash) == {"2", "3", "4"}
    assert store.have_newest("b" * 64) == set()


def test_rounds_go_on_from_the_newest_checkpoint(tmp_path, agreed):
    recipe = agreed()
    run(tmp_path, recipe, app_with(), {2: "a", 3: "b"}, rounds=2)
    store = run(tmp_path, recipe, app_with(), {2: "a", 3: "b"})
    assert [result.round for result in store.results()] == [1, 2, 3]
    assert torch.allclose(newest(store, recipe), torch.tensor([12.0, 13.0]))
    assert store.newest("b" * 64) is None
    assert store.best().round == 3


BAD_UPDATES = {
    "nan": (lambda m: update(m, float("nan"), 1), "refused-arrays"),
    "infinite": (lambda m: update(m, float("inf"), 1), "refused-arrays"),
    "extra": (lambda m: update(m, 1, 1, moe=torch.zeros(2)), "refused-arrays"),
    "shape": (lambda m: update(m, 1, 1, w=torch.zeros(3)), "refused-arrays"),
    "dtype": (lambda m: update(m, 1, 1, w=torch.zeros(2).double()), "refused-arrays"),
    "recipe": (lambda m: update(m, 1, 1, recipe_hash="b" * 64), "recipe-mismatch"),
    "replayed": (lambda m: update(m, 1, 1, round_number=7), "other-round"),
    "nocases": (lambda m: update(m, 1, -1), "refused-arrays"),
    "error": (lambda m: Message(Error(100, "too-few-cases"), reply_to=m), "too-few-cases"),
    "words": (lambda m: Message(Error(2, "/home/anna/x.dcm"), reply_to=m), "failed"),
    "gone": (
        lambda m: Message(Error(ErrorCode.NODE_UNAVAILABLE, "offline"), reply_to=m),
        "no-answer",
    ),
}


@pytest.mark.faults
@pytest.mark.parametrize("name", BAD_UPDATES)
def test_a_bad_update_is_left_out_and_recorded(tmp_path, agreed, name):
    answer, code = BAD_UPDATES[name]
    recipe = agreed()
    sites = {2: "a", 3: "b", 4: name}
    store = run(tmp_path, recipe, app_with(**{name: answer}), sites)
    (result,) = store.results()
    assert (result.aggregated, result.updates) == (True, 2)
    assert [(refused.node_id, refused.code) for refused in result.refused] == [("4", code)]
    assert torch.allclose(newest(store, recipe), torch.tensor([4.0, 5.0]))
    assert "/home/anna" not in result.model_dump_json()
    assert f"4: {code}" in result.summary
    assert not store.arrivals.exists()


def test_a_site_is_told_once_that_its_update_was_left_out(tmp_path, agreed):
    received = []
    bad = app_with(received, replayed=BAD_UPDATES["replayed"][0])
    run(tmp_path, agreed(), bad, {2: "a", 3: "b", 4: "replayed"})
    told = [(each.node, each.kind) for each in received if each.left_out]
    assert told == [(4, "evaluate")]
    assert received[-1].left_out is ReplyCode.OTHER_ROUND
    assert "another round" in received[-1].left_out.explanation


def test_every_code_is_explained():
    assert all(code.explanation for code in ReplyCode)


@pytest.mark.faults
@pytest.mark.parametrize("scale", [100.0, -100.0])
def test_an_update_far_larger_than_the_others_is_left_out(tmp_path, agreed, scale):
    received = []
    app = app_with(received, big=lambda m: update(m, 4 * scale, 1))
    recipe = agreed()
    store = run(tmp_path, recipe, app, {2: "a", 3: "b", 4: "big"})
    (result,) = store.results()
    assert [(site.node_id, site.code) for site in result.refused] == [("4", "unusual-norm")]
    assert torch.allclose(newest(store, recipe), torch.tensor([4.0, 5.0]))
    assert received[-1].left_out is ReplyCode.UNUSUAL_NORM


def test_an_update_far_larger_than_the_sites_past_is_left_out(tmp_path, agreed):
    recipe = agreed(norm_limit=4.0)
    sites = {2: "a", 3: "b"}
    run(tmp_path, recipe, app_with(), sites, rounds=3)
    # With two sites the round's own median says nothing.
    app = app_with(b=lambda m: update(m, 9.0, 3))
    (*_, result) = run(tmp_path, recipe, app, sites).results()
    assert [(site.node_id, site.code) for site in result.refused] == [("3", "unusual-norm")]
    assert not result.aggregated


def test_without_a_limit_no_norm_is_unusual(tmp_path, agreed):
    app = app_with(big=lambda m: update(m, 400.0, 4))
    recipe = agreed(norm_limit=None)
    store = run(tmp_path, recipe, app, {2: "a", 3: "b", 4: "big"})
    assert store.results()[0].updates == 3


def adding(**amounts):
    """An app whose sites each add an amount, by the name of their folder."""
    return app_with(
        **{name: lambda m, a=amount: update(m, a, 1) for name, amount in amounts.items()}
    )


FIVE = {2: "p", 3: "q", 4: "r", 5: "s", 6: "t"}


@pytest.mark.faults
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"aggregation": "median"}, 1.1),
        ({"aggregation": "trimmed_mean", "trimmed_share": 0.2}, (1.0 + 1.1 + 1.2) / 3),
        ({"aggregation": "krum", "malicious_sites": 1}, (1.0 + 1.1 + 1.2 + 1.35) / 4),
    ],
)
def test_robust_aggregation_withstands_a_poisoned_site(tmp_path, agreed, options, expected):
    app = adding(p=1.0, q=1.1, r=1.2, s=1.35, t=-100.0)
    recipe = agreed(5, norm_limit=None, **options)
    store = run(tmp_path, recipe, app, FIVE)
    change = (newest(store, recipe) - INITIAL["w"]).numpy()
    assert change == pytest.approx(np.full(2, expected), rel=1e-5)


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


def test_too_few_good_updates_change_nothing_and_are_not_judged(tmp_path, agreed):
    recipe = agreed()
    received = []
    bad = app_with(received, nan=BAD_UPDATES["nan"][0])
    store = run(tmp_path, recipe, bad, {2: "a", 4: "nan"})
    (result,) = store.results()
    assert (result.aggregated, result.evaluations, len(result.refused)) == (False, 0, 1)
    assert {each.kind for each in received} == {"train"}
    assert store.newest(recipe.hash) is None
    assert "nothing changed" in result.summary
    store = run(tmp_path, recipe, app_with(), {2: "a", 3: "b"})
    assert [(r.round, r.aggregated) for r in store.results()] == [(1, True)]


def test_a_round_that_changed_nothing_is_the_last_and_is_run_again_under_its_number(
    tmp_path, agreed
):
    numbers = []

    def declined(message):
        numbers.append(round_of(message.content))
        return Message(Error(100, "declined"), reply_to=message)

    recipe, sites = agreed(), {2: "a", 3: "b"}
    for _ in range(2):
        store = run(tmp_path, recipe, app_with(a=declined, b=declined), sites, rounds=5)
    assert numbers == [1] * 4
    (result,) = store.results()
    assert (result.round, result.aggregated, result.complete) == (1, False, True)
    # Its folder is there already.
    store = run(tmp_path, recipe, app_with(), sites, rounds=2)
    assert [(r.round, r.aggregated) for r in store.results()] == [(1, True), (2, True)]
    assert torch.allclose(newest(store, recipe), INITIAL["w"] + 2 * 4.0)


def test_updates_that_were_sent_in_vain_are_remembered(tmp_path, agreed):
    recipe, sites = agreed(), {2: "a", 3: "b"}
    declining = app_with(b=lambda m: Message(Error(100, "declined"), reply_to=m))
    for _ in range(2):
        run(tmp_path, recipe, declining, sites)
    (result,) = run(tmp_path, recipe, app_with(), sites).results()
    assert (result.aggregated, result.releases) == (True, 3)


class DyingGrid(InProcessGrid):
    """The ServerApp dies when it asks the sites to judge."""

    def push_messages(self, messages):
        messages = list(messages)
        if messages[0].metadata.message_type == "evaluate":
            raise KeyboardInterrupt
        return super().push_messages(messages)


def cut_short(folder, recipe, received, **options):
    app, sites = app_with(received, **options), {2: Path("a"), 3: Path("b")}
    with pytest.raises(KeyboardInterrupt):
        run(folder, recipe, None, {}, grid=DyingGrid(app, sites))
    (result,) = CheckpointStore(folder).results()
    assert (result.aggregated, result.complete) == (True, False)
    received.clear()
    return app


@pytest.mark.faults
@pytest.mark.parametrize(("rounds", "last"), [(0, 1), (1, 2)])
def test_a_round_whose_judging_was_cut_short_is_judged_first(tmp_path, agreed, rounds, last):
    received, recipe = [], agreed()
    app = cut_short(tmp_path, recipe, received)
    store = run(tmp_path, recipe, app, {2: "a", 3: "b"}, rounds=rounds)
    kinds = ["evaluate", "train", "evaluate"][: 1 + 2 * rounds]
    assert [each.kind for each in received if each.node == 2] == kinds
    assert received[0].w == pytest.approx([4.0, 5.0])
    results = store.results()
    assert [result.round for result in results] == list(range(1, last + 1))
    assert all(result.complete and result.evaluations == 2 for result in results)
    # What the record held of the training is still there.
    assert (results[0].updates, results[0].cases) == (2, 4)


@pytest.mark.faults
def test_a_round_whose_judging_was_cut_short_waits_while_none_may_start(tmp_path, agreed):
    received, recipe = [], agreed()
    app = cut_short(tmp_path, recipe, received)
    grid = InProcessGrid(app, {2: Path("a"), 3: Path("b")})
    store = CheckpointStore(tmp_path)
    RoundRunner(grid, recipe, SPEC, INITIAL, store).run(1, may_start=lambda: False)
    assert received == []
    assert store.unjudged(recipe.hash) == store.results()[0]


class SlowGrid(InProcessGrid):
    """Some sites never answer, and some come only when the first updates are in."""

    def __init__(self, app, sites, *, silent=(), late=()):
        super().__init__(app, {node: Path(name) for node, name in sites.items()})
        self._silent, self._late, self._pulled = set(silent), set(late), False

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if self._pulled or node not in self._late]

    def _deliver(self, message):
        if message.metadata.dst_node_id in self._silent:
            return f"never-{message.metadata.dst_node_id}"
        return super()._deliver(message)

    def pull_messages(self, message_ids):
        self._pulled = True
        return super().pull_messages(message_ids)


@pytest.mark.faults
def test_a_round_goes_on_at_its_deadline_without_those_who_did_not_answer(tmp_path, agreed):
    recipe = agreed(deadline_minutes=0.01)
    grid = SlowGrid(app_with(), {2: "a", 3: "b", 4: "c"}, silent=[4])
    (result,) = run(tmp_path, recipe, None, {}, grid=grid).results()
    assert (result.aggregated, result.updates) == (True, 2)
    assert [(site.node_id, site.code) for site in result.refused] == [("4", "no-answer")]
    assert [site.judgement_code for site in result.sites] == ["", "", "no-answer"]


@pytest.mark.faults
def test_a_site_is_sent_what_it_has_lost_while_others_are_still_at_work(tmp_path, agreed):
    recipe = agreed(deadline_minutes=0.05)
    app = app_with(c=lambda m: update(m, 4.0, 1))
    sites = {2: "a", 3: "forgetful", 4: "c"}
    run(tmp_path, recipe, app, sites)
    grid = SlowGrid(app, sites, silent=[4])
    (_, result) = run(tmp_path, recipe, None, {}, grid=grid).results()
    assert result.updates == 2
    assert [(site.node_id, site.code) for site in result.refused] == [("4", "no-answer")]


class CountingGrid(InProcessGrid):
    """Counts the messages that are under way."""

    def __init__(self, *args):
        super().__init__(*args)
        self.under_way, self.most = 0, 0

    def push_messages(self, messages):
        ids = super().push_messages(messages)
        self.under_way += len(ids)
        self.most = max(self.most, self.under_way)
        return ids

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        self.under_way -= len(replies)
        return replies


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (2, 2), (None, 2)])
def test_sites_that_take_turns_are_asked_a_few_at_a_time(tmp_path, agreed, at_once, most):
    recipe, sites = agreed(), {2: Path("a"), 3: Path("b")}
    grid = CountingGrid(app_with(), sites)
    store = run(tmp_path, recipe, app_with(), {2: "a", 3: "b"}, grid=grid, at_once=at_once)
    assert grid.most == most
    assert newest(store, recipe)[0] == (1 * 10.0 + 3 * 2.0) / 4
    (result,) = store.results()
    assert all(site.held_out for site in result.sites)


def test_a_late_joiner_receives_the_rounds_model_and_trains_in_the_next(tmp_path, agreed):
    recipe = agreed()
    received = []
    grid = SlowGrid(
        app_with(received, c=lambda m: update(m, 4.0, 1)), {2: "a", 3: "b", 4: "c"}, late=[4]
    )
    store = run(tmp_path, recipe, None, {}, rounds=2, grid=grid)
    first, second = store.results()
    assert (first.updates, second.updates) == (2, 3)
    assert [each.kind for each in received if each.node == 4] == ["evaluate", "train", "evaluate"]
    late = next(site for site in first.sites if site.node_id == "4")
    assert (late.train_asked, late.accepted, late.held_out) == (False, False, 4)


def test_no_round_starts_when_it_may_not(tmp_path, agreed):
    recipe = agreed()
    grid = InProcessGrid(app_with(), {2: Path("a"), 3: Path("b")})
    store = CheckpointStore(tmp_path)
    allowed = iter([True, False])
    RoundRunner(grid, recipe, SPEC, INITIAL, store).run(5, may_start=lambda: next(allowed))
    assert len(store.results()) == 1


def test_sites_have_names_in_the_record(tmp_path, agreed):
    names = {"2": "Hospital B", "3": "Hospital A"}
    store = run(tmp_path, agreed(), app_with(), {2: "a", 3: "b"}, name_of=names.__getitem__)
    assert [site.name for site in store.results()[0].sites] == ["Hospital A", "Hospital B"]


def test_sites_without_held_out_cases_do_not_spoil_the_average(tmp_path, agreed):
    app = ClientApp()
    app.train()(lambda message, _context: update(message, 1.0, 1))
    app.evaluate()(lambda message, context: judgement(message, cases=context.node_id - 2, dice=0.8))
    (result,) = run(tmp_path, agreed(), app, {2: "a", 3: "b"}).results()
    assert (result.evaluations, result.dice["none"]) == (1, pytest.approx(0.8))


def test_a_half_saved_round_is_never_seen(tmp_path, agreed):
    run(tmp_path, agreed(), app_with(), {2: "a", 3: "b"})
    left = tmp_path / "rounds" / ".saving-x"
    left.mkdir()
    (left / "round.json").write_text("{")
    store = CheckpointStore(tmp_path)
    assert [result.round for result in store.results()] == [1]
    store.remove_unfinished()
    assert not left.exists()


@pytest.mark.faults
def test_damaged_parameters_are_refused_in_words(tmp_path, agreed):
    recipe = agreed()
    store = run(tmp_path, recipe, app_with(), {2: "a", 3: "b"})
    path = tmp_path / "rounds" / "0001" / "shared.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(FederationError, match="round 1 are damaged"):
        store.newest(recipe.hash)
