"""Each test patches Flower in this process, so the patched modules are put back afterwards."""

import contextlib
import importlib

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from napari_fedsam.federation.audit import read_audit
from napari_fedsam.federation.bundle import build_bundle, bundle_hash
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.node_guard import NodeGuard
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.federation.site_status import SiteStatus, update_status

LOOP = importlib.import_module("flwr.supernode.start_client_internal")
TRANSPORT = importlib.import_module("flwr.supernode.fleet_http_connection")


@pytest.fixture
def files(tmp_path):
    files = SiteFiles(tmp_path / "site")
    files.create()
    return files


@pytest.fixture
def guard(files, monkeypatch):
    for name in ("_pull_and_store_message", "_verify_fab", "http_request_response"):
        monkeypatch.setattr(LOOP, name, getattr(LOOP, name))
    monkeypatch.setattr(TRANSPORT, "FleetHttpClient", TRANSPORT.FleetHttpClient)
    return NodeGuard(files, bundle_hash())


def test_the_guarded_node_passes_its_self_test(guard):
    guard.install()
    guard.self_test()


def test_the_self_test_fails_loudly_when_bundles_are_not_checked(guard):
    with pytest.raises(FederationError, match="start-up test failed"):
        guard.self_test()


def test_the_self_test_fails_when_the_check_accepts_everything(guard, monkeypatch):
    guard.install()
    monkeypatch.setattr(LOOP, "_verify_fab", lambda _fab, _entities: True)
    with pytest.raises(FederationError, match="start-up test failed"):
        guard.self_test()


@pytest.mark.parametrize("name", ["_verify_fab", "_pull_and_store_message"])
def test_another_flower_is_refused_before_anything_starts(guard, monkeypatch, name):
    monkeypatch.delattr(LOOP, name)
    with pytest.raises(FederationError, match=name):
        guard.install()


def test_only_the_pinned_bundle_passes_in_whatever_way_it_is_announced(guard):
    pinned, good, tampered = bundle_hash(), build_bundle(), build_bundle() + b"\0"
    asked = []

    def get_fab(fab_hash, _run_id):
        asked.append(fab_hash)
        return Fab(fab_hash, served, {})

    checked = guard._checked_bundles(get_fab)
    served = good
    assert guard._is_pinned(checked(pinned, 1), {})
    served = tampered
    assert not guard._is_pinned(checked(pinned, 1), {})
    assert not guard._is_pinned(checked("b" * 64, 1), {})
    assert asked == [pinned, pinned], "a bundle under another hash is not even downloaded"


def test_a_refused_bundle_is_told_to_the_user(guard, files):
    guard._checked_bundles(lambda _hash, _run: None)("b" * 64, 1)
    status = SiteStatus.read(files.status)
    assert status.phase is Phase.ERROR
    assert "refused" in status.message


class Wire:
    """Takes the place of the connection; keeps what would leave the machine."""

    def __init__(self):
        self.sent = []
        self.pushed = {}

    def send(self, message, tree, _seconds):
        self.sent.append(message)
        return {tree.object_id}, "session"

    def push(self, _run, _session, object_id, content):
        self.pushed[object_id] = content


@pytest.fixture
def instruction():
    grid = InProcessGrid(lambda message, _context: message, {})
    message = grid.create_message(RecordDict(), "train", 2, "1")
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def send_through(guard, reply):
    wire = Wire()
    reply.metadata.__dict__["_message_id"] = reply.object_id
    guard._coded_errors(wire.send, wire.push)(reply, get_object_tree(reply), 1.0)
    return wire


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "failed"),
        (ErrorCode.CLIENT_APP_CRASHED, "failed"),
        (ErrorCode.INVALID_FAB, "refused-bundle"),
    ],
)
def test_what_flower_says_about_a_failure_leaves_as_a_code(guard, files, instruction, code, told):
    reason = "<class 'OSError'>:<'No space left: /home/anna/SMITH^JOHN.dcm'>"
    wire = send_through(guard, Message(Error(code, reason), reply_to=instruction))
    (sent,) = wire.sent
    assert (sent.error.code, sent.error.reason) == (code, told)
    assert sent.metadata.reply_to_message_id == instruction.metadata.message_id
    (content,) = wire.pushed.values()
    assert Message.inflate(content).error.reason == told
    assert b"SMITH" not in content
    assert b"anna" not in content
    (line,) = read_audit(files.audit)
    assert (line.error, line.sha256) == (told, sent.object_id)


def test_our_own_codes_and_contents_pass_unchanged(guard, files, instruction):
    for reply in (
        Message(Error(100, "too-few-cases"), reply_to=instruction),
        Message(RecordDict(), reply_to=instruction),
    ):
        wire = send_through(guard, reply)
        assert wire.sent == [reply]
        assert wire.pushed == {}
    assert read_audit(files.audit) == []


def test_asking_for_the_next_message_means_that_the_update_has_left(guard, files):
    update_status(files.status, phase=Phase.SENDING)
    assert guard._polling(lambda: "next")() == "next"
    assert SiteStatus.read(files.status).phase is Phase.WAITING


def test_an_update_that_was_not_handed_over_is_not_said_to_be_sent(guard, files, instruction):
    @contextlib.contextmanager
    def connection():
        def push(_run, _session, _object, _content):
            raise ObjectPushError("object", 1, "session")

        def send(_message, _tree, _seconds):
            return {"object"}, "session"

        yield (1, lambda: None, send, None, None, None, push, None)

    reply = Message(RecordDict(), reply_to=instruction)
    with guard._guarded(connection)() as (_, receive, send, _, _, _, push, _):
        send(reply, None, 1.0)
        update_status(files.status, phase=Phase.SENDING, message="Sending")
        with pytest.raises(ObjectPushError):
            push(1, "session", "object", b"")
        receive()
    status = SiteStatus.read(files.status)
    assert status.phase is Phase.WAITING
    assert "this round goes on without this site" in status.message


def test_what_cannot_be_recorded_does_not_leave_and_the_node_goes_on(guard, files, instruction):
    files.audit.mkdir()
    wire = send_through(guard, Message(Error(1, "crashed"), reply_to=instruction))
    assert (wire.sent, wire.pushed) == ([], {})
