"""Which phases are due in a round, with how many steps, and at what rate."""

import math
from itertools import pairwise

import pytest

from napari_fedsam.personalization import MethodOptions
from napari_fedsam.personalization.methods import METHODS, Phase
from napari_fedsam.training.schedule import Moment, Stretch, stretches

IMAGES = 3


@pytest.fixture
def due(make_recipe):
    """Return what is due at a site with three images."""

    def stretches_of(moment: Moment, *, round_number: int = 1, **changes) -> list[Stretch]:
        return stretches(make_recipe(**changes), IMAGES, moment, round_number)

    return stretches_of


@pytest.mark.parametrize(
    ("epochs", "batch", "steps"), [(1, 2, 2), (2, 3, 2), (0.1, 4, 1), (4, 1, 12), (4, 3, 4)]
)
def test_epochs_become_steps(due, epochs: float, batch: int, steps: int) -> None:
    changes = {"method": "lora_fedavg", "epochs": epochs, "batch_size": batch}
    (stretch,) = due("update", **changes)
    assert stretch.steps == steps
    assert due("personalise", **changes) == []


@pytest.mark.parametrize("method", ["decoupled", "fedrep", "ditto"])
def test_epochs_are_all_passes_and_the_local_phases_have_their_share(due, method: str) -> None:
    decoupled = {"options": MethodOptions(schedule="decoupled")}
    changes = decoupled if method == "decoupled" else {"method": method}
    changes |= {"epochs": 8, "batch_size": 1, "local_share": 0.25}
    found = [*due("update", **changes), *due("personalise", **changes)]
    assert {stretch.phase.trains: stretch.steps for stretch in found} == {
        "shared": 18,
        "local": 6,
    }


def test_what_is_trained_together_leaves_its_share_to_the_local_phase(due) -> None:
    changes = {"epochs": 8, "batch_size": 1, "local_share": 0.25}
    assert [stretch.steps for stretch in due("update", **changes)] == [18]
    assert [stretch.steps for stretch in due("personalise", **changes)] == [6]


def test_what_is_trained_at_once_has_all_passes(due) -> None:
    (stretch,) = due("update", method="fedper", epochs=8, batch_size=1)
    assert (stretch.phase.trains, stretch.steps) == ("both", 24)


def test_a_phase_without_a_share_is_left_out(due) -> None:
    found = due("update", method="fedrep", epochs=2, local_share=0.0)
    assert [stretch.phase.trains for stretch in found] == ["shared"]


@pytest.mark.parametrize("round_number", [1, 4, 5])
def test_fine_tuning_comes_after_the_last_round_with_the_passes_of_all(
    due, round_number: int
) -> None:
    changes = {
        "method": "lora_fedavg_ft",
        "epochs": 4,
        "batch_size": 1,
        "local_share": 0.25,
        "rounds": 5,
        "learning_rate": 2.0,
        "round_number": round_number,
    }
    assert [stretch.steps for stretch in due("update", **changes)] == [9]
    last = [(Phase("local"), 5 * 3, 1.0)] if round_number == 5 else []
    found = due("personalise", **changes)
    assert [(each.phase, each.steps, each.peak) for each in found] == last


def test_later_rounds_train_at_a_lower_rate(due) -> None:
    peaks = [
        due("update", learning_rate=1.0, rounds=10, round_number=number)[0].peak
        for number in (1, 2, 6, 10, 11, 30)
    ]
    assert peaks[0] == 1.0
    assert peaks[1] == pytest.approx(0.5 * (1 + math.cos(math.pi / 10)))
    assert peaks[2] == pytest.approx(0.5)
    assert peaks[3:] == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize("method", list(METHODS))
def test_a_whole_encoder_learns_at_a_fifth_of_the_rate(due, method: str) -> None:
    peaks = {stretch.peak for stretch in due("update", method=method, learning_rate=1.0)}
    assert peaks == {0.2 if method == "fedsam" else 1.0}


def test_the_rate_warms_up_then_falls_as_half_a_cosine() -> None:
    rates = [Stretch(Phase("shared"), 40, 2.0).rate(step) for step in range(40)]
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert all(earlier > later for earlier, later in pairwise(rates[4:]))
    assert 0 < rates[-1] < 0.02
    assert rates[22] == pytest.approx(1.0)


@pytest.mark.parametrize(("steps", "peak"), [(1, 0.05), (2, 0.1), (3, 0.15), (4, 0.2), (20, 1.0)])
def test_few_steps_stay_below_the_peak_in_proportion(steps: int, peak: float) -> None:
    stretch = Stretch(Phase("shared"), steps, 1.0)
    rates = [stretch.rate(step) for step in range(steps)]
    assert max(rates) == pytest.approx(peak)
    assert min(rates) > 0
