"""A reply survives lost answers of SuperLink, whose store of parts is Flower's own."""

import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPushError,
    push_object_contents_from_iterable,
)

from napari_fedsam.federation.handing_over import HandingOver
from napari_fedsam.federation.in_process import stand_in_for_a_run

RUN = 1


class SuperLink:
    """Takes parts as SuperLink does: each once in a session, all parts that are missing."""

    def __init__(self):
        self.stored = {}
        self.pending = {}
        self.sessions = 0
        self.taken = True
        self.handed_on = False
        self.lost = set()
        self.lock = threading.Lock()

    def send(self, _message, tree, _seconds):
        with self.lock:
            self.sessions += 1
            if self.handed_on and self.sessions > 1:
                return set(), str(self.sessions)
            names = {node.object_id for node in nodes_of(tree)}
            missing = names - self.stored.keys() if self.taken else set()
            self.pending = {(str(self.sessions), name) for name in missing}
            return set(missing), str(self.sessions)

    def push(self, run, session, name, content):
        with self.lock:
            # A lost answer: Flower's client asks again by itself, and is refused.
            for _ in range(2 if name in self.lost else 1):
                if (session, name) not in self.pending:
                    raise ObjectPushError(name, run, session)
                self.pending.discard((session, name))
                self.stored[name] = content
            self.lost.discard(name)


def nodes_of(tree):
    yield tree
    for child in tree.children:
        yield from nodes_of(child)


@pytest.fixture
def reply():
    stand_in_for_a_run()
    arrays = {f"layer {n}": Array(np.full(8, n, dtype=np.float32)) for n in range(5)}
    return Message(RecordDict({"shared": ArrayRecord(arrays)}), 2, "train")


@pytest.fixture
def superlink():
    return SuperLink()


def hand_over(superlink, reply, before_part=lambda _count: None):
    """Hand over as Flower's node does, with its own function."""
    parts = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
    handing = HandingOver(superlink.send, superlink.push)
    wanted, session = handing.send(reply, get_object_tree(reply), 1.0)

    def contents():
        for count, name in enumerate(sorted(wanted)):
            before_part(count)
            yield name, parts[name]

    push_object_contents_from_iterable(
        contents(), lambda name, content: handing.push(RUN, session, name, content)
    )
    return parts


def test_a_reply_arrives(superlink, reply):
    assert hand_over(superlink, reply) == superlink.stored
    assert superlink.sessions == 1


@pytest.mark.faults
@pytest.mark.parametrize("handed_on", [False, True])
@pytest.mark.parametrize("which", ["first", "last", "two"])
def test_a_part_whose_answer_was_lost_costs_nothing(superlink, reply, which, handed_on):
    superlink.handed_on = handed_on
    names = sorted(get_all_nested_objects(reply))
    superlink.lost = set({"first": names[:1], "last": names[-1:], "two": names[2:4]}[which])
    assert hand_over(superlink, reply) == superlink.stored
    assert superlink.sessions > 1


@pytest.mark.faults
def test_a_session_that_ran_out_in_a_long_cut_begins_anew(superlink, reply):
    def run_out(count):
        if count == 4:
            with superlink.lock:
                superlink.stored.clear()
                superlink.pending.clear()

    assert hand_over(superlink, reply, run_out) == superlink.stored


@pytest.mark.faults
def test_a_reply_that_is_not_taken_any_more_is_given_up(superlink, reply):
    def end_the_round(count):
        if count == 2:
            with superlink.lock:
                superlink.taken = False
                superlink.pending.clear()

    with pytest.raises(ObjectPushError):
        hand_over(superlink, reply, end_the_round)


@pytest.mark.faults
def test_a_superlink_that_never_takes_a_part_is_given_up(superlink, reply):
    def refuse(run, session, name, _content):
        raise ObjectPushError(name, run, session)

    superlink.push = refuse
    with pytest.raises(ObjectPushError):
        hand_over(superlink, reply)
    assert superlink.sessions < 100
