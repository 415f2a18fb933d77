"""What a long piece of work tells, and where it runs."""

import pytest
import torch

from napari_fedsam.training import progress as progress_module
from napari_fedsam.training.devices import choose_device
from napari_fedsam.training.errors import TrainingError
from napari_fedsam.training.progress import Progress, ProgressMeter


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: Clock.now)
    return Clock


def test_the_time_left_follows_from_the_pace(clock) -> None:
    seen: list[Progress] = []
    meter = ProgressMeter(4, seen.append)
    for seconds in (2.0, 2.0, 5.0, 3.0):
        clock.now += seconds
        meter.step()
    assert seen == [
        Progress(0.25, 6.0),
        Progress(0.5, 4.0),
        Progress(0.75, 3.0),
        Progress(1.0, 0.0),
    ]


def test_steps_of_an_earlier_run_count_but_not_for_the_pace(clock) -> None:
    seen: list[Progress] = []
    meter = ProgressMeter(10, seen.append, done=8)
    clock.now += 7.0
    meter.step()
    assert seen == [Progress(0.9, 7.0)]


def test_nobody_needs_to_listen() -> None:
    ProgressMeter(1, None).step()


def test_the_best_device_there_is(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().type == "cuda"
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu", ""])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=f"no device '{name}': choose one of cpu"):
        choose_device(name)
