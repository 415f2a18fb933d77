"""Whole rounds with the real model and the real apps, without processes and network."""

import dataclasses
import datetime

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from safetensors.torch import load_file

from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.federation import machine_load, room, round_work
from napari_fedsam.federation.audit import read_audit
from napari_fedsam.federation.between_messages import keep_tensors
from napari_fedsam.federation.client_app import app
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.errors import ReplyCode
from napari_fedsam.federation.in_process import InProcessGrid, payload_of
from napari_fedsam.federation.messages import config_record
from napari_fedsam.federation.packed_parameters import (
    digest_of,
    pack_parameters,
    unpack_parameters,
)
from napari_fedsam.federation.privacy_ledger import PrivacyLedger
from napari_fedsam.federation.sent import open_sent
from napari_fedsam.federation.server_app import run_rounds
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.federation.site_status import SiteStatus, update_status
from napari_fedsam.personalization.federation_options import FederationOptions, PrivacyOptions
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.training import new_version
from napari_fedsam.training.evaluation import JUDGED_PROMPTS, Evaluation, ImageResult
from napari_fedsam.training.local_update import LocalUpdate
from napari_fedsam.training.update_rounding import expand_update
from napari_fedsam.training.versions import VersionStore

_NOTHING_DONE = LocalUpdate(samples=2, steps=0, loss=0.0, losses=(), seconds=0.0)
PLANTED = {
    "scan_key": "SCAN-1.2.840.4711",
    "patient_key": "SMITH^JOHN",
    "annotator": "Dr Planted",
}


@dataclasses.dataclass
class Played:
    """One round of two sites, and every byte that left them."""

    coordinator: Coordinator
    sites: dict[int, SiteFiles]
    sent: list[tuple[int, bytes]]


@pytest.fixture(scope="module")
def played(tmp_path_factory, recipe, add_cases):
    coordinator = Coordinator(tmp_path_factory.mktemp("coordinator"))
    coordinator.init(recipe)
    sites = {}
    for node in (2, 3):
        sites[node] = SiteFiles(tmp_path_factory.mktemp("ward-of-prof-planted"))
        coordinator.invite(f"Hospital {node}").install(sites[node])
        add_cases(sites[node].site, seed=node, **PLANTED)
    sent = []
    grid = InProcessGrid(
        app,
        {node: files.site for node, files in sites.items()},
        sent=lambda node, payload: sent.append((node, payload)),
    )
    run_rounds(grid, coordinator.folder, 1)
    return Played(coordinator, sites, sent)


def newest_version(files):
    return files.versions / f"{VersionStore(files.versions).versions()[-1].number:04d}"


def test_every_site_holds_the_aggregated_shared_parameters(played, start):
    (result,) = played.coordinator.results()
    assert (result.aggregated, result.updates, result.cases) == (True, 2, 4)
    aggregated = load_file(played.coordinator.folder / "rounds" / "0001" / "shared.safetensors")
    shared, _ = start
    assert any(not torch.equal(aggregated[name], shared[name]) for name in shared)
    for files in played.sites.values():
        kept = load_file(newest_version(files) / "shared.safetensors")
        assert kept.keys() == aggregated.keys()
        assert all(torch.equal(kept[name], aggregated[name]) for name in kept)


def test_local_parameters_are_trained_and_each_sites_own(played, start):
    _, local = start
    one, other = [
        load_file(newest_version(files) / "local.safetensors") for files in played.sites.values()
    ]
    assert local.keys() == one.keys() == other.keys() != set()
    assert any(not torch.equal(one[name], local[name]) for name in local)
    assert any(not torch.equal(one[name], other[name]) for name in local)
    assert not any(files.pending.exists() for files in played.sites.values())


def test_the_status_tells_what_came_of_the_round(played):
    for files in played.sites.values():
        status = SiteStatus.read(files.status)
        assert status.phase is Phase.UP_TO_DATE
        assert (status.round, status.rounds_joined) == (1, 1)
        (judged,) = status.dice_history
        (version,) = VersionStore(files.versions).versions()
        mean = np.mean([version.dice[kind] for kind in JUDGED_PROMPTS])
        assert judged == (1, pytest.approx(mean))


def test_the_audit_log_lists_exactly_what_was_sent(played):
    for node, files in played.sites.items():
        payloads = [payload for sender, payload in played.sent if sender == node]
        lines = read_audit(files.audit)
        assert [line.bytes for line in lines] == [len(payload) for payload in payloads]
        assert [(line.round, line.purpose) for line in lines] == [(1, "train"), (1, "evaluate")]


def test_what_is_kept_of_a_message_is_what_was_sent(played):
    for node, files in played.sites.items():
        payloads = [payload for sender, payload in played.sent if sender == node]
        for line, payload in zip(read_audit(files.audit), payloads, strict=True):
            assert payload_of(open_sent(files.sent, line)) == payload


def traces_of(files):
    """Whatever of a site must never be found in a message, by name."""
    traces = {text: text.encode() for text in (*PLANTED.values(), "ward-of-prof-planted")}
    traces["folder"] = str(files.site).encode()
    store = CaseStore(files.cases)
    for record in store.records():
        case = store.load(record.id)
        traces[f"id of {record.id}"] = record.id.encode()
        traces[f"pseudonym of {record.id}"] = record.patient.encode()
        middle = case.image[len(case.image) // 2]
        for kind in ("uint8", "float32", "float16"):
            traces[f"pixels of {record.id} as {kind}"] = middle[:16].astype(kind).tobytes()
        traces[f"mask of {record.id}"] = case.mask.tobytes()
    for name, values in load_file(newest_version(files) / "local.safetensors").items():
        traces[f"local parameter {name}"] = name.encode()
        if values.numel() >= 8 and values.any():
            traces[f"values of {name}"] = values.numpy().tobytes()
    traces["private key"] = b"PRIVATE KEY"
    return traces


def test_nothing_of_a_patient_an_image_or_a_local_parameter_is_sent(played):
    assert len(played.sent) == 4
    for node, payload in played.sent:
        found = [name for name, trace in traces_of(played.sites[node]).items() if trace in payload]
        assert found == []


def test_the_search_finds_each_trace_where_it_is(played):
    traces = traces_of(played.sites[2])
    payload = played.sent[0][1] + b"".join(traces.values())
    assert [name for name, trace in traces.items() if trace not in payload] == []
    assert sum(name.startswith("pixels") for name in traces) == 9
    assert sum(name.startswith("values of") for name in traces) > 0


# One site, one message at a time -----------------------------------------------------------------


@pytest.fixture
def site(tmp_path, recipe):
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe)
    files = SiteFiles(tmp_path / "site")
    coordinator.invite("a site").install(files)
    return files


@pytest.fixture(scope="module")
def start(recipe):
    """The shared and the local parameters before any training."""
    model = build_personalised_model(recipe)
    return model.shared_state(), model.local_state()


@pytest.fixture
def ask(site, recipe, start):
    """Return a function that sends the site an instruction and returns its reply and bytes."""
    sent = []
    grid = InProcessGrid(app, {2: site.site}, sent=lambda _node, payload: sent.append(payload))

    def ask(kind: str, *, recipe_hash: str = recipe.hash, number: int = 1) -> Message:
        content = RecordDict(
            {"shared": pack_parameters(start[0]), "config": config_record(recipe_hash, number)}
        )
        (reply,) = grid.send_and_receive([grid.create_message(content, kind, 2, str(number))])
        return reply, sent[-1]

    return ask


def aggregate_of(site):
    """The shared parameters that the site received last."""
    return load_file(newest_version(site) / "shared.safetensors")


def test_a_site_trains_on_from_what_it_has_judged(site, recipe, ask, add_cases, monkeypatch):
    add_cases(site.site)
    ask("train")
    ask("evaluate")
    started = []
    monkeypatch.setattr(
        round_work,
        "local_update",
        lambda model, *_, **__: started.append(model.shared_state()) or _NOTHING_DONE,
    )
    grid = InProcessGrid(app, {2: site.site})

    def answer(shared):
        content = {"config": config_record(recipe.hash, 2, digest=digest_of(shared))}
        message = grid.create_message(RecordDict(content), "train", 2, "2")
        (reply,) = grid.send_and_receive([message])
        return reply

    judged = aggregate_of(site)
    assert not answer(judged).has_error()
    assert digest_of(started.pop()) == digest_of(judged)
    other = {name: value + 1 for name, value in judged.items()}
    assert answer(other).error.reason == ReplyCode.PARAMETERS_MISSING
    assert not started
    status = SiteStatus.read(site.status)
    assert status.phase is Phase.WAITING
    assert "it asked for them" in status.message


@pytest.fixture
def demand(site, recipe, start, add_cases):
    """Return a function that sends the site any content and returns the code and the bytes."""
    add_cases(site.site, **PLANTED)
    sent = []
    grid = InProcessGrid(app, {2: site.site}, sent=lambda _node, payload: sent.append(payload))

    def demand(kind, **records):
        content = {
            "shared": pack_parameters(start[0]),
            "config": config_record(recipe.hash, 1),
            **records,
        }
        message = grid.create_message(RecordDict(content), kind, 2, "1")
        (reply,) = grid.send_and_receive([message])
        return reply.error.reason, sent[-1]

    return demand


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
def test_a_query_is_refused(site, demand):
    code, payload = demand("query")
    assert code == ReplyCode.REFUSED_REQUEST
    assert not any(text.encode() in payload for text in PLANTED.values())
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


def test_a_round_goes_on_without_the_judgement_of_a_site_that_was_paused_in_it(
    tmp_path, recipe, add_cases, monkeypatch
):
    monkeypatch.setattr(round_work, "local_update", lambda *_, **__: _NOTHING_DONE)
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


def test_a_site_waits_for_new_cases(site, ask, add_cases, monkeypatch):
    add_cases(site.site, train=2)
    Site(site.site).change_settings(new_cases=2)
    update_status(site.status, trained_cases=1)
    monkeypatch.setattr(round_work, "model_in_training", None)
    reply, _ = ask("train")
    assert reply.error.reason == ReplyCode.DECLINED
    assert "1 new training cases" in SiteStatus.read(site.status).message


def test_a_round_that_is_asked_for_again_waits_for_no_more_cases(site, ask, add_cases, monkeypatch):
    add_cases(site.site, train=2)
    Site(site.site).change_settings(new_cases=2)
    monkeypatch.setattr(round_work, "local_update", lambda *_args, **_options: _NOTHING_DONE)
    for _ in range(2):
        reply, _ = ask("train", number=3)
        assert reply.has_content()
    reply, _ = ask("train", number=4)
    assert reply.error.reason == ReplyCode.DECLINED


def test_a_site_with_noise_of_its_own_sends_no_exact_update(
    site, ask, recipe, add_cases, monkeypatch
):
    add_cases(site.site)
    asked = []
    monkeypatch.setattr(
        round_work,
        "privatise",
        lambda _trained, received, options: (asked.append(options), received)[1],
    )
    privacy = PrivacyOptions(noise="local", clipping_norm=1, noise_multiplier=1)
    noisy = recipe.model_copy(update={"federation": FederationOptions(privacy=privacy)})
    noisy.write(site.recipe)
    reply, _ = ask("train", recipe_hash=noisy.hash)
    assert reply.has_content()
    assert asked == [privacy]
    assert PrivacyLedger.read(site.privacy_ledger).updates == {noisy.hash: 1}


@pytest.mark.parametrize("ledger", ['{"updates": {"HASH": 3}}', '{"updates": {"HASH": -1}}', "{"])
def test_a_site_makes_no_more_updates_with_noise_than_it_agreed_to(
    site, ask, recipe, add_cases, monkeypatch, ledger
):
    add_cases(site.site)
    privacy = PrivacyOptions(noise="local", clipping_norm=1, noise_multiplier=1)
    federation = FederationOptions(privacy=privacy)
    noisy = recipe.model_copy(update={"federation": federation, "rounds": 3})
    noisy.write(site.recipe)
    site.privacy_ledger.write_text(ledger.replace("HASH", noisy.hash))
    monkeypatch.setattr(round_work, "model_in_training", None)
    reply, _ = ask("train", recipe_hash=noisy.hash)
    assert reply.error.reason == ReplyCode.PRIVACY_SPENT
    status = SiteStatus.read(site.status)
    assert status.phase is Phase.WAITING
    assert "with noise" in status.message


def test_a_rounded_update_is_what_training_changed_and_the_rest_comes_later(
    site, ask, recipe, start, add_cases
):
    add_cases(site.site)
    exact, exact_payload = ask("train")
    rounding = recipe.model_copy(update={"federation": FederationOptions(precision="int8")})
    rounding.write(site.recipe)
    coarse, coarse_payload = ask("train", recipe_hash=rounding.hash)
    assert len(coarse_payload) < 0.35 * len(exact_payload)

    def arrays(reply):
        return unpack_parameters(reply.content.array_records["shared"])

    arrived, trained = expand_update(arrays(coarse)), arrays(exact)
    left_over = load_file(site.left_over)
    for name, before in start[0].items():
        wanted = trained[name] - before
        # The steps of training are the same to the last bits only.
        torch.testing.assert_close(arrived[name] + left_over[name], wanted, rtol=1e-3, atol=1e-5)


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


def test_a_site_without_a_recipe_takes_no_part(site, ask):
    site.recipe.unlink()
    reply, _ = ask("train")
    assert reply.error.reason == ReplyCode.NOT_IN_FEDERATION


def test_nothing_is_sent_that_cannot_be_recorded(site, ask):
    site.audit.mkdir()
    with pytest.raises(Exception, match=r"^failed$"):
        ask("train")


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
    site, judged, recipe, start, trained_in, monkeypatch
):
    # What the site then fits to the new shared parameters would hide what it started from.
    monkeypatch.setattr(round_work, "local_update", lambda *_, **__: None)
    _, state = start
    trained = {name: value + 1 for name, value in state.items()}
    keep_tensors(site.pending, trained, trained_in, recipe.hash)
    judged(0.0, 0.5, number=1)
    kept = load_file(newest_version(site) / "local.safetensors")
    expected = trained if trained_in == 1 else state
    assert all(torch.equal(kept[name], expected[name]) for name in expected)
