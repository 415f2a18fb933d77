"""An interrupted local update goes on exactly where it was."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_fedsam.personalization.methods import METHODS
from napari_fedsam.training import local_update as module
from napari_fedsam.training.errors import CancelledError
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.resume import TrainingState

FEATURES = FeatureCache()


@pytest.fixture(autouse=True)
def saves_often(monkeypatch) -> None:
    monkeypatch.setattr(module, "_STEPS_BETWEEN_SAVES", 2)


def state(model) -> dict[str, torch.Tensor]:
    return {**model.shared_state(), **model.local_state()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == two.keys()
    return all(torch.equal(two[name], value) for name, value in one.items())


def interrupt(model, samples, path: Path, steps: int, **options) -> int:
    """Stop after some steps; return at how many of them the state was kept."""
    done: list[float] = []
    with pytest.raises(CancelledError):
        local_update(
            model,
            samples,
            progress=lambda p: done.append(p.fraction),
            cancelled=lambda: len(done) >= steps,
            cache=FEATURES,
            resume=path,
            **({"seed": 3} | options),
        )
    assert len(done) == steps
    return steps


# Method, what is different in the recipe, the moment, and after how many steps it is interrupted.
CASES = {
    "shared, after a save": ("pfedsam", {"epochs": 3.0}, "update", 3),
    "taught": ("pfedsam", {"epochs": 14.0}, "personalise", 3),
    "first phase": ("fedrep", {"epochs": 4.0, "local_share": 0.5}, "update", 3),
    "second phase, before a save": ("fedrep", {"epochs": 4.0, "local_share": 0.5}, "update", 5),
    "second phase, after a save": ("fedrep", {"epochs": 4.0, "local_share": 0.5}, "update", 7),
    "held near the start": ("fedprox", {"epochs": 2.0}, "update", 3),
    "held near the shared": ("ditto", {"epochs": 14.0}, "personalise", 3),
    "everything": ("fedsam", {"epochs": 2.0}, "update", 3),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_result_is_that_of_an_update_without_interruption(
    small, samples, tmp_path: Path, case: str
) -> None:
    method, changes, moment, steps = CASES[case]
    options = {"method": method, "batch_size": 1, "augmentations": 1} | changes
    path = tmp_path / "training.safetensors"
    straight = small(**options)
    expected = local_update(straight, samples, seed=3, moment=moment, cache=FEATURES)
    interrupt(small(**options), samples, path, steps, moment=moment)
    assert path.exists()

    resumed, fractions = small(**options), []
    result = local_update(
        resumed,
        samples,
        seed=3,
        moment=moment,
        progress=lambda p: fractions.append(p.fraction),
        cache=FEATURES,
        resume=path,
    )
    assert same(state(straight), state(resumed))
    assert result.losses == expected.losses
    assert result.loss == expected.loss
    assert len(fractions) < expected.steps
    assert fractions[-1] == 1.0
    assert not path.exists()


def test_interrupted_twice_it_still_ends_the_same(small, samples, tmp_path: Path) -> None:
    options = {"method": "fedprox", "batch_size": 1, "epochs": 4.0}
    path = tmp_path / "training.safetensors"
    straight = small(**options)
    local_update(straight, samples, seed=3, cache=FEATURES)
    interrupt(small(**options), samples, path, 3)
    interrupt(small(**options), samples, path, 3)
    resumed = small(**options)
    result = local_update(resumed, samples, seed=3, cache=FEATURES, resume=path)
    assert same(state(straight), state(resumed))
    assert result.steps == 8


def test_a_state_that_cannot_be_kept_does_not_stop_the_training(
    small, samples, tmp_path: Path, caplog
) -> None:
    path = tmp_path / "gone" / "training.safetensors"
    result = local_update(small(**OPTIONS), samples, seed=3, cache=FEATURES, resume=path)
    assert result.steps > 1
    assert "could not be kept" in caplog.text


def begun(small, samples, path: Path, **changes) -> None:
    interrupt(small(**(OPTIONS | changes)), samples, path, 3)
    assert path.exists()


OPTIONS = {"method": "lora_fedavg", "batch_size": 1, "epochs": 2.0}


def steps_of(model, samples, path: Path, **options) -> int:
    seen: list[float] = []
    local_update(
        model,
        samples,
        progress=lambda p: seen.append(p.fraction),
        cache=FEATURES,
        resume=path,
        **({"seed": 3} | options),
    )
    return len(seen)


def test_the_same_update_is_gone_on_with(small, samples, tmp_path: Path) -> None:
    path = tmp_path / "state"
    begun(small, samples, path)
    assert steps_of(small(**OPTIONS), samples, path) == 2


@pytest.mark.parametrize(
    "other", ["seed", "round", "recipe", "samples", "pixels", "order", "parameters", "moment"]
)
def test_a_state_of_another_update_is_not_used(
    small, samples, make_sample, monkeypatch, tmp_path: Path, other: str
) -> None:
    path = tmp_path / "state"
    begun(small, samples, path)
    model, cases, options = small(**OPTIONS), samples, {}
    if other == "seed":
        options = {"seed": 4}
    elif other == "round":
        options = {"round_number": 2}
    elif other == "recipe":
        model = small(**OPTIONS, learning_rate=1e-3)
    elif other == "samples":
        cases = [samples[0], make_sample("ccc", (30, 20), structure=7)]
    elif other == "pixels":
        cases = [samples[0], replace(samples[1], image=255 - samples[1].image)]
    elif other == "order":
        cases = samples[::-1]
    elif other == "parameters":
        model.load_shared({k: v + 0.01 for k, v in model.shared_state().items()})
    elif other == "moment":
        # The same phases at both moments: only the moment itself tells them apart.
        method = METHODS["lora_fedavg"]
        monkeypatch.setitem(METHODS, method.name, replace(method, personalise=method.update))
        options = {"moment": "personalise"}
    assert steps_of(model, cases, path, **options) == 4


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      ", None])
def test_a_damaged_state_is_not_used(small, samples, tmp_path: Path, content) -> None:
    path = tmp_path / "state"
    begun(small, samples, path)
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    assert steps_of(small(**OPTIONS), samples, path) == 4
    assert not path.exists()


def test_no_file_is_left_by_an_update_that_ends(small, samples, tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert steps_of(small(**OPTIONS), samples, path) == 4
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_before_the_first_save_begins_anew(small, samples, tmp_path: Path) -> None:
    path = tmp_path / "state"
    interrupt(small(**OPTIONS), samples, path, 1)
    assert not path.exists()
    assert steps_of(small(**OPTIONS), samples, path) == 4


def test_a_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    progress = {"phase": 1, "step": 20, "losses": [0.1, 1 / 3], "batches": {"turns": [3]}}
    tensors = {"parameter/a": torch.randn(2, 3), "optimizer/step/a": torch.tensor(4.0)}
    TrainingState("mine", tensors, progress).write(path)
    again = TrainingState.read(path, "mine")
    assert again is not None
    assert again.progress == progress
    assert same(again.tensors, tensors)
    assert TrainingState.read(path, "another") is None
    assert TrainingState.read(tmp_path / "gone", "mine") is None
