"""Talking to our own SuperLink's Control API from Python."""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from napari_fedsam.federation.errors import FederationError

_ONLINE = "online"
_MOST_ERRORS = 10
_PAUSE_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class NodeInfo:
    """A registered site as SuperLink sees it.

    Attributes
    ----------
    node_id : int
        Flower's number for it.
    public_key : bytes
        PEM of its public key.
    online : bool
        Whether it is connected now (a killed one counts as connected for up to a minute).
    """

    node_id: int
    public_key: bytes
    online: bool


@dataclass(frozen=True)
class RunInfo:
    """State of a run.

    Attributes
    ----------
    finished : bool
        Whether it has ended, in whatever way.
    completed : bool
        Whether it ended well.
    details : str
        Flower's words about a failure.
    """

    finished: bool
    completed: bool
    details: str


class Control:
    """The few verbs of SuperLink's Control API that a coordinator needs.

    Parameters
    ----------
    client : ControlHttpClient
        Flower's client; see `connect`.
    """

    def __init__(self, client: ControlHttpClient) -> None:
        self._client = client

    def nodes(self) -> list[NodeInfo]:
        """Return the registered sites, without the revoked ones."""
        response = _patiently(lambda: self._client.ListNodes(ListNodesRequest()))
        return [
            NodeInfo(node.node_id, node.public_key, node.status == _ONLINE)
            for node in response.nodes_info
            if not node.unregistered_at
        ]

    def register(self, public_key: bytes) -> int:
        """Register a site's public key (PEM) and return its node id."""
        return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key)).node_id)

    def unregister(self, node_id: int) -> None:
        """Revoke a site; its key can never be registered again."""
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start_run(self, bundle: bytes, bundle_sha256: str, rounds: int) -> int:
        """Start a run of `rounds` rounds and return its id."""
        response = self._client.StartRun(
            StartRunRequest(
                fab=fab_to_proto(Fab(bundle_sha256, bundle, {})),
                override_config=user_config_to_proto({"rounds": rounds}),
            )
        )
        if not response.HasField("run_id"):
            raise FederationError(
                "SuperLink did not start the run; read the log 'superlink' in the coordinator's "
                "folder."
            )
        return int(response.run_id)

    def stop_run(self, run_id: int) -> None:
        """Stop a run."""
        self._client.StopRun(StopRunRequest(run_id=run_id))

    def run(self, run_id: int) -> RunInfo:
        """Return how a run stands."""
        listed = _patiently(lambda: self._client.ListRuns(ListRunsRequest(run_id=run_id)))
        run = listed.run_dict[run_id]
        return RunInfo(
            finished=run.status.status == Status.FINISHED,
            completed=run.status.sub_status == SubStatus.COMPLETED,
            details=run.status.details,
        )


def _patiently(ask: Callable[[], T]) -> T:
    """Ask again after an internal error, as with a database that others are writing into.

    Only for what changes nothing: an error need not mean that nothing was done.
    """
    for _ in range(_MOST_ERRORS):
        try:
            return ask()
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
                raise
            time.sleep(_PAUSE_SECONDS)
    return ask()


@contextmanager
def connect(address: str, authority: Path) -> Iterator[Control]:
    """Connect to the Control API of a SuperLink on this machine.

    Parameters
    ----------
    address : str
        Loopback address as `host:port`.
    authority : Path
        Certificate that signs SuperLink's.

    Yields
    ------
    Control
        Connected lazily: the first call fails when nothing listens.
    """
    trust = ssl.create_default_context(cafile=str(authority))
    client = ControlHttpClient(
        f"https://{address}",
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        verify=trust,
    )
    # A proxy configured for the outside must never see loopback traffic.
    client._client.close()
    client._client = httpx.Client(verify=trust, timeout=30.0, trust_env=False)
    try:
        yield Control(client)
    except httpx.HTTPError as error:
        raise FederationError(
            f"SuperLink at {address} did not answer as expected ({type(error).__name__}); is the "
            "coordinator running? Start it with 'napari-fedsam coordinator start'."
        ) from error
    finally:
        client.close()


def is_answering(address: str, authority: Path) -> bool:
    """Tell whether a SuperLink answers on this address."""
    try:
        with connect(address, authority) as control:
            control.nodes()
    except FederationError:
        return False
    return True
