"""Whole rounds with the real model and the real apps, without processes and network."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_fedsam.cases.store import CaseStore
from napari_fedsam.federation.audit import read_audit
from napari_fedsam.federation.client_app import app
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.in_process import InProcessGrid, payload_of
from napari_fedsam.federation.sent import open_sent
from napari_fedsam.federation.server_app import run_rounds
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.federation.site_status import SiteStatus
from napari_fedsam.training.evaluation import JUDGED_PROMPTS
from napari_fedsam.training.versions import VersionStore


@dataclasses.dataclass
class Played:
    """One round of two sites, and every byte that left them."""

    coordinator: Coordinator
    sites: dict[int, SiteFiles]
    sent: list[tuple[int, bytes]]


@pytest.fixture(scope="module")
def played(tmp_path_factory, recipe, add_cases, planted):
    coordinator = Coordinator(tmp_path_factory.mktemp("coordinator"))
    coordinator.init(recipe)
    sites = {}
    for node in (2, 3):
        sites[node] = SiteFiles(tmp_path_factory.mktemp("ward-of-prof-planted"))
        coordinator.invite(f"Hospital {node}").install(sites[node])
        add_cases(sites[node].site, seed=node, **planted)
    sent = []
    grid = InProcessGrid(
        app,
        {node: files.site for node, files in sites.items()},
        sent=lambda node, payload: sent.append((node, payload)),
    )
    run_rounds(grid, coordinator.folder, 1)
    return Played(coordinator, sites, sent)


def test_every_site_holds_the_aggregated_shared_parameters(played, start, newest_version):
    (result,) = played.coordinator.results()
    assert (result.aggregated, result.updates, result.cases) == (True, 2, 4)
    aggregated = load_file(played.coordinator.folder / "rounds" / "0001" / "shared.safetensors")
    shared, _ = start
    assert any(not torch.equal(aggregated[name], shared[name]) for name in shared)
    for files in played.sites.values():
        kept = load_file(newest_version(files) / "shared.safetensors")
        assert kept.keys() == aggregated.keys()
        assert all(torch.equal(kept[name], aggregated[name]) for name in kept)


def test_local_parameters_are_trained_and_each_sites_own(played, start, newest_version):
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


@pytest.fixture(scope="module")
def traces(played, planted, newest_version):
    """Whatever of the sites must never be found in a message, by node and name."""
    return {
        node: traces_of(files, newest_version(files), planted)
        for node, files in played.sites.items()
    }


def traces_of(files, version, planted):
    traces = {text: text.encode() for text in (*planted.values(), "ward-of-prof-planted")}
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
    for name, values in load_file(version / "local.safetensors").items():
        traces[f"local parameter {name}"] = name.encode()
        if values.numel() >= 8 and values.any():
            traces[f"values of {name}"] = values.numpy().tobytes()
    traces["private key"] = b"PRIVATE KEY"
    return traces


def test_nothing_of_a_patient_an_image_or_a_local_parameter_is_sent(played, traces):
    assert len(played.sent) == 4
    for node, payload in played.sent:
        found = [name for name, trace in traces[node].items() if trace in payload]
        assert found == []


def test_the_search_finds_each_trace_where_it_is(played, traces):
    traces = traces[2]
    payload = played.sent[0][1] + b"".join(traces.values())
    assert [name for name, trace in traces.items() if trace not in payload] == []
    assert sum(name.startswith("pixels") for name in traces) == 9
    assert sum(name.startswith("values of") for name in traces) > 0
