"""Handing a reply over to SuperLink, again where an answer of SuperLink's was lost.

A part of a reply that SuperLink has stored, but could not acknowledge (the connection was cut, or
its database was busy), is refused when Flower pushes it again, and Flower then drops the whole
reply. Announced once more, the same reply is asked for the parts that are missing; once the
ServerApp waits for its parts it cannot be announced again, and what is refused is there.
"""

import threading
from collections.abc import Callable

from flwr.app import Message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

Send = Callable[[Message, ObjectTree, float], tuple[set[str], str]]
Push = Callable[[int, str, str, bytes], None]

_MOST_TIMES = 10


class HandingOver:
    """Takes the place of Flower's functions that send a reply and push its parts.

    Parts are pushed by several threads; one reply is handed over at a time.

    Parameters
    ----------
    send : callable
        Announces a reply; returns the parts that SuperLink wants, and under which session.
    push : callable
        Pushes a part (run, session, name, content).
    """

    def __init__(self, send: Send, push: Push) -> None:
        self._send = send
        self._push = push
        self._lock = threading.Lock()
        self._announce: Callable[[], tuple[set[str], str]] = lambda: (set(), "")
        self._session = ""
        # Parts that SuperLink does not have yet, and those that were tried.
        self._missing: set[str] = set()
        self._tried: dict[str, bytes] = {}
        # How many were refused, one after the other, without being asked for again.
        self._refused = 0

    def send(self, message: Message, tree: ObjectTree, seconds: float) -> tuple[set[str], str]:
        """Announce a reply, see `Send`."""
        self._announce = lambda: self._send(message, tree, seconds)
        wanted, self._session = self._announce()
        self._missing = set(wanted)
        self._tried = {}
        self._refused = 0
        return wanted, self._session

    def push(self, run_id: int, _session: str, part: str, content: bytes) -> None:
        """Push a part, and what else is asked for meanwhile.

        Raises
        ------
        ObjectPushError
            When SuperLink takes the reply no more, as after the round.
        """
        with self._lock:
            self._tried[part] = content
            session = self._session
        try:
            self._push(run_id, session, part, content)
        except ObjectPushError as error:
            with self._lock:
                self._push_again(run_id, error)
        else:
            with self._lock:
                self._missing.discard(part)
                self._refused = 0

    def _push_again(self, run_id: int, error: ObjectPushError) -> None:
        """Push every part that was tried and is missing still, under a new session."""
        for _ in range(_MOST_TIMES):
            untried = self._missing - self._tried.keys()
            wanted, session = self._announce()
            if not untried <= wanted:
                self._presume_stored(error)
                return
            self._session = session
            self._missing = set(wanted)
            if self._pushed_all_tried(run_id):
                return
        raise error

    def _presume_stored(self, error: ObjectPushError) -> None:
        """Go on with the old session: while it lives, only what is stored is refused.

        No more parts than are pushed at a time can have lost their answers; when more are refused,
        the session has run out.
        """
        self._refused += 1
        if self._refused > FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES:
            raise error

    def _pushed_all_tried(self, run_id: int) -> bool:
        for part in sorted(self._missing & self._tried.keys()):
            try:
                self._push(run_id, self._session, part, self._tried[part])
            except ObjectPushError:
                return False
            self._missing.discard(part)
        return True
