"""The client of a site's node: when it tries again, and when it does not."""

import os
import ssl
import time

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse
from flwr.supercore.retry.http_retry import make_simple_http_retry_invoker

from napari_fedsam.federation.persistent_client import persistent_client
from napari_fedsam.federation.site_files import SiteFiles


@pytest.fixture
def files(tmp_path):
    files = SiteFiles(tmp_path / "site")
    files.create()
    return files


def test_every_successful_exchange_is_remembered(files, monkeypatch):
    monkeypatch.setattr(
        "flwr.supercore.protobuf.client.ProtobufClient._unary_unary", lambda _self, **_kw: "answer"
    )
    client = persistent_client(files)("https://127.0.0.1:1")
    assert client._unary_unary(path="/") == "answer"
    assert not files.node.exists(), "before the coordinator accepts the node, it is not connected"
    files.node.write_text("{}")
    os.utime(files.node, (0, 0))
    client._unary_unary(path="/")
    assert files.node.stat().st_mtime > 0
    client.close()


@pytest.mark.parametrize(
    ("status", "error"), [(500, httpx.TransportError), (403, httpx.HTTPStatusError)]
)
def test_a_coordinator_in_trouble_is_as_one_that_is_away(files, status, error):
    client = persistent_client(files)("https://127.0.0.1:1")
    answer = httpx.MockTransport(lambda _request: httpx.Response(status))
    client._client = httpx.Client(transport=answer)
    with pytest.raises(error):
        client.GetRun(GetRunRequest(run_id=1))
    client.close()


def answering(*answers):
    """A transport that raises or returns one answer after the other, and what was asked."""
    asked = []

    def answer(request):
        asked.append(request)
        error, cause = answers[min(len(asked), len(answers)) - 1]
        if error is not None:
            raise error from cause
        return httpx.Response(200, content=GetRunResponse().SerializeToString())

    return httpx.MockTransport(answer), asked


@pytest.mark.parametrize("lost", [httpx.ReadError, httpx.WriteError])
def test_a_connection_that_is_cut_in_the_middle_is_tried_again(files, lost):
    cut = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    transport, asked = answering((lost(f"[SSL: UNEXPECTED_EOF] {cut}"), cut), (None, None))
    retry = make_simple_http_retry_invoker()
    client = persistent_client(files)("https://127.0.0.1:1", retry_invoker=retry)
    client._client = httpx.Client(transport=transport)
    client.GetRun(GetRunRequest(run_id=1))
    assert len(asked) == 2
    client.close()


def test_a_refused_certificate_is_not_tried_again(files):
    refused = ssl.SSLCertVerificationError("certificate verify failed")
    transport, asked = answering((httpx.ConnectError(f"[SSL] {refused}"), refused))
    retry = make_simple_http_retry_invoker()
    client = persistent_client(files)("https://127.0.0.1:1", retry_invoker=retry)
    client._client = httpx.Client(transport=transport)
    with pytest.raises(httpx.ConnectError):
        client.GetRun(GetRunRequest(run_id=1))
    assert len(asked) == 1
    client.close()


@pytest.mark.parametrize(
    ("age", "error"), [(5, httpx.TransportError), (600, httpx.HTTPStatusError)]
)
def test_a_node_after_a_killed_one_tries_again_until_that_is_given_up(files, age, error):
    files.node.write_text("{}")
    os.utime(files.node, (time.time() - age,) * 2)
    files.end_node()
    assert not files.node.exists()
    client = persistent_client(files)("https://127.0.0.1:1")
    refusal = httpx.MockTransport(lambda _request: httpx.Response(412))
    client._client = httpx.Client(transport=refusal)
    with pytest.raises(error):
        client.ActivateNode(ActivateNodeRequest())
    client.close()
