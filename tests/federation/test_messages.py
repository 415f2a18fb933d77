import json

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from napari_fedsam.federation.errors import RefusedMessageError, ReplyCode
from napari_fedsam.federation.messages import (
    TRAIN_METRICS,
    check_recipe,
    config_record,
    read_metrics,
    read_shared,
    round_of,
    shared_or_own,
)
from napari_fedsam.federation.packed_parameters import PACKED_KEY, digest_of, pack_parameters

SPEC = {"lora.a": ((2, 3), torch.float32), "scale": ((), torch.float32)}


def state() -> dict[str, torch.Tensor]:
    return {"scale": torch.tensor(2.0), "lora.a": torch.arange(6.0).reshape(3, 2).T}


def content_with(**changes: torch.Tensor) -> RecordDict:
    return RecordDict({"shared": pack_parameters({**state(), **changes})})


def packed_as(data: bytes, form: str = "safetensors") -> RecordDict:
    array = Array("uint8", (len(data),), form, data)
    return RecordDict({"shared": ArrayRecord({PACKED_KEY: array})})


def claiming(header: dict[str, object]) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(28)


def test_shared_parameters_come_back_bit_for_bit():
    received = read_shared(RecordDict({"shared": pack_parameters(state())}), SPEC)
    assert set(received) == set(SPEC)
    for name, value in state().items():
        assert torch.equal(received[name], value)
        assert received[name].dtype == value.dtype


def test_equal_parameters_make_equal_messages():
    one = RecordDict({"shared": pack_parameters(state())})
    other = RecordDict({"shared": pack_parameters(dict(reversed(state().items())))})
    assert one.object_id == other.object_id


def instruction_for(parameters, *, with_them: bool) -> RecordDict:
    packed = pack_parameters(parameters)
    content = {"config": config_record("a" * 64, 2, digest=digest_of(parameters))}
    return RecordDict({**content, **({"shared": packed} if with_them else {})})


def test_a_digest_stands_for_the_parameters_that_a_site_has():
    received = shared_or_own(instruction_for(state(), with_them=False), state(), SPEC)
    assert received.keys() == state().keys()
    assert all(torch.equal(received[name], value) for name, value in state().items())


def test_parameters_in_the_message_come_first():
    other = {name: value + 1 for name, value in state().items()}
    received = shared_or_own(instruction_for(other, with_them=True), state(), SPEC)
    assert torch.equal(received["scale"], torch.tensor(3.0))


def test_other_parameters_than_the_digests_are_asked_for():
    other = {name: value + 1e-6 for name, value in state().items()}
    with pytest.raises(RefusedMessageError) as caught:
        shared_or_own(instruction_for(other, with_them=False), state(), SPEC)
    assert caught.value.code is ReplyCode.PARAMETERS_MISSING


def test_without_parameters_and_digest_nothing_is_done():
    content = RecordDict({"config": config_record("a" * 64, 2)})
    with pytest.raises(RefusedMessageError) as caught:
        shared_or_own(content, state(), SPEC)
    assert caught.value.code is ReplyCode.REFUSED_ARRAYS


PACKED = pack_parameters(state())[PACKED_KEY].data
SCALE = {"dtype": "F32", "shape": [], "data_offsets": [24, 28]}

REFUSED = {
    "a local parameter too": content_with(**{"moe.expert0": torch.ones(1)}),
    "another shape": content_with(**{"lora.a": torch.zeros(3, 2)}),
    "one axis more": content_with(scale=torch.tensor([2.0])),
    "another dtype": content_with(scale=torch.tensor(2.0, dtype=torch.float64)),
    "integers": content_with(scale=torch.tensor(2, dtype=torch.int32)),
    "not a number": content_with(scale=torch.tensor(torch.nan)),
    "infinite": content_with(scale=torch.tensor(-torch.inf)),
    "arrays one by one": RecordDict(
        {"shared": ArrayRecord({n: Array(t.numpy()) for n, t in state().items()})}
    ),
    "another array beside": RecordDict(
        {
            "shared": ArrayRecord(
                {**pack_parameters(state()), "age": Array(np.array([71.0], np.float32))}
            )
        }
    ),
    "a pickle": packed_as(b"\x80\x04N.", "pickle"),
    "a pickle by another name": packed_as(b"\x80\x04N."),
    "bytes that are nothing": packed_as(b"?" * 100),
    "cut off": packed_as(PACKED[:-1]),
    "more at the end": packed_as(PACKED + b"71"),
    "arrays that overlap": packed_as(
        claiming(
            {"lora.a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]}, "scale": SCALE}
        )
    ),
    "a header that claims more than there is": packed_as(
        claiming(
            {
                "lora.a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                "scale": {**SCALE, "shape": [1_000_000], "data_offsets": [24, 4_000_024]},
            }
        )
    ),
    "no arrays": RecordDict(),
    "two sets": RecordDict({"shared": pack_parameters(state()), "more": pack_parameters(state())}),
    "one missing": RecordDict({"shared": pack_parameters({"scale": torch.tensor(2.0)})}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_is_not_on_the_allow_list_is_refused(name):
    with pytest.raises(RefusedMessageError) as caught:
        read_shared(REFUSED[name], SPEC)
    assert caught.value.code is ReplyCode.REFUSED_ARRAYS


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({"config": config_record("b" * 64, 1)}),
        RecordDict({"config": ConfigRecord({"server-round": 1})}),
        RecordDict(),
    ],
)
def test_another_recipe_or_none_is_refused(content):
    with pytest.raises(RefusedMessageError) as caught:
        check_recipe(content, "a" * 64)
    assert caught.value.code is ReplyCode.RECIPE_MISMATCH


def test_the_agreed_recipe_passes_and_the_round_is_read():
    content = RecordDict({"config": config_record("a" * 64, 7)})
    check_recipe(content, "a" * 64)
    assert round_of(content) == 7
    assert round_of(RecordDict()) == 0


GOOD = {"num-examples": 3, "loss": 0.5, "seconds": 1.0}


def test_the_numbers_of_an_update_are_read():
    content = RecordDict({"metrics": MetricRecord(GOOD)})
    assert read_metrics(content, TRAIN_METRICS) == GOOD


@pytest.mark.parametrize(
    "numbers",
    [
        {**GOOD, "age": 71.0},
        {"num-examples": 3, "loss": 0.5},
        {**GOOD, "loss": float("nan")},
        {**GOOD, "num-examples": -3},
        {**GOOD, "loss": [0.5, 0.4]},
    ],
    ids=["unknown", "missing", "nan", "negative", "a list"],
)
def test_other_numbers_are_refused(numbers):
    with pytest.raises(RefusedMessageError):
        read_metrics(RecordDict({"metrics": MetricRecord(numbers)}), TRAIN_METRICS)


def test_a_second_set_of_numbers_is_refused():
    content = RecordDict({"metrics": MetricRecord(GOOD), "more": MetricRecord({"age": 71.0})})
    with pytest.raises(RefusedMessageError):
        read_metrics(content, TRAIN_METRICS)
