"""Rounds at the coordinator: ask the sites, check, combine, keep, and let the sites judge."""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from napari_fedsam.federation.aggregation import (
    adam_step,
    combine,
    similarity_weights,
    site_weights,
    weighted_mean,
)
from napari_fedsam.federation.checkpoints import Aggregate, CheckpointStore
from napari_fedsam.federation.errors import RefusedMessageError, ReplyCode
from napari_fedsam.federation.messages import (
    CONFIG_KEY,
    EVALUATE_METRICS,
    EXAMPLES_KEY,
    SHARED_KEY,
    SharedSpec,
    check_recipe,
    config_record,
    read_metrics,
)
from napari_fedsam.federation.packed_parameters import digest_of, pack_parameters
from napari_fedsam.federation.round_result import RoundResult, SiteRound
from napari_fedsam.federation.update_checks import (
    check_round,
    check_update,
    code_of_error,
    unusual_norms,
)
from napari_fedsam.federation.update_folder import FlatLayout, UpdateFolder, Vector
from napari_fedsam.personalization.methods import method_named
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.host_memory import give_back_freed_memory
from napari_fedsam.training.evaluation import JUDGED_PROMPTS
from napari_fedsam.training.update_rounding import expand_update, rounded_spec

_POLL_SECONDS = 0.5
# In bytes; smaller ones are not worth the search for cycles of references.
_LARGE_ANSWER = 2**20

_Answer = Literal["none", "read", "asks for parameters"]

_log = logging.getLogger(__name__)


class RoundRunner:
    """Runs the rounds of a recipe on any of Flower's engines.

    Updates that fail a check are left out, recorded with a code, and their sites are told; a
    round with fewer good updates than the recipe's minimum leaves the shared parameters as they
    were; every round is saved before the sites are asked to judge it. A round ends with the
    answers that came before its deadline.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the sites.
    recipe : Recipe
    spec : mapping of str to (shape, dtype)
        The recipe's shared parameters.
    initial : mapping of str to Tensor
        What the first round starts from.
    store : CheckpointStore
        Where rounds are kept.
    name_of : callable
        Returns a site's name for Flower's number.
    at_once : int, optional
        How many sites are asked at a time, where they take turns; all by default.
    """

    def __init__(
        self,
        grid: Grid,
        recipe: Recipe,
        spec: SharedSpec,
        initial: Mapping[str, Tensor],
        store: CheckpointStore,
        *,
        name_of: Callable[[str], str] = str,
        at_once: int | None = None,
    ) -> None:
        self._grid = grid
        self._recipe = recipe
        self._options = recipe.federation
        self._alike = method_named(recipe.method).aggregation == "similarity"
        self._layout = FlatLayout(spec)
        # Of what sites send.
        self._spec = rounded_spec(spec, recipe.federation.precision)
        self._store = store
        self._name_of = name_of
        self._at_once = at_once
        self._current = store.newest(recipe.hash) or Aggregate(dict(initial))
        # What sites were not told yet about updates of theirs.
        self._left_out: dict[str, str] = {}
        # Sites that need not be sent the current parameters again; if they do, they say so.
        self._have_current: set[str] = set()

    def run(self, rounds: int, *, may_start: Callable[[], bool] = lambda: True) -> None:
        """Run rounds one after the other while `may_start` allows the next.

        A round whose judging was cut short is judged first. The first round that changes nothing
        is the last: sites that are asked again at once answer the same.
        """
        unjudged = self._store.unjudged(self._recipe.hash)
        if unjudged is not None and self._enough_nodes(may_start):
            self._let_judge(unjudged)
        for _ in range(rounds):
            nodes = self._enough_nodes(may_start)
            if not nodes or not self._run_round(nodes):
                return

    def _enough_nodes(self, may_start: Callable[[], bool]) -> list[int]:
        while may_start():
            nodes = sorted(self._grid.get_node_ids())
            if len(nodes) >= self._recipe.minimum_sites:
                return nodes
            time.sleep(_POLL_SECONDS)
        return []

    def _run_round(self, nodes: list[int]) -> bool:
        """Run a round, and tell whether it changed the shared parameters."""
        started = time.monotonic()
        number = self._store.next_round()
        _log.info("round %d: asking %d sites to train", number, len(nodes))
        self._have_current = self._store.have_newest(self._recipe.hash)
        sites: dict[str, SiteRound] = {}
        updates = UpdateFolder(self._store.arrivals, self._layout.size)
        try:
            self._exchange("train", number, nodes, sites, _UpdateReader(self, updates, number))
            self._leave_out_unusual(updates, sites)
            result = self._aggregate(number, updates, sites)
        finally:
            updates.remove()
        seconds = time.monotonic() - started
        result = self._store.save(
            result.finished(sites.values(), seconds, complete=not result.aggregated),
            self._current if result.aggregated else None,
        )
        if result.aggregated:
            self._let_judge(result)
        else:
            _log.info("%s", result.summary)
        return result.aggregated

    def _let_judge(self, result: RoundResult) -> None:
        started = time.monotonic()
        number = result.round
        sites = {site.node_id: site for site in result.sites}
        # Sites that came in the meantime judge, too, and thereby receive the model.
        present = sorted(self._grid.get_node_ids())
        _log.info("round %d: asking %d sites to judge", number, len(present))
        self._exchange("evaluate", number, present, sites, _JudgementReader(self, number))
        seconds = result.seconds + time.monotonic() - started
        result = result.finished(sites.values(), seconds, complete=True)
        self._store.update(result)
        _log.info("%s", result.summary)

    def _leave_out_unusual(self, updates: UpdateFolder, sites: dict[str, SiteRound]) -> None:
        past = self._store.accepted_norms(self._recipe.hash)
        for site in unusual_norms(updates.norms, past, self._options.norm_limit):
            updates.discard(site)
            code = ReplyCode.UNUSUAL_NORM.value
            sites[site] = sites[site].model_copy(update={"code": code})
            self._left_out[site] = code

    def _aggregate(
        self, number: int, updates: UpdateFolder, sites: Mapping[str, SiteRound]
    ) -> RoundResult:
        empty = RoundResult(round=number, recipe_hash=self._recipe.hash)
        if len(updates.sites) < self._recipe.minimum_sites:
            return empty
        weights = site_weights({site: sites[site].cases for site in updates.sites}, self._options)
        if self._alike:
            self._current = self._each_sites_own(updates, weights)
        else:
            self._current = self._common(combine(updates, weights, self._options))
        return empty.model_copy(update={"aggregated": True})

    def _common(self, change: Vector) -> Aggregate:
        moments = None
        if self._options.aggregation == "fedadam":
            step = self._store.aggregated_rounds(self._recipe.hash) + 1
            rate = self._options.server_learning_rate
            change, moments = adam_step(change, self._current.moments, step, rate)
        shared = self._layout.flatten(self._current.shared)
        return Aggregate(self._layout.unflatten(shared + change), moments=moments)

    def _each_sites_own(self, updates: UpdateFolder, weights: Mapping[str, float]) -> Aggregate:
        """Return the common average for newcomers, and one for each site by similarity."""
        own = dict(self._current.own)
        for site, row in similarity_weights(updates, weights).items():
            sent = {other: self._layout.flatten(self._sent_to(other)) for other in row}
            start = np.sum([row[other] * sent[other] for other in row], axis=0, dtype=np.float32)
            own[site] = self._layout.unflatten(start + weighted_mean(updates, row))
        starts = [
            weight * self._layout.flatten(self._sent_to(site)) for site, weight in weights.items()
        ]
        common = np.sum(starts, axis=0, dtype=np.float32) + weighted_mean(updates, weights)
        return Aggregate(self._layout.unflatten(common), own=own)

    def _change(self, arrays: Mapping[str, Tensor], site: str) -> Vector:
        """Return what a site has changed, from what it has sent."""
        if self._options.precision != "float32":
            return self._layout.flatten(expand_update(arrays))
        return self._layout.flatten(arrays) - self._layout.flatten(self._sent_to(site))

    def _sent_to(self, site: str) -> Mapping[str, Tensor]:
        return self._current.own.get(site, self._current.shared)

    def _exchange(
        self,
        kind: str,
        number: int,
        nodes: Iterable[int],
        sites: dict[str, SiteRound],
        read: "Callable[[Message, SiteRound], SiteRound]",
    ) -> None:
        """Send one instruction to each node, and read the answers one at a time."""
        deadline = time.monotonic() + 60 * self._options.deadline_minutes
        common = _Packed.of(self._current.shared)
        left = list(nodes)
        waiting: dict[str, str] = {}
        while (left or waiting) and time.monotonic() < deadline:
            now = left if self._at_once is None else left[: self._at_once - len(waiting)]
            if now:
                waiting |= self._ask(kind, number, now, sites, common)
                left = left[len(now) :]
            for message_id, site in list(waiting.items()):
                # One at a time, so that one update at most is in memory.
                answer = self._answer_of(site, message_id, sites, read)
                if answer == "none":
                    continue
                del waiting[message_id]
                if answer == "asks for parameters":
                    left.append(int(site))
                elif kind == "train" and sites[site].bytes_received > _LARGE_ANSWER:
                    give_back_freed_memory()
            if waiting:
                time.sleep(_POLL_SECONDS)
        for site in (*waiting.values(), *map(str, left)):
            known = sites.get(site, SiteRound(node_id=site, name=self._name_of(site)))
            missing = known.model_copy(update={f"{kind}_asked": True})
            sites[site] = missing.refused(kind, ReplyCode.NO_ANSWER.value)

    def _ask(
        self,
        kind: str,
        number: int,
        nodes: list[int],
        sites: dict[str, SiteRound],
        common: "_Packed",
    ) -> dict[str, str]:
        """Send the instructions of some nodes; return the sites by the message to wait for."""
        messages = [self._instruction(kind, number, node, common) for node in nodes]
        sizes = [_size(message) for message in messages]
        ids = self._grid.push_messages(messages)
        waiting = {}
        for message_id, site, size in itertools.zip_longest(ids, map(str, nodes), sizes):
            known = sites.get(site, SiteRound(node_id=site, name=self._name_of(site)))
            asked = {"bytes_sent": known.bytes_sent + size, f"{kind}_asked": True}
            sites[site] = known.model_copy(update=asked)
            if message_id:
                waiting[message_id] = site
            else:
                # SuperLink did not take the message.
                sites[site] = sites[site].refused(kind, ReplyCode.FAILED.value)
        return waiting

    def _answer_of(
        self,
        site: str,
        message_id: str,
        sites: dict[str, SiteRound],
        read: "Callable[[Message, SiteRound], SiteRound]",
    ) -> "_Answer":
        """Read a site's answer, if it is there, and let go of it."""
        reply = next(iter(self._grid.pull_messages([message_id])), None)
        if reply is None:
            return "none"
        code = code_of_error(reply) if reply.has_error() else ""
        if site in self._have_current and code == ReplyCode.PARAMETERS_MISSING.value:
            self._have_current.discard(site)
            return "asks for parameters"
        if code != ReplyCode.NO_ANSWER.value:
            # It has been told.
            self._left_out.pop(site, None)
        sites[site] = self._counted(reply, read(reply, sites[site]))
        return "read"

    def _instruction(self, kind: str, number: int, node: int, common: "_Packed") -> Message:
        site = str(node)
        own = self._current.own.get(site)
        shared = common if own is None else _Packed.of(own)
        is_known = kind == "train" and site in self._have_current
        config = config_record(
            self._recipe.hash,
            number,
            left_out=self._left_out.get(site, ""),
            digest=shared.digest if is_known else "",
        )
        arrays = {} if is_known else {SHARED_KEY: shared.record}
        content = RecordDict({**arrays, CONFIG_KEY: config})
        # The grid's own default would let Flower answer for a site before the deadline.
        return Message(
            content,
            node,
            kind,
            ttl=60 * self._options.deadline_minutes + 60,
            group_id=str(number),
        )

    @staticmethod
    def _counted(reply: Message, site: SiteRound) -> SiteRound:
        if not reply.has_content():
            return site
        return site.model_copy(update={"bytes_received": site.bytes_received + _size(reply)})


@dataclass(frozen=True)
class _Packed:
    """Parameters ready to be sent, and the digest that is sent to those who have them."""

    record: ArrayRecord
    digest: str

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        return cls(pack_parameters(state), digest_of(state))


def _size(message: Message) -> int:
    """Return the bytes of a message's parameters."""
    records = message.content.array_records.values()
    return sum(len(array.data) for record in records for array in record.values())


class _UpdateReader:
    """Checks an update and puts what its site changed into the folder."""

    def __init__(self, runner: RoundRunner, updates: UpdateFolder, number: int) -> None:
        self._runner = runner
        self._updates = updates
        self._number = number

    def __call__(self, reply: Message, site: SiteRound) -> SiteRound:
        runner = self._runner
        if reply.has_error():
            return site.refused("train", code_of_error(reply))
        try:
            arrays, metrics = check_update(
                reply.content, runner._recipe.hash, runner._spec, self._number
            )
        except RefusedMessageError as error:
            runner._left_out[site.node_id] = error.code.value
            return site.refused("train", error.code.value)
        self._updates.add(site.node_id, runner._change(arrays, site.node_id))
        return site.model_copy(
            update={
                "cases": int(metrics[EXAMPLES_KEY]),
                "loss": metrics["loss"],
                "training_seconds": metrics["seconds"],
                "norm": self._updates.norms[site.node_id],
            }
        )


class _JudgementReader:
    """Checks what a site says about the round's model."""

    def __init__(self, runner: RoundRunner, number: int) -> None:
        self._runner = runner
        self._number = number

    def __call__(self, reply: Message, site: SiteRound) -> SiteRound:
        if reply.has_error():
            return site.refused("evaluate", code_of_error(reply))
        try:
            check_recipe(reply.content, self._runner._recipe.hash)
            check_round(reply.content, self._number)
            metrics = read_metrics(reply.content, EVALUATE_METRICS)
        except RefusedMessageError as error:
            return site.refused("evaluate", error.code.value)
        return site.model_copy(
            update={
                "held_out": int(metrics[EXAMPLES_KEY]),
                "dice": {kind: metrics[f"dice-{kind}"] for kind in JUDGED_PROMPTS},
                "activated": bool(metrics["activated"]),
            }
        )
