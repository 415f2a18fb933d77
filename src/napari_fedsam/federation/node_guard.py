"""The three places where Flower's SuperNode is made to obey the site, with a self-test."""

import contextlib
import functools
import hashlib
import importlib
import inspect
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.metadata import Metadata
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.version import package_version
from flwr.supernode.nodestate import NodeStateFactory

from napari_fedsam.federation.audit import append_audit, describe_message
from napari_fedsam.federation.errors import FederationError, ReplyCode
from napari_fedsam.federation.handing_over import HandingOver
from napari_fedsam.federation.persistent_client import persistent_client
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.federation.site_status import SiteStatus, update_status
from napari_fedsam.files import write_text_atomically

SUPPORTED_FLOWER = "1.41.0"

_log = logging.getLogger(__name__)

Connection = tuple[Any, ...]


class NodeGuard:
    """Patches this process's SuperNode.

    Parameters
    ----------
    files : SiteFiles
        The site's files (status, node file, audit log).
    pinned_bundle : str
        SHA-256 of the only bundle that may be stored and run here, 64 hex digits.
    """

    def __init__(self, files: SiteFiles, pinned_bundle: str) -> None:
        self._files = files
        self._pinned = pinned_bundle
        # The package re-exports functions under the names of its modules: import by full name.
        self._loop: Any = importlib.import_module("flwr.supernode.start_client_internal")
        self._transport: Any = importlib.import_module("flwr.supernode.fleet_http_connection")

    def install(self) -> None:
        """Patch Flower in this process.

        Raises
        ------
        FederationError
            When this Flower is not the one whose internals are known.
        """
        self._require_known_flower()
        loop, transport = self._loop, self._transport
        # Giving it a trusted entity makes Flower call `_verify_fab` for every bundle.
        pull = functools.partial(_with_trusted_entity, loop._pull_and_store_message)
        loop._pull_and_store_message = pull
        loop._verify_fab = self._is_pinned
        loop.http_request_response = self._guarded(loop.http_request_response)
        transport.FleetHttpClient = persistent_client(self._files)

    def self_test(self) -> None:
        """Show on a node in memory that a foreign bundle is refused and nothing of it is kept.

        Raises
        ------
        FederationError
            When Flower would have stored the bundle or answered otherwise.
        """
        store_factory = ObjectStoreFactory()
        state = NodeStateFactory(objectstore_factory=store_factory).state()
        state.set_node_id(1)
        instruction = _instruction()
        foreign = Fab(self._pinned, b"not the pinned bundle", {})
        run = Run.create_empty(1)
        run.fab_hash = self._pinned
        with _quiet_flower(), contextlib.suppress(zipfile.BadZipFile):
            self._loop._pull_and_store_message(
                state=state,
                object_store=store_factory.store(),
                node_config={},
                receive=lambda: (instruction, get_object_tree(instruction)),
                get_run=lambda _run: run,
                get_fab=self._checked_bundles(lambda _hash, _run: foreign, told=False),
                pull_object=lambda _run, _object: b"",
                confirm_message_received=lambda _run, _message: None,
                trusted_entities=None,
            )
        replies = state.get_messages_legacy(is_reply=True)
        refused = [reply.has_error() and reply.error.code for reply in replies]
        if refused != [ErrorCode.INVALID_FAB] or state.get_run(1) is not None:
            raise FederationError(
                "The start-up test failed: this Flower would run code that the site has not "
                f"pinned; install flwr=={SUPPORTED_FLOWER} (found {package_version})."
            )

    def _require_known_flower(self) -> None:
        expected = {
            (self._loop, "_pull_and_store_message"): {"get_fab", "receive", "trusted_entities"},
            (self._loop, "_verify_fab"): {"fab", "trusted_entities"},
            (self._loop, "http_request_response"): {"server_address", "authentication_keys"},
            (self._transport, "FleetHttpClient"): {"base_url"},
            (self._transport.FleetHttpClient, "_send"): {"context"},
        }
        for (module, name), parameters in expected.items():
            known = getattr(module, name, None)
            if known is None or not parameters <= set(inspect.signature(known).parameters):
                raise FederationError(
                    f"Flower's {module.__name__}.{name} is not as napari-fedsam knows it; install "
                    f"flwr=={SUPPORTED_FLOWER} (found {package_version})."
                )

    def _guarded(
        self, connect: Callable[..., AbstractContextManager[Connection]]
    ) -> Callable[..., AbstractContextManager[Connection]]:
        @contextmanager
        def guarded(*args: Any, **kwargs: Any) -> Iterator[Connection]:
            with connect(*args, **kwargs) as connection:
                node_id, receive, send, get_run, get_fab, pull, push, confirm = connection
                self._tell_connected(node_id)
                handing_over = HandingOver(send, push)
                yield (
                    node_id,
                    self._polling(receive),
                    self._telling_loss(self._coded_errors(handing_over.send, handing_over.push)),
                    get_run,
                    self._checked_bundles(get_fab),
                    pull,
                    self._telling_loss(handing_over.push),
                    confirm,
                )

        return guarded

    def _is_pinned(self, fab: Fab, _trusted_entities: dict[str, str]) -> bool:
        return fab.hash_str == self._pinned and _sha256(fab.content) == self._pinned

    def _checked_bundles(
        self, get_fab: Callable[[str, int], Fab], *, told: bool = True
    ) -> Callable[[str, int], Fab]:
        def checked(fab_hash: str, run_id: int) -> Fab:
            # A bundle announced under another hash is not even downloaded.
            content = get_fab(fab_hash, run_id).content if fab_hash == self._pinned else b""
            fab = Fab(fab_hash, content, {"valid_license": "required by _verify_fab"})
            if told and not self._is_pinned(fab, {}):
                _log.error("Refused an app bundle that is not the pinned one.")
                self._tell(
                    phase=Phase.ERROR,
                    message="The coordinator sent program code that is not the agreed one; it was "
                    "refused and nothing ran. Ask the coordinator which version it uses.",
                )
            return fab

        return checked

    def _coded_errors(
        self, send: Callable[..., tuple[set[str], str]], push: Callable[..., None]
    ) -> Callable[..., tuple[set[str], str]]:
        def coded(message: Message, tree: ObjectTree, seconds: float) -> tuple[set[str], str]:
            if not message.has_error() or message.error.reason in set(ReplyCode):
                return send(message, tree, seconds)
            refused = message.error.code == ErrorCode.INVALID_FAB
            code = ReplyCode.REFUSED_BUNDLE if refused else ReplyCode.FAILED
            if not refused:
                self._tell(
                    phase=Phase.ERROR,
                    message="The training stopped unexpectedly and this round was missed; if it "
                    "happens again, read the log 'superexec' in the site's folder.",
                )
            metadata = message.metadata
            reply = Message(metadata=metadata, error=Error(message.error.code, code.value))
            metadata.__dict__["_message_id"] = reply.object_id
            try:
                append_audit(self._files.audit, describe_message(reply, 0))
            except OSError:
                # What cannot be recorded does not leave: the round ends without this site.
                _log.exception("The audit log could not be written; nothing was sent.")
                return set(), ""
            wanted, session = send(reply, get_object_tree(reply), seconds)
            for object_id in wanted:
                push(metadata.run_id, session, object_id, reply.deflate())
            return set(), session

        return coded

    def _telling_loss(self, hand_over: Callable[..., Any]) -> Callable[..., Any]:
        """Tell when a reply could not be handed over: Flower drops it and goes on."""

        def telling(*args: Any) -> Any:
            try:
                return hand_over(*args)
            except Exception:
                self._tell(
                    phase=Phase.WAITING,
                    message="The update could not be handed over (the connection was away for too "
                    "long, or the round has ended); this round goes on without this site.",
                )
                raise

        return telling

    def _polling(self, receive: Callable[[], Any]) -> Callable[[], Any]:
        def polling() -> Any:
            # Flower asks for the next message only when the last reply has left.
            if SiteStatus.read(self._files.status).phase is Phase.SENDING:
                self._tell(phase=Phase.WAITING, message="Update sent; waiting for other sites.")
            return receive()

        return polling

    def _tell_connected(self, node_id: int) -> None:
        content = json.dumps({"node_id": str(node_id), "pid": os.getpid()})
        write_text_atomically(self._files.node, content)
        self._tell(phase=Phase.WAITING, progress=0.0, message="")

    def _tell(self, **changes: Any) -> None:
        # A full disk must not end the connection.
        with contextlib.suppress(OSError):
            update_status(self._files.status, **changes)


@contextmanager
def _quiet_flower() -> Iterator[None]:
    logger = logging.getLogger("flwr")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _with_trusted_entity(pull: Callable[..., int | None], **kwargs: Any) -> int | None:
    return pull(**{**kwargs, "trusted_entities": {"pinned": "bundle"}})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _instruction() -> Message:
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=0,
        dst_node_id=1,
        reply_to_message_id="",
        group_id="",
        created_at=0.0,
        ttl=1e9,
        message_type="train",
    )
    message = Message(metadata=metadata, content=RecordDict())
    metadata.__dict__["_message_id"] = message.object_id
    return message
