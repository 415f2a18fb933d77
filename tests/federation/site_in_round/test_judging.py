"""A site judges a round, and uses the new model only where it did no worse."""

import pytest
import torch
from safetensors.torch import load_file

from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.federation import round_work
from napari_fedsam.federation.between_messages import keep_tensors
from napari_fedsam.federation.client_app import app
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.server_app import run_rounds
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.federation.site_status import SiteStatus
from napari_fedsam.training import new_version
from napari_fedsam.training.evaluation import JUDGED_PROMPTS, Evaluation, ImageResult
from napari_fedsam.training.versions import VersionStore


def evaluation(value):
    """An evaluation of one image with this Dice, or of none."""
    return Evaluation(
        tuple(
            ImageResult(id="x", group="x", prompt=kind, dice=value, false_positives=None)
            for kind in JUDGED_PROMPTS
            if value is not None
        )
    )


@pytest.fixture
def judged(site, ask, add_cases, monkeypatch):
    """Return a function that lets the site judge a round, with given Dice before and after."""
    add_cases(site.site)

    def judge(present, candidate, number=1):
        results = iter([evaluation(present), evaluation(candidate)])
        monkeypatch.setattr(new_version, "judge", lambda *_: next(results))
        reply, _ = ask("evaluate", number=number)
        (metrics,) = reply.content.metric_records.values()
        return metrics

    return judge


@pytest.mark.parametrize(
    ("present", "candidate", "taken"),
    [
        (0.5, 0.6, True),
        (0.5, 0.5, True),
        (0.5, 0.499, False),
        (0.0, 0.0, True),
        (None, None, False),
    ],
)
def test_a_model_is_used_only_when_it_did_no_worse(site, judged, present, candidate, taken):
    metrics = judged(present, candidate)
    assert metrics["activated"] == int(taken)
    assert metrics["num-examples"] == (0 if candidate is None else 1)
    store = VersionStore(site.versions)
    assert len(store.versions()) == 1
    assert (store.active() is not None) == taken
    message = SiteStatus.read(site.status).message
    assert ("is in use" in message) == taken
    assert ("kept but not used" in message) != taken


def test_a_model_that_did_no_worse_waits_for_a_yes_where_the_person_wants_it(site, judged):
    Site(site.site).change_settings(ask_first=True)
    assert judged(0.5, 0.6)["activated"] == 0
    store = VersionStore(site.versions)
    (version,) = store.versions()
    assert (version.passed, store.active()) == (True, None)
    assert "waits for your yes" in SiteStatus.read(site.status).message
    judged(0.5, 0.4, number=2)
    assert [each.passed for each in store.versions()] == [True, False]
    assert ModelSource(site.site).unused_version == version


def test_a_model_that_was_overtaken_while_it_was_judged_is_offered(
    site, judged, recipe, start, monkeypatch
):
    store = VersionStore(site.versions)
    judged(0.0, 0.5)

    def train_here_meanwhile(*_, **__):
        other = store.save(*start, round=0, recipe=recipe, dice={})
        store.activate(other.number)

    monkeypatch.setattr(round_work, "local_update", train_here_meanwhile)
    assert judged(0.5, 0.6, number=2)["activated"] == 0
    assert store.active_number == 2
    assert "another one has come into use meanwhile" in SiteStatus.read(site.status).message
    assert ModelSource(site.site).unused_version == store.versions()[-1]


def test_a_sites_own_model_stays_in_use_when_a_federation_does_worse(site, judged, recipe, start):
    """Before the federation it trained by a recipe of its own."""
    store = VersionStore(site.versions)
    own = recipe.model_copy(update={"name": "This site"})
    version = store.save(*start, round=0, recipe=own, dice={"none": 0.9})
    store.activate(version.number)
    assert judged(0.9, 0.2)["activated"] == 0
    assert store.active() == version
    assert "against 0.900 now); version 1 stays in use" in SiteStatus.read(site.status).message
    source = ModelSource(site.site)
    assert source.load().version == version.number
    assert source.unused_version.recipe_hash == recipe.hash


def test_a_site_that_waits_for_new_cases_judges_all_the_same(site, judged):
    Site(site.site).change_settings(new_cases=9)
    assert judged(0.5, 0.6)["activated"] == 1


def test_a_worse_model_leaves_the_version_in_use(site, judged):
    judged(0.0, 0.8, number=1)
    judged(0.8, 0.3, number=2)
    store = VersionStore(site.versions)
    assert len(store.versions()) == 2
    assert store.active().round == 1
    status = SiteStatus.read(site.status)
    assert "version 1 stays in use" in status.message
    assert [round_number for round_number, _ in status.dice_history] == [1, 2]


@pytest.mark.parametrize("trained_in", [1, 2])
def test_local_parameters_are_judged_only_with_the_round_they_were_trained_in(
    site, judged, recipe, start, trained_in, newest_version, no_training
):
    # The fit that follows would hide what it started from.
    _, state = start
    trained = {name: value + 1 for name, value in state.items()}
    keep_tensors(site.pending, trained, trained_in, recipe.hash)
    judged(0.0, 0.5, number=1)
    kept = load_file(newest_version(site) / "local.safetensors")
    expected = trained if trained_in == 1 else state
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


def test_a_round_goes_on_without_the_judgement_of_a_site_that_was_paused_in_it(
    tmp_path, recipe, add_cases, no_training, monkeypatch
):
    monkeypatch.setattr(new_version, "judge", lambda *_: evaluation(0.5))
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe)
    sites = {node: SiteFiles(tmp_path / str(node)) for node in (2, 3)}
    for node, files in sites.items():
        coordinator.invite(f"Hospital {node}").install(files)
        add_cases(files.site, seed=node)
    grid = InProcessGrid(
        app,
        {node: files.site for node, files in sites.items()},
        sent=lambda node, _: node == 3 and Site(sites[3].site).change_settings(paused=True),
    )
    run_rounds(grid, coordinator.folder, 1)
    (result,) = coordinator.results()
    assert (result.updates, result.evaluations, result.complete) == (2, 1, True)
    assert [site.judgement_code for site in result.sites] == ["", "declined"]
    assert result.dice
    assert VersionStore(sites[3].versions).versions() == []
