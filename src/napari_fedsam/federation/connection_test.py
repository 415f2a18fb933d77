"""Testing a site's connection step by step, each with a reason and a remedy."""

import datetime
import email.utils
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.keys import ensure_key_pair, fingerprint
from napari_fedsam.federation.node_report import certificate_reason
from napari_fedsam.federation.persistent_client import may_still_be_missed
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.sam.registry import available_models

_SECONDS = 10.0
# Flower refuses signed requests that are older than this, or come from further in the future.
_OLDEST = datetime.timedelta(seconds=300)
_NEWEST = datetime.timedelta(seconds=5)
_HEARTBEAT_SECONDS = 20.0


@dataclass(frozen=True)
class Check:
    """One step of the test.

    Attributes
    ----------
    name : str
        What was looked at.
    passed : bool
    words : str
        What was found; what to do when it did not pass.
    """

    name: str
    passed: bool
    words: str


class ConnectionTest:
    """Tests what joining needs, in the order in which it needs it.

    Parameters
    ----------
    files : SiteFiles
        The site's files.
    joined : bool
        Whether the site takes part now; then its key is not tried, which would disturb it.
    """

    def __init__(self, files: SiteFiles, *, joined: bool) -> None:
        self._files = files
        self._joined = joined
        self._invitation = Invitation.read(files.invitation)
        host, port = self._invitation.address.rsplit(":", 1)
        self._host, self._port = host.strip("[]"), int(port)
        self._trust = ssl.create_default_context(cadata=self._invitation.authority)

    def steps(self) -> Iterator[Check]:
        """Yield each step as it is done; ends with the first one on which the next depend."""
        yield self._checked("Recipe", self._recipe)
        yield self._checked("App", self._app)
        proxy = self._proxy()
        network = [("Proxy", lambda: f"by way of {proxy}")] if proxy else self._direct_steps()
        network += [("Certificate", self._certificate), ("Clock", self._clock)]
        for name, step in network:
            check = self._checked(name, step)
            yield check
            if not check.passed:
                return
        yield self._checked("Key", self._key)

    def _direct_steps(self) -> list[tuple[str, Callable[[], str]]]:
        return [("Name", self._name), ("Port", self._open_port)]

    @staticmethod
    def _checked(name: str, step: Callable[[], str]) -> Check:
        try:
            return Check(name, True, step())
        except FedSamError as error:
            return Check(name, False, str(error))

    def _recipe(self) -> str:
        recipe = self._invitation.recipe
        if recipe.base_model not in {model.name for model in available_models()}:
            raise FederationError(
                f"The base model {recipe.base_model} is not known here; install the version of "
                "napari-fedsam that the coordinator uses."
            )
        return f"{recipe.method} on {recipe.base_model}"

    def _app(self) -> str:
        self._invitation.check_runs_here()
        return f"the installed one is the pinned one ({self._invitation.bundle_sha256[:12]}...)"

    def _proxy(self) -> str:
        if urllib.request.proxy_bypass(self._host):
            return ""
        return urllib.request.getproxies().get("https", "")

    def _name(self) -> str:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise FederationError(
                f"The name {self._host} is not known here; ask your network's administrators, or "
                "the coordinator for the right name."
            ) from error
        return f"{self._host} is {found[0][4][0]}"

    def _open_port(self) -> str:
        try:
            socket.create_connection((self._host, self._port), timeout=_SECONDS).close()
        except OSError as error:
            why = (
                "nothing listens there"
                if isinstance(error, ConnectionRefusedError)
                else ("there is no answer, as behind a firewall")
            )
            raise FederationError(
                f"Port {self._port} of {self._host} cannot be reached ({why}); ask the coordinator "
                "whether it runs, and your network's administrators to allow this connection."
            ) from error
        return f"{self._port} is open"

    def _certificate(self) -> str:
        try:
            self._head()
        except httpx.HTTPError as error:
            raise FederationError(certificate_reason(str(error))) from error
        return "signed by the federation's authority, for this name, and valid"

    def _clock(self) -> str:
        answered = self._head().headers.get("date")
        if answered is None:
            return "the coordinator does not tell the time"
        difference = email.utils.parsedate_to_datetime(answered) - datetime.datetime.now(
            datetime.UTC
        )
        if not -_NEWEST <= difference <= _OLDEST:
            raise FederationError(
                f"The clocks differ by {abs(difference.total_seconds()):.0f} s; set this "
                "computer's clock by the network, and ask the coordinator to do the same."
            )
        return "agrees with the coordinator's"

    def _key(self) -> str:
        short = fingerprint(ensure_key_pair(self._files.folder).read_text(encoding="ascii"))
        if self._joined:
            return f"{short} is in use"
        try:
            self._greet()
        except httpx.HTTPStatusError as error:
            raise FederationError(self._refusal(error.response.status_code, short)) from error
        except httpx.HTTPError as error:
            raise FederationError(
                f"The coordinator did not answer ({type(error).__name__}); try again."
            ) from error
        return f"{short} is approved"

    def _refusal(self, status: int, short: str) -> str:
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return (
                f"The coordinator is in trouble (HTTP {status}) and could not look for this site's "
                f"key {short}; try again later, and tell the coordinator if it lasts."
            )
        if status != httpx.codes.PRECONDITION_FAILED:
            return (
                f"The coordinator refused to look for this site's key {short} (HTTP {status}); ask "
                "it whether this is its address, and whether its program and clock are right."
            )
        if may_still_be_missed(self._files):
            return (
                f"The coordinator may still wait for this site's last connection, which was cut, "
                f"or does not know its key {short}; try again in two minutes."
            )
        return (
            f"The coordinator does not know this site's key {short}; send it the public key "
            "for approval."
        )

    def _greet(self) -> None:
        """Connect as the node would, and say goodbye."""
        private = load_ssh_private_key(self._files.private_key.read_bytes(), None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise FederationError(f"{self._files.private_key} is not this site's key; restore it.")
        public = private.public_key()
        with FleetHttpClient.from_server_address(
            self._invitation.address,
            False,
            self._invitation.authority.encode("ascii"),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(private, public),
            ],
        ) as client:
            request = ActivateNodeRequest(
                public_key=public_key_to_bytes(public), heartbeat_interval=_HEARTBEAT_SECONDS
            )
            node_id = client.ActivateNode(request).node_id
            client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))

    def _head(self) -> httpx.Response:
        with httpx.Client(verify=self._trust, timeout=_SECONDS) as client:
            return client.get(f"https://{self._invitation.address}/v1/fleet/")
