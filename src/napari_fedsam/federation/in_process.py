"""The same ClientApp and ServerApp without any network: Flower's Grid inside this process."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from napari_fedsam.federation.site_files import SITE_FOLDER_KEY

_RUN_ID = 1
_SERVER_ID = 1


class InProcessGrid(Grid):  # type: ignore[misc]
    """Runs the ClientApp for each site in turn, in the calling thread.

    Parameters
    ----------
    client_app : ClientApp
        The app of the sites.
    sites : mapping of int to Path
        Folder of each site by node id (from 2 on; 1 is the coordinator's).
    sent : callable, optional
        Receives, for each reply of a site, its node id and the very bytes that the real engine
        would transmit.
    """

    def __init__(
        self,
        client_app: ClientApp,
        sites: Mapping[int, Path],
        *,
        sent: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._app = client_app
        self._sites = dict(sites)
        self._sent = sent or (lambda _node, _payload: None)
        self._replies: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        self._run = Run.create_empty(_RUN_ID)
        stand_in_for_a_run()

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create an instruction for a site."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids of the sites."""
        return list(self._sites)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let the sites answer, and return the ids under which the answers can be pulled."""
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers that are there, each once."""
        return [self._replies.pop(name) for name in list(message_ids) if name in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Let the sites answer and return all answers; nothing can time out here."""
        _ = timeout
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> str:
        node = message.metadata.dst_node_id
        name = f"message-{next(self._numbers)}"
        metadata: Metadata = message.metadata
        metadata.__dict__["_message_id"] = name
        context = Context(
            run_id=_RUN_ID,
            node_id=node,
            node_config={SITE_FOLDER_KEY: str(self._sites[node])},
            state=RecordDict(),
            run_config={},
        )
        reply = self._app(message, context)
        self._sent(node, payload_of(reply))
        self._replies[name] = reply
        return name


def stand_in_for_a_run() -> None:
    """Tell Flower's constructor of messages, which asks the process, who this is."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, _SERVER_ID, 0


def payload_of(message: Message) -> bytes:
    """Return the very bytes that the real engine would transmit for a message."""
    return b"".join(part.deflate() for part in get_all_nested_objects(message).values())
