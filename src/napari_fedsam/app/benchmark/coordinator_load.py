"""The coordinator by itself: rounds whose sites are made up and answer as soon as they are heard.

Run as `python -m napari_fedsam.app.benchmark.coordinator_load COORDINATOR SITES ROUNDS`, a process
of its own, whose memory is the ServerApp's. Messages, checks, the updates on disk and their
aggregation are those of every federation.
"""

import itertools
import sys
from collections.abc import Iterable
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.messages import (
    CONFIG_KEY,
    DIGEST_KEY,
    EVALUATE_METRICS,
    METRICS_KEY,
    SHARED_KEY,
    TRAIN_METRICS,
)
from napari_fedsam.federation.packed_parameters import (
    digest_of,
    pack_parameters,
    unpack_parameters,
)
from napari_fedsam.federation.server_app import run_rounds

_FIRST_NODE = 2
_CHANGE = 1e-3

app = ClientApp()
# What all sites were sent to judge, and go on from.
_judged: dict[str, ArrayRecord] = {}


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, _context: Context) -> Message:
    """Answer with what was sent, a little changed."""
    sent = unpack_parameters({**_judged, **message.content.array_records}[SHARED_KEY])
    if message.content[CONFIG_KEY].get(DIGEST_KEY) not in (None, digest_of(sent)):
        raise FederationError("The digest is not of the parameters that were judged.")
    changed = {name: tensor + _CHANGE for name, tensor in sent.items()}
    return _reply(message, TRAIN_METRICS, {SHARED_KEY: pack_parameters(changed)})


@app.evaluate()  # type: ignore[untyped-decorator]
def evaluate(message: Message, _context: Context) -> Message:
    """Answer with made-up numbers."""
    _judged[SHARED_KEY] = message.content[SHARED_KEY]
    return _reply(message, EVALUATE_METRICS, {})


def _reply(message: Message, metrics: Iterable[str], content: dict[str, ArrayRecord]) -> Message:
    numbers = {METRICS_KEY: MetricRecord(dict.fromkeys(metrics, 1.0))}
    config = {CONFIG_KEY: message.content[CONFIG_KEY]}
    return Message(RecordDict({**content, **numbers, **config}), reply_to=message)


class MadeUpSites(InProcessGrid):
    """Sites that answer when their answer is asked for, as if SuperLink had kept it.

    Parameters
    ----------
    count : int
    """

    def __init__(self, count: int) -> None:
        super().__init__(app, {_FIRST_NODE + number: Path() for number in range(count)})
        self._asked: dict[str, Message] = {}
        self._count = itertools.count()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the messages, and return the ids under which the answers can be pulled."""
        kept = {f"asked-{next(self._count)}": message for message in messages}
        self._asked |= kept
        return list(kept)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the sites answer now."""
        asked = [self._asked.pop(name) for name in list(message_ids) if name in self._asked]
        return super().pull_messages(super().push_messages(asked))


def main(coordinator: str, sites: str, rounds: str) -> None:
    """Run the rounds."""
    run_rounds(MadeUpSites(int(sites)), Path(coordinator), int(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
