import json
import os
import time

import pytest

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import ensure_key_pair
from napari_fedsam.federation.node_report import connection_report, reason_of_end
from napari_fedsam.federation.site_state import Phase, SiteState
from napari_fedsam.federation.site_status import SiteStatus, progress_writer, update_status
from napari_fedsam.federation.sites import SiteList
from napari_fedsam.training.progress import Progress


def test_the_state_emits_each_change_once():
    state = SiteState()
    heard = []
    state.events.phase.connect(heard.append)
    state.phase = Phase.TRAINING
    state.phase = Phase.TRAINING
    assert heard == [Phase.TRAINING]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (SiteState(), "offline"),
        (SiteState(phase=Phase.TRAINING, progress=0.4), "training 40 %"),
        (SiteState(phase=Phase.WAITING, message="no matter"), "waiting for a round"),
        (SiteState(phase=Phase.ERROR, message="wrong certificate"), "error: wrong certificate"),
    ],
)
def test_the_state_in_words(state, words):
    assert state.words == words


def test_status_updates_keep_the_other_fields(tmp_path):
    path = tmp_path / "status.json"
    assert SiteStatus.read(path) == SiteStatus()
    update_status(path, rounds_joined=3, dice_history=((1, 0.5),))
    update_status(path, phase=Phase.TRAINING, progress=0.5)
    assert SiteStatus.read(path) == SiteStatus(
        phase=Phase.TRAINING, progress=0.5, rounds_joined=3, dice_history=((1, 0.5),)
    )


def test_a_foreign_status_file_reads_as_the_initial_status(tmp_path):
    path = tmp_path / "status.json"
    path.write_text('{"phase": "dancing"}')
    assert SiteStatus.read(path) == SiteStatus()


def test_progress_is_written_in_steps_and_ends_at_one(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    writes = []
    monkeypatch.setattr(
        "napari_fedsam.federation.site_status.update_status",
        lambda _path, progress: writes.append(progress),
    )
    write = progress_writer(path, step=0.25)
    for step in range(1001):
        write(Progress(step / 1000, None))
    assert writes == [0.0, 0.25, 0.5, 0.75, 1.0]


REASONS = {
    "[code: 2004] Failed to activate SuperNode.": "key.pub",
    "CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate": "prove who it is",
    "CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired": "renew",
    "CERTIFICATE_VERIFY_FAILED: Hostname mismatch, certificate is not valid for 'x'": "address",
    "CERTIFICATE_VERIFY_FAILED: IP address mismatch, certificate is not valid for '1'": "address",
    "[Errno 98] error while attempting to bind: address already in use": "join again",
    "FederationError: The start-up test failed: this Flower would run": "reinstall",
    "filelock._error.Timeout: The file lock '/x' could not be acquired.": "leave there first",
    "Exit Code: 606": "version of Flower",
}


@pytest.mark.parametrize("log", REASONS)
def test_the_reason_of_an_end_is_told_with_its_remedy(log):
    told = reason_of_end(log, was_connected=False, log_file="supernode.log")
    assert REASONS[log] in told


def test_an_unrequested_goodbye_means_that_access_was_ended():
    log = "SuperNode ID: 1\nSuperNode terminated gracefully."
    told = reason_of_end(log, was_connected=True, log_file="supernode.log")
    assert "ended this site's access" in told


def test_an_unknown_end_names_the_log():
    told = reason_of_end("?", was_connected=True, log_file="supernode.log")
    assert "supernode.log" in told


def test_a_connection_is_reported_only_while_it_is_heard_of(tmp_path):
    node = tmp_path / "node.json"
    assert "Connecting" in connection_report(node, "", "host:1", Phase.WAITING)
    assert "does not answer" in connection_report(
        node, "Connection attempt failed, retrying in 1 seconds", "host:1", Phase.WAITING
    )
    node.write_text("{}")
    assert connection_report(node, "", "host:1", Phase.WAITING) is None
    silent = time.time() - 40
    os.utime(node, (silent, silent))
    assert "has not answered for 40 s" in connection_report(node, "", "host:1", Phase.WAITING)
    assert connection_report(node, "", "host:1", Phase.TRAINING) is None


@pytest.fixture
def keys(tmp_path):
    texts = []
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        texts.append(ensure_key_pair(folder).read_text())
    return texts


def test_sites_are_approved_and_removed(tmp_path, keys):
    path = tmp_path / "sites.json"
    sites = SiteList(path)
    sites.add("Hospital A", keys[0])
    sites.add("Hospital A", keys[0] + " with a comment")
    sites.add("Hospital B", keys[1])
    assert [site.name for site in SiteList(path).sites()] == ["Hospital A", "Hospital B"]
    assert len(json.loads(path.read_text())["sites"]) == 2
    assert sites.remove("Hospital A").public_key in keys[0]
    assert [site.name for site in sites.sites()] == ["Hospital B"]
    assert sites.remove("Hospital A") == sites.revoked()[0]
    assert len(sites.revoked()) == 1
    with pytest.raises(FederationError, match="No site named"):
        sites.remove("Hospital C")


def test_names_and_keys_are_used_once(tmp_path, keys):
    sites = SiteList(tmp_path / "sites.json")
    sites.add("Hospital A", keys[0])
    for name, key in [("Hospital A", keys[1]), ("Hospital B", keys[0])]:
        with pytest.raises(FederationError, match="approved already"):
            sites.add(name, key)


@pytest.mark.parametrize("name", ["", " A", "../x", "A\n", "x" * 65])
def test_names_that_could_do_harm_are_refused(tmp_path, keys, name):
    with pytest.raises(FederationError, match="name"):
        SiteList(tmp_path / "sites.json").add(name, keys[0])
