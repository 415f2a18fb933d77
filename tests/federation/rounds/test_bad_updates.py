"""Updates that are left out, and aggregation that withstands those that are not."""

import numpy as np
import pytest
import torch
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from simulated_sites import INITIAL, app_with, newest, run, update

from napari_fedsam.federation.errors import ReplyCode

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


FIVE = {2: "p", 3: "q", 4: "r", 5: "s", 6: "t"}


def adding(**amounts):
    """An app whose sites each add an amount, by the name of their folder."""
    return app_with(
        **{name: lambda m, a=amount: update(m, a, 1) for name, amount in amounts.items()}
    )


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
