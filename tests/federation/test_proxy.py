"""nginx before a real SuperLink, looked at from outside with the federation's CA in hand."""

import shutil
import socket
import ssl

import httpx
import pytest
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.site import Site

pytestmark = [
    pytest.mark.federation,
    pytest.mark.skipif(
        shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/bin") is None,
        reason="nginx is not installed",
    ),
]


def free_ports():
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory, recipe):
    outside, inside = free_ports()
    coordinator = Coordinator(tmp_path_factory.mktemp("a coordinator's folder"))
    reach = Reach("127.0.0.1", outside, proxy="nginx", superlink_port=inside, listen="127.0.0.1")
    coordinator.init(recipe, reach)
    coordinator.start()
    yield coordinator
    coordinator.stop()


@pytest.fixture(scope="module")
def authority(coordinator):
    return coordinator.folder / "ca.pem"


@pytest.fixture(scope="module")
def outside(coordinator, authority):
    trust = ssl.create_default_context(cafile=str(authority))
    base = f"https://{coordinator.settings.address}"
    with httpx.Client(base_url=base, verify=trust, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def inside(coordinator, authority):
    trust = ssl.create_default_context(cafile=str(authority))
    base = f"https://{coordinator.settings.local_address}"
    with httpx.Client(base_url=base, verify=trust, trust_env=False) as client:
        yield client


ROUTES = [
    "/v1/control/list-nodes",
    "/v1/control/start-run",
    "/v1/runtime/pull-messages",
    "/v1/runtime/get-nodes",
    "/docs",
    "/openapi.json",
    "/redoc",
    "/",
    "/v1/fleet/../control/list-nodes",
    "/v1/fleet/%2e%2e/control/list-nodes",
    "/v1//control/list-nodes",
    "/v1/fleet",
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_the_fleet_routes_are_exposed(outside, method, route):
    assert outside.request(method, route).status_code in (301, 404)


def test_those_routes_are_open_inside(inside):
    assert inside.get("/docs").status_code == 200 or inside.get("/openapi.json").status_code == 200


def test_flowers_own_control_client_is_refused_outside(coordinator, authority):
    def nodes_at(address):
        client = ControlHttpClient(
            f"https://{address}",
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
            verify=ssl.create_default_context(cafile=str(authority)),
        )
        try:
            return client.ListNodes(ListNodesRequest())
        finally:
            client.close()

    nodes_at(coordinator.settings.local_address)
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        nodes_at(coordinator.settings.address)


def test_an_unapproved_key_is_refused_by_superlink_itself(coordinator, authority):
    private, public = generate_key_pairs()
    with FleetHttpClient.from_server_address(
        coordinator.settings.address,
        False,
        authority.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, public),
        ],
    ) as client:
        request = ActivateNodeRequest(
            public_key=public_key_to_bytes(public), heartbeat_interval=20.0
        )
        with pytest.raises(httpx.HTTPStatusError) as refused:
            client.ActivateNode(request)
    assert refused.value.response.status_code != 404


def test_without_the_authority_nobody_connects(coordinator):
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://{coordinator.settings.address}/", trust_env=False)


def test_an_approved_site_joins_and_a_revoked_one_is_told(
    coordinator, invite, tmp_path, wait_until
):
    site = Site(tmp_path / "site")
    site.import_invitation(invite(coordinator, "A"))
    coordinator.approve("A", site.public_key)
    site.join(threads=1)
    try:
        wait_until(lambda: coordinator.status().sites == {"A": True}, what="the site joined")
        # Shut out while it is connected.
        coordinator.revoke("A")
        wait_until(
            lambda: (site.refresh(), "ended this site's access" in site.state.message)[1],
            what="the site was told",
        )
    finally:
        site.leave()


def test_a_port_in_use_is_told_and_nothing_is_left(tmp_path, coordinator, recipe):
    other = Coordinator(tmp_path / "other")
    _, inside = free_ports()
    taken = coordinator.settings.port
    reach = Reach("127.0.0.1", taken, proxy="nginx", superlink_port=inside, listen="127.0.0.1")
    other.init(recipe, reach)
    with pytest.raises(FederationError, match=f"Port {taken} is in use"):
        other.start()
    assert not other.running
