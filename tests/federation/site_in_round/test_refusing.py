"""What a site answers with a code alone, and what it tells its own people then."""

import datetime

import pytest
from flwr.app import ConfigRecord, MetricRecord

from napari_fedsam.federation import machine_load, room, round_work
from napari_fedsam.federation.audit import read_audit
from napari_fedsam.federation.errors import ReplyCode
from napari_fedsam.federation.messages import config_record
from napari_fedsam.federation.packed_parameters import pack_parameters
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.federation.site_status import SiteStatus, update_status


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_local_parameters_that_are_asked_for_are_refused_and_stay(site, demand, start, kind):
    shared, local = start
    code, payload = demand(kind, shared=pack_parameters({**shared, **local}))
    assert code == ReplyCode.REFUSED_ARRAYS
    assert not any(name.encode() in payload for name in local)
    assert "is not a shared parameter of the recipe" in SiteStatus.read(site.status).message


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize(
    "records",
    [
        {"metrics": MetricRecord({"dice-per-patient": 0})},
        {"more": ConfigRecord({"send": "patients"})},
        {"config-and-more": None},
    ],
    ids=["metrics", "another record", "another setting"],
)
def test_what_is_not_in_the_recipe_is_refused_and_nothing_is_done(
    site, demand, recipe, monkeypatch, kind, records
):
    if "config-and-more" in records:
        config = config_record(recipe.hash, 1)
        config["metrics-wanted"] = "surface-distance"
        records = {"config": config}
    monkeypatch.setattr(round_work, "CaseStore", None)
    code, _ = demand(kind, **records)
    assert code == ReplyCode.REFUSED_REQUEST
    assert read_audit(site.audit)[-1].error == "refused-request"
    assert "which is not in the recipe" in SiteStatus.read(site.status).message


@pytest.mark.faults
def test_a_query_is_refused(site, demand, planted):
    code, payload = demand("query")
    assert code == ReplyCode.REFUSED_REQUEST
    assert not any(text.encode() in payload for text in planted.values())
    assert "an answer to a query" in SiteStatus.read(site.status).message


@pytest.mark.faults
def test_a_round_is_not_begun_on_a_full_disk(site, ask, add_cases, monkeypatch):
    add_cases(site.site)
    monkeypatch.setattr(room, "_LEAST_BYTES", 1 << 62)
    monkeypatch.setattr(round_work, "model_in_training", None)
    reply, _ = ask("train")
    assert reply.error.reason == ReplyCode.FAILED
    assert "is full: make room" in SiteStatus.read(site.status).message


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_another_recipe_is_refused_before_anything_is_loaded(site, ask, monkeypatch, kind):
    monkeypatch.setattr(round_work, "_models", None)
    reply, _ = ask(kind, recipe_hash="b" * 64)
    assert reply.error.reason == ReplyCode.RECIPE_MISMATCH
    assert SiteStatus.read(site.status).phase is Phase.ERROR
    assert read_audit(site.audit)[-1].error == "recipe-mismatch"


def test_too_few_cases_is_a_code_to_the_coordinator_and_a_number_to_the_user(site, ask):
    reply, payload = ask("train")
    assert reply.error.reason == ReplyCode.TOO_FEW_CASES
    assert b"0 training cases" not in payload
    status = SiteStatus.read(site.status)
    assert status.phase is Phase.WAITING
    assert "has 0 training cases" in status.message


def test_a_site_without_a_recipe_takes_no_part(site, ask):
    site.recipe.unlink()
    reply, _ = ask("train")
    assert reply.error.reason == ReplyCode.NOT_IN_FEDERATION


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_paused_site_declines_and_neither_trains_nor_judges(
    site, demand, recipe, monkeypatch, kind
):
    Site(site.site).change_settings(paused=True)
    monkeypatch.setattr(round_work, "model_in_training", None)
    monkeypatch.setattr(round_work, "_models", None)
    code, _ = demand(kind, config=config_record(recipe.hash, 1, left_out="unusual-norm"))
    assert code == ReplyCode.DECLINED
    status = SiteStatus.read(site.status)
    assert (status.phase, "is paused" in status.message) == (Phase.WAITING, True)
    assert "left out this site's last update" in status.message


@pytest.mark.parametrize("settings", [{"hours": True}, {"when_idle": True}])
def test_a_site_neither_trains_nor_judges_at_other_times(site, demand, monkeypatch, settings):
    if "hours" in settings:
        begin, end = (datetime.datetime.now() + datetime.timedelta(hours=h) for h in (2, 3))
        settings = {"hours": f"{begin:%H:%M}-{end:%H:%M}"}
    Site(site.site).change_settings(**settings)
    monkeypatch.setattr(machine_load.psutil, "cpu_percent", lambda **_: 80.0)
    monkeypatch.setattr(round_work, "model_in_training", None)
    monkeypatch.setattr(round_work, "_models", None)
    for kind in ("train", "evaluate"):
        assert demand(kind)[0] == ReplyCode.DECLINED


def test_a_site_waits_for_new_cases(site, ask, add_cases, monkeypatch):
    add_cases(site.site, train=2)
    Site(site.site).change_settings(new_cases=2)
    update_status(site.status, trained_cases=1)
    monkeypatch.setattr(round_work, "model_in_training", None)
    reply, _ = ask("train")
    assert reply.error.reason == ReplyCode.DECLINED
    assert "1 new training cases" in SiteStatus.read(site.status).message


def test_a_round_that_is_asked_for_again_waits_for_no_more_cases(site, ask, add_cases, no_training):
    add_cases(site.site, train=2)
    Site(site.site).change_settings(new_cases=2)
    for _ in range(2):
        reply, _ = ask("train", number=3)
        assert reply.has_content()
    reply, _ = ask("train", number=4)
    assert reply.error.reason == ReplyCode.DECLINED


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyError])
def test_the_words_of_a_failure_never_leave(site, ask, monkeypatch, error, caplog):
    def fail(*_args, **_options):
        raise error("SMITH^JOHN in /home/anna")

    monkeypatch.setattr(round_work, "CaseStore", fail)
    reply, payload = ask("train")
    assert reply.error.reason == ReplyCode.FAILED
    assert b"SMITH" not in payload
    assert b"anna" not in payload
    assert SiteStatus.read(site.status).phase is Phase.ERROR
    assert "SMITH" in caplog.text, "the reason stays in this machine's log"


def test_nothing_is_sent_that_cannot_be_recorded(site, ask):
    site.audit.mkdir()
    with pytest.raises(Exception, match=r"^failed$"):
        ask("train")
