"""Updates in fewer bits: how near they come, and that nothing is lost in the long run."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.training.update_rounding import (
    SCALES,
    expand_update,
    round_update,
    rounded_spec,
)

VALUES = st.floats(-1e3, 1e3, width=32, allow_nan=False)
UPDATES = st.lists(arrays.arrays(np.float32, (3, 2), elements=VALUES), min_size=1, max_size=6)


@pytest.mark.parametrize("precision", ["float16", "int8"])
@given(changes=UPDATES)
def test_what_rounding_loses_comes_with_later_updates(precision, changes) -> None:
    left_over, arrived = None, torch.zeros(3, 2)
    for change in changes:
        sent, left_over = round_update({"w": torch.from_numpy(change)}, precision, left_over)
        arrived += expand_update(sent)["w"]
    wanted = torch.from_numpy(np.sum(changes, axis=0))
    torch.testing.assert_close(arrived + left_over["w"], wanted, rtol=1e-4, atol=1e-2)


@given(arrays.arrays(np.float32, (5,), elements=VALUES))
def test_int8_is_off_by_half_a_step_at_most(values) -> None:
    _, left_over = round_update({"w": torch.from_numpy(values)}, "int8")
    assert float(left_over["w"].abs().max()) <= 0.5001 * float(np.abs(values).max()) / 127


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_rounded_update_is_what_its_description_says(precision) -> None:
    update = {"b": torch.zeros(2), "a": torch.tensor([[1e-9, 4e4]])}
    sent, _ = round_update(update, precision)
    described = {
        name: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in sent.items()
    }
    spec = {name: (tuple(value.shape), "float32") for name, value in update.items()}
    assert described == rounded_spec(spec, precision)
    assert all(value.isfinite().all() for value in sent.values())


def test_each_tensor_has_a_step_of_its_own() -> None:
    update = {"z": torch.tensor([127.0]), "a": torch.tensor([1.27])}
    sent, _ = round_update(update, "int8")
    torch.testing.assert_close(sent[SCALES], torch.tensor([0.01, 1.0]))
    torch.testing.assert_close(expand_update(sent), update)


def test_full_precision_is_described_as_it_is() -> None:
    spec = {"w": ((2,), "float32")}
    assert rounded_spec(spec, "float32") == spec
