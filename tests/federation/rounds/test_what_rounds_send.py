"""What is sent to whom: parameters once, to late ones too, a few sites at a time."""

from pathlib import Path

import pytest
import torch
from flwr.app import Error, Message
from simulated_sites import INITIAL, app_with, newest, run, update

from napari_fedsam.federation.in_process import InProcessGrid


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
def test_a_site_is_sent_what_it_has_lost_while_others_are_still_at_work(tmp_path, agreed):
    recipe = agreed(deadline_minutes=0.05)
    app = app_with(c=lambda m: update(m, 4.0, 1))
    sites = {2: "a", 3: "forgetful", 4: "c"}
    run(tmp_path, recipe, app, sites)
    grid = SlowGrid(app, sites, silent=[4])
    (_, result) = run(tmp_path, recipe, None, {}, grid=grid).results()
    assert result.updates == 2
    assert [(site.node_id, site.code) for site in result.refused] == [("4", "no-answer")]


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


@pytest.mark.faults
def test_a_round_goes_on_at_its_deadline_without_those_who_did_not_answer(tmp_path, agreed):
    recipe = agreed(deadline_minutes=0.01)
    grid = SlowGrid(app_with(), {2: "a", 3: "b", 4: "c"}, silent=[4])
    (result,) = run(tmp_path, recipe, None, {}, grid=grid).results()
    assert (result.aggregated, result.updates) == (True, 2)
    assert [(site.node_id, site.code) for site in result.refused] == [("4", "no-answer")]
    assert [site.judgement_code for site in result.sites] == ["", "", "no-answer"]


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
