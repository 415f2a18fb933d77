"""Federated averaging that checks every update and keeps every round."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from napari_fedsam.federation.checkpoints import CheckpointStore, RefusedUpdate, RoundResult
from napari_fedsam.federation.errors import RefusedMessageError, ReplyCode
from napari_fedsam.federation.messages import (
    CONFIG_KEY,
    EVALUATE_METRICS,
    EXAMPLES_KEY,
    SHARED_KEY,
    TRAIN_METRICS,
    SharedSpec,
    check_recipe,
    read_metrics,
    read_shared,
)


class CheckedFedAvg(FedAvg):  # type: ignore[misc]
    """Flower's FedAvg, weighted by cases, under this federation's rules.

    Updates that fail a check are left out and recorded; a round with fewer good updates than the
    recipe's minimum leaves the shared parameters as they were; every round is saved before
    the sites are asked to judge it.

    Parameters
    ----------
    recipe_hash : str
        Hash of the agreed recipe.
    spec : mapping of str to (shape, dtype)
        The recipe's shared parameters.
    minimum_sites : int
        Least number of good updates in a round.
    store : CheckpointStore
        Where rounds are kept.
    """

    def __init__(
        self, recipe_hash: str, spec: SharedSpec, minimum_sites: int, store: CheckpointStore
    ) -> None:
        super().__init__(
            min_train_nodes=minimum_sites,
            min_evaluate_nodes=1,
            min_available_nodes=minimum_sites,
            weighted_by_key=EXAMPLES_KEY,
            arrayrecord_key=SHARED_KEY,
            configrecord_key=CONFIG_KEY,
        )
        self._recipe_hash = recipe_hash
        self._spec = spec
        self._minimum_sites = minimum_sites
        self._store = store
        self._before_first = store.next_round() - 1
        self._started = 0.0
        self._result = RoundResult(round=0, recipe_hash=recipe_hash)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask all connected sites for an update; rounds count on from the newest saved one."""
        self._started = time.monotonic()
        number = self._before_first + server_round
        self._result = RoundResult(round=number, recipe_hash=self._recipe_hash)
        return self._numbered(super().configure_train(number, arrays, config, grid))

    def aggregate_train(
        self,
        server_round: int,  # noqa: ARG002 - counts from 1 in each run
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the updates that pass, and save the round."""
        good = self._passing(replies, self._check_update)
        if len(good) < self._minimum_sites:
            self._save(None)
            return None, None
        arrays, metrics = super().aggregate_train(self._result.round, good)
        self._result = self._result.model_copy(
            update={
                "updates": len(good),
                "examples": int(sum(_metric(reply, EXAMPLES_KEY) for reply in good)),
                "loss": float(metrics["loss"]),
            }
        )
        averaged = RecordDict({SHARED_KEY: arrays})
        self._save(read_shared(averaged, self._spec))
        return arrays, metrics

    def configure_evaluate(
        self,
        server_round: int,  # noqa: ARG002 - counts from 1 in each run
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        """Ask the sites to judge the round's model; a round that made none is not judged."""
        if not self._result.aggregated:
            return []
        # A site that left after training must not hold the others up.
        self.min_available_nodes = 1
        messages = super().configure_evaluate(self._result.round, arrays, config, grid)
        self.min_available_nodes = self._minimum_sites
        return self._numbered(messages)

    def aggregate_evaluate(
        self,
        server_round: int,  # noqa: ARG002 - counts from 1 in each run
        replies: Iterable[Message],
    ) -> MetricRecord | None:
        """Average the sites' held-out Dice, and complete the round's record."""
        good = self._passing(replies, self._check_evaluation)
        judged = [reply for reply in good if _metric(reply, EXAMPLES_KEY) > 0]
        metrics = super().aggregate_evaluate(self._result.round, judged) if judged else None
        self._result = self._result.model_copy(
            update={
                "evaluations": len(judged),
                "dice": _dice_of(metrics),
                "activated": int(sum(_metric(reply, "activated") for reply in good)),
                "complete": True,
                "seconds": time.monotonic() - self._started,
            }
        )
        self._store.update(self._result)
        return metrics

    def _check_update(self, content: RecordDict) -> None:
        check_recipe(content, self._recipe_hash)
        read_shared(content, self._spec)
        if read_metrics(content, TRAIN_METRICS)[EXAMPLES_KEY] < 1:
            raise RefusedMessageError(ReplyCode.TOO_FEW_CASES, "An update came from no cases.")

    def _check_evaluation(self, content: RecordDict) -> None:
        check_recipe(content, self._recipe_hash)
        read_metrics(content, EVALUATE_METRICS)

    def _passing(
        self, replies: Iterable[Message], check: Callable[[RecordDict], None]
    ) -> list[Message]:
        good, refused = [], []
        for reply in replies:
            code = _reply_code(reply, check)
            if code is None:
                good.append(reply)
            else:
                node = str(reply.metadata.src_node_id)
                refused.append(RefusedUpdate(node_id=node, code=code))
        everything = (*self._result.refused, *refused)
        self._result = self._result.model_copy(update={"refused": everything})
        return good

    def _save(self, shared: dict[str, Tensor] | None) -> None:
        seconds = time.monotonic() - self._started
        result = self._result.model_copy(update={"seconds": seconds})
        self._result = self._store.save(result, shared)

    def _numbered(self, messages: Iterable[Message]) -> list[Message]:
        numbered = list(messages)
        for message in numbered:
            message.metadata.group_id = str(self._result.round)
        return numbered


def _reply_code(reply: Message, check: Callable[[RecordDict], None]) -> str | None:
    if reply.has_error():
        reason = reply.error.reason
        return str(reason) if reason in set(ReplyCode) else ReplyCode.FAILED.value
    try:
        check(reply.content)
    except RefusedMessageError as error:
        return error.code.value
    return None


def _metric(reply: Message, name: str) -> float:
    (metrics,) = reply.content.metric_records.values()
    return float(metrics[name])


def _dice_of(metrics: Any) -> dict[str, float]:
    if metrics is None:
        return {}
    dice = {kind: float(metrics[f"dice-{kind}"]) for kind in ("none", "box")}
    return {kind: value for kind, value in dice.items() if math.isfinite(value)}
