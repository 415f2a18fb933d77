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
    shared_record,
)

SPEC = {"lora.a": ((2, 3), torch.float32), "scale": ((), torch.float32)}


def state() -> dict[str, torch.Tensor]:
    return {"scale": torch.tensor(2.0), "lora.a": torch.arange(6.0).reshape(3, 2).T}


def content_with(**changes: Array) -> RecordDict:
    arrays = dict(shared_record(state()))
    arrays.update(changes)
    return RecordDict({"shared": ArrayRecord(arrays)})


def test_shared_parameters_come_back_bit_for_bit():
    received = read_shared(RecordDict({"shared": shared_record(state())}), SPEC)
    assert set(received) == set(SPEC)
    for name, value in state().items():
        assert torch.equal(received[name], value)
        assert received[name].dtype == value.dtype


def test_equal_parameters_make_equal_messages():
    one = RecordDict({"shared": shared_record(state())})
    other = RecordDict({"shared": shared_record(dict(reversed(state().items())))})
    assert one.object_id == other.object_id


def array(values: object, dtype: str = "float32") -> Array:
    return Array(np.array(values, dtype=dtype))


def lying(shape: tuple[int, ...], dtype: str, values: Array) -> Array:
    return Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=values.data)


REFUSED = {
    "a local parameter too": content_with(**{"moe.expert0": array([1.0])}),
    "another shape": content_with(**{"lora.a": array(np.zeros((3, 2)))}),
    "one axis more": content_with(scale=array([2.0])),
    "another dtype": content_with(scale=array(2.0, "float64")),
    "integers": content_with(scale=array(2, "int32")),
    "not a number": content_with(scale=array(np.nan)),
    "infinite": content_with(scale=array(-np.inf)),
    "a shape that lies": content_with(
        **{"lora.a": lying((2, 3), "float32", array(np.zeros((3, 2))))}
    ),
    "a dtype that lies": content_with(scale=lying((), "float32", array(2, "int32"))),
    "a header that claims more than there is": content_with(
        **{"lora.a": lying((2, 3), "float32", array(np.zeros((600, 300))))}
    ),
    "a pickle": content_with(
        scale=Array(dtype="float32", shape=(), stype="pickle", data=b"\x80\x04N.")
    ),
    "bytes that are no array": content_with(
        scale=Array(dtype="float32", shape=(), stype="numpy.ndarray", data=b"?" * 100)
    ),
    "no arrays": RecordDict(),
    "two sets": RecordDict({"shared": shared_record(state()), "more": shared_record(state())}),
    "one missing": RecordDict({"shared": shared_record({"scale": torch.tensor(2.0)})}),
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
