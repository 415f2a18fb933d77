"""Rounds one after another: restarts, rounds that failed, what is kept of them."""

from pathlib import Path

import pytest
import torch
from flwr.app import Error, Message
from simulated_sites import INITIAL, SPEC, app_with, newest, run

from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.messages import round_of
from napari_fedsam.federation.round_runner import RoundRunner


def test_rounds_go_on_from_the_newest_checkpoint(tmp_path, agreed):
    recipe = agreed()
    run(tmp_path, recipe, app_with(), {2: "a", 3: "b"}, rounds=2)
    store = run(tmp_path, recipe, app_with(), {2: "a", 3: "b"})
    assert [result.round for result in store.results()] == [1, 2, 3]
    assert torch.allclose(newest(store, recipe), torch.tensor([12.0, 13.0]))
    assert store.newest("b" * 64) is None
    assert store.best().round == 3


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
