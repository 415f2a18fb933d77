"""A SuperLink that is busy is waited for. Patched modules are put back after each test."""

import importlib
import sqlite3

import httpx
import pytest
from flwr.proto.control_pb2 import ListNodesResponse
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.retry import make_simple_http_retry_invoker

from napari_fedsam.federation import control
from napari_fedsam.federation.control import Control
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.patience import be_patient

DATABASE = importlib.import_module("flwr.supercore.sql_mixin")
RETRY = importlib.import_module("flwr.supercore.retry.http_retry")


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    monkeypatch.setattr(DATABASE, "SQLITE_PRAGMAS", DATABASE.SQLITE_PRAGMAS)
    monkeypatch.setattr(RETRY, "_RETRYABLE_STATUS_CODES", RETRY._RETRYABLE_STATUS_CODES)


def test_a_locked_database_is_waited_for_nearly_as_long_as_flowers_clients_wait():
    be_patient()
    connection = sqlite3.connect(":memory:")
    DATABASE._set_sqlite_pragmas(connection, None)
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (25_000,)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize(("status", "asked_again"), [(500, True), (503, True), (404, False)])
def test_an_internal_error_is_no_reason_to_give_up(status, asked_again):
    be_patient()
    request = httpx.Request("POST", "https://127.0.0.1:1")
    error = httpx.HTTPStatusError("", request=request, response=httpx.Response(status))
    assert make_simple_http_retry_invoker().should_giveup(error) != asked_again


@pytest.mark.parametrize(
    ("module", "name"), [(DATABASE, "SQLITE_PRAGMAS"), (RETRY, "_RETRYABLE_STATUS_CODES")]
)
def test_another_flower_is_refused(monkeypatch, module, name):
    monkeypatch.delattr(module, name)
    with pytest.raises(FederationError, match=name):
        be_patient()


@pytest.fixture
def answering(monkeypatch):
    """Return a function that makes a Control whose SuperLink answers with these codes in turn."""
    monkeypatch.setattr(control, "_PAUSE_SECONDS", 0.0)
    client = ControlHttpClient("https://127.0.0.1:1")
    client._client.close()

    def answer_with(*codes):
        left = list(codes)
        content = ListNodesResponse().SerializeToString()
        transport = httpx.MockTransport(lambda _: httpx.Response(left.pop(0), content=content))
        client._client = httpx.Client(transport=transport)
        return Control(client)

    yield answer_with
    client.close()


def test_the_coordinator_asks_again_after_an_internal_error(answering):
    assert answering(500, 500, 200).nodes() == []
    with pytest.raises(httpx.HTTPStatusError):
        answering(*[500] * 20).nodes()
    with pytest.raises(httpx.HTTPStatusError):
        answering(403, 200).nodes()
