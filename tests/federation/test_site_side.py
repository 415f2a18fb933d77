"""What a site's user meets beside joining: the connection test, settings, and what was sent."""

import datetime
import email.utils
import http.server
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict

from napari_fedsam.federation import connection_test, machine_load, sent
from napari_fedsam.federation.audit import append_audit, describe_message
from napari_fedsam.federation.certificates import create_certificates
from napari_fedsam.federation.connection_test import ConnectionTest
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.in_process import stand_in_for_a_run
from napari_fedsam.federation.messages import config_record
from napari_fedsam.federation.packed_parameters import pack_parameters
from napari_fedsam.federation.sent import arrays_of, is_kept, keep_sent, open_sent
from napari_fedsam.federation.site import Site


@pytest.fixture
def coordinator(tmp_path, recipe):
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe)
    return coordinator


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


# The connection test ------------------------------------------------------------------------------


@pytest.fixture
def serve(monkeypatch):
    """Return a function that serves TLS on loopback and returns the port.

    `late` sets its clock, `answer` is its status for whatever is posted.
    """
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    servers = []

    def serve(files, late=0.0, answer=412):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response_only(404 if self.command == "GET" else answer)
                now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=late)
                self.send_header("Date", email.utils.format_datetime(now, usegmt=True))
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.server, files.server_key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return server.server_address[1]

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def failed(site):
    checks = list(site.test_connection())
    assert all(check.passed for check in checks[:-1] if check.name not in ("Recipe", "App"))
    return checks[-1]


@pytest.fixture
def invited(site, coordinator, invite):
    def invited(**changes):
        site.import_invitation(invite(coordinator, **changes))
        return site

    return invited


def test_a_name_that_is_not_known(invited, monkeypatch):
    def unknown(*_args, **_options):
        raise socket.gaierror

    monkeypatch.setattr(connection_test.socket, "getaddrinfo", unknown)
    check = failed(invited(address="no-such-host.invalid:9443"))
    assert (check.name, check.passed) == ("Name", False)
    assert "no-such-host.invalid is not known here" in check.words


def test_a_port_where_nothing_listens(invited):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        check = failed(invited(address=f"127.0.0.1:{probe.getsockname()[1]}"))
    assert (check.name, check.passed) == ("Port", False)
    assert "nothing listens there" in check.words


def test_another_authority(invited, serve, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    port = serve(create_certificates(other, "Other", []))
    check = failed(invited(address=f"127.0.0.1:{port}"))
    assert check.name == "Certificate"
    assert "could not prove who it is" in check.words


def test_a_certificate_for_another_name(invited, serve, coordinator, monkeypatch):
    from napari_fedsam.federation import certificates

    monkeypatch.setattr(certificates, "_LOOPBACK", ())
    files = create_certificates(coordinator.folder, "Test disc", ["fed.example"])
    check = failed(invited(address=f"127.0.0.1:{serve(files)}"))
    assert check.name == "Certificate"
    assert "made for another address" in check.words


def test_an_expired_certificate(invited, serve, coordinator, monkeypatch):
    from napari_fedsam.federation import certificates

    monkeypatch.setattr(certificates, "_CLOCK_TOLERANCE", datetime.timedelta(days=30))
    files = create_certificates(coordinator.folder, "Test disc", [], valid_days=-5)
    check = failed(invited(address=f"127.0.0.1:{serve(files)}"))
    assert check.name == "Certificate"
    assert "has expired" in check.words


@pytest.mark.parametrize("late", [3600, -30])
def test_a_clock_that_is_wrong(invited, serve, coordinator, late):
    port = serve(coordinator._certificates, late=late)
    check = failed(invited(address=f"127.0.0.1:{port}"))
    assert check.name == "Clock"
    assert "The clocks differ by 3" in check.words


def test_a_clock_that_is_a_little_late_is_no_matter(invited, serve, coordinator):
    port = serve(coordinator._certificates, late=200)
    assert failed(invited(address=f"127.0.0.1:{port}")).name == "Key"


def test_a_key_that_is_not_known(invited, serve, coordinator):
    port = serve(coordinator._certificates)
    check = failed(invited(address=f"127.0.0.1:{port}"))
    assert check.name == "Key"
    assert "does not know this site's key" in check.words


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (500, "is in trouble (HTTP 500)"),
        (502, "is in trouble (HTTP 502)"),
        (401, "refused to look for this site's key"),
    ],
)
def test_a_coordinator_in_trouble_is_not_one_that_refuses_the_key(
    invited, serve, coordinator, answer, words
):
    port = serve(coordinator._certificates, answer=answer)
    check = failed(invited(address=f"127.0.0.1:{port}"))
    assert check.name == "Key"
    assert words in check.words
    assert "for approval" not in check.words


def test_a_key_that_is_refused_soon_after_a_killed_node_may_be_known_all_the_same(
    invited, serve, coordinator
):
    site = invited(address=f"127.0.0.1:{serve(coordinator._certificates)}")
    site.files.node.write_text("{}")
    site.files.end_node()
    assert "try again in two minutes" in failed(site).words
    long_ago = time.time() - 600
    os.utime(site.files.last_node, (long_ago, long_ago))
    assert "for approval" in failed(site).words


def test_another_app_is_told_and_the_rest_is_tested_all_the_same(invited, serve, coordinator):
    port = serve(coordinator._certificates)
    site = invited(address=f"127.0.0.1:{port}", bundle_sha256="0" * 64)
    checks = {check.name: check for check in site.test_connection()}
    assert not checks["App"].passed
    assert "another version" in checks["App"].words
    assert checks["Recipe"].passed
    assert checks["Clock"].passed


def test_a_site_that_takes_part_is_not_disturbed(invited, serve, coordinator):
    site = invited(address=f"127.0.0.1:{serve(coordinator._certificates)}")
    _ = site.public_key
    *_, check = ConnectionTest(site.files, joined=True).steps()
    assert (check.name, check.passed) == ("Key", True)
    assert "is in use" in check.words


def test_without_an_invitation_there_is_nothing_to_test(site):
    with pytest.raises(FederationError, match="no invitation"):
        list(site.test_connection())


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "clock", "new", "words"),
    [
        ({}, "12:00", 0, ""),
        ({"paused": True}, "12:00", 9, "paused"),
        ({"hours": "22:00-06:00"}, "12:00", 9, "trains between 22:00-06:00"),
        ({"hours": "22:00-06:00"}, "23:00", 9, ""),
        ({"new_cases": 3}, "12:00", 2, "waits for 3"),
        ({"new_cases": 3}, "12:00", 3, ""),
        ({"when_idle": True}, "12:00", 0, "Other programs use 40% of"),
    ],
)
def test_a_site_declines_rounds_as_its_user_wants(site, settings, clock, new, words):
    changed = site.change_settings(**settings)
    assert site.settings == changed
    reason = changed.declines(datetime.time.fromisoformat(clock), new, lambda: 0.4)
    assert words in reason
    assert bool(words) == bool(reason)


def test_an_idle_computer_declines_nothing(site):
    settings = site.change_settings(when_idle=True)
    assert settings.declines(datetime.time(12), 0, lambda: 0.1) == ""


def test_a_computer_is_busy_while_programs_compute(monkeypatch):
    monkeypatch.setattr(machine_load, "_SECONDS", 0.5)
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(psutil.cpu_count())
    ]
    try:
        assert machine_load.machine_load() > 0.5
    finally:
        for each in busy:
            each.kill()
            each.wait()


@pytest.mark.parametrize(
    "change", [{"hours": "at night"}, {"threads": 0}, {"new_cases": -1}, {"colour": "red"}]
)
def test_a_setting_that_cannot_be_is_refused_and_nothing_changes(site, change):
    site.change_settings(threads=3)
    (name,) = change
    with pytest.raises(FederationError, match=f"The setting {name} cannot be"):
        site.change_settings(**change)
    assert site.settings.threads == 3


def test_damaged_settings_are_told(site):
    site.files.settings.write_text("{")
    with pytest.raises(FederationError, match=r"settings\.json are damaged"):
        _ = site.settings


# What was sent ------------------------------------------------------------------------------------


def message(value=1.0):
    stand_in_for_a_run()
    content = {
        "shared": pack_parameters({"w": torch.full((2, 3), value)}),
        "metrics": MetricRecord({"loss": 0.5}),
        "config": config_record("a" * 64, 1),
    }
    return Message(RecordDict(content), 2, "train")


def recorded(site, *values):
    for value in values:
        made = message(value)
        keep_sent(site.files.sent, made)
        append_audit(site.files.audit, describe_message(made, 1))
    return site.audit()


def test_what_was_sent_can_be_opened_and_is_the_exact_message(site):
    one, other = recorded(site, 1.5, 2.5)
    assert np.array_equal(
        arrays_of(open_sent(site.files.sent, one))["w"], np.full((2, 3), 1.5, np.float32)
    )
    opened = open_sent(site.files.sent, other)
    assert opened.object_id == other.sha256
    assert opened.content["metrics"]["loss"] == 0.5


def test_a_kept_message_that_was_changed_is_not_shown_as_sent(site):
    (line,) = recorded(site, 1.0)
    path = site.files.sent / f"{line.sha256}.zip"
    content = path.read_bytes()
    position = content.index(np.float32(1.0).tobytes() * 6)
    path.write_bytes(content[:position] + np.float32(2.0).tobytes() + content[position + 4 :])
    with pytest.raises(FederationError, match="is damaged|was changed"):
        open_sent(site.files.sent, line)


def test_only_the_last_messages_are_kept(site, monkeypatch):
    monkeypatch.setattr(sent, "_KEPT", 2)
    lines = recorded(site, 1.0, 2.0, 3.0)
    assert [is_kept(site.files.sent, line) for line in lines] == [False, True, True]
    with pytest.raises(FederationError, match="no longer kept"):
        open_sent(site.files.sent, lines[0])
