"""Sites that train by adding numbers, and rounds with them: no model, no processes."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.errors import ReplyCode
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.messages import DIGEST_KEY, config_record, left_out_of, round_of
from napari_fedsam.federation.packed_parameters import digest_of, pack_parameters, unpack_parameters
from napari_fedsam.federation.round_runner import RoundRunner

SPEC = {"w": ((2,), "float32")}
INITIAL = {"w": torch.tensor([0.0, 1.0])}
SITES = {2: (1, 10.0), 3: (3, 2.0)}  # node id: training cases, added by its training


@dataclasses.dataclass
class Received:
    node: int
    kind: str
    w: np.ndarray | None
    left_out: ReplyCode | None
    # Whether the parameters were in the message.
    sent: bool


def received_by(message):
    return unpack_parameters(message.content.array_records["shared"])["w"]


def update(message, added, cases, recipe_hash=None, round_number=None, **arrays):
    start = received_by(message)
    shared = pack_parameters({"w": start + torch.as_tensor(added), **arrays})
    metrics = MetricRecord({"num-examples": cases, "loss": 1.0 / cases, "seconds": 1.0})
    config = config_record(
        recipe_hash or message.content["config"]["recipe-hash"],
        round_number or round_of(message.content),
    )
    content = {"shared": shared, "metrics": metrics, "config": config}
    return Message(RecordDict(content), reply_to=message)


def judgement(message, cases=2, dice=0.5, activated=1):
    metrics = {
        "num-examples": cases,
        "dice-none": dice,
        "dice-box": dice / 2,
        "dice-point": dice / 4,
        "activated": activated,
    }
    content = {"metrics": MetricRecord(metrics), "config": message.content["config"]}
    return Message(RecordDict(content), reply_to=message)


def app_with(received=None, **odd):
    """Sites that train by adding; `odd` replaces the answers of some, by name of their folder.

    They keep what they judge, but those called `forgetful`.
    """
    app = ClientApp()
    log = received if received is not None else []
    kept = {}

    def note(message, context):
        sent = "shared" in message.content.array_records
        own = kept.get(context.node_id)
        if own is not None and message.content["config"].get(DIGEST_KEY) == digest_of(own):
            message.content["shared"] = pack_parameters(own)
        there = "shared" in message.content.array_records
        w = received_by(message).numpy() if there else None
        kind = message.metadata.message_type
        log.append(Received(context.node_id, kind, w, left_out_of(message.content), sent))
        return w

    @app.train()
    def train(message, context):
        name = context.node_config["site-folder"]
        if note(message, context) is None:
            return Message(Error(100, "parameters-missing"), reply_to=message)
        if name in odd:
            return odd[name](message)
        cases, added = SITES[context.node_id]
        return update(message, added, cases)

    @app.evaluate()
    def evaluate(message, context):
        w = note(message, context)
        if context.node_config["site-folder"] != "forgetful":
            kept[context.node_id] = unpack_parameters(message.content["shared"])
        return judgement(message, cases=context.node_id, dice=abs(float(w[0])) / 100)

    return app


def run(folder, recipe, app, sites, rounds=1, grid=None, **options):
    store = CheckpointStore(folder)
    grid = grid or InProcessGrid(app, {node: Path(name) for node, name in sites.items()})
    RoundRunner(grid, recipe, SPEC, INITIAL, store, **options).run(rounds)
    return store


def newest(store, recipe):
    return store.newest(recipe.hash).shared["w"]
