"""One site's local update on two tiny cases."""

import itertools
import math

import numpy as np
import pytest
import torch

from napari_fedsam.personalization import MethodOptions, PromptShares
from napari_fedsam.personalization.methods import METHODS
from napari_fedsam.sam.encoder_split import EncoderSplit
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.prompts import Prompts
from napari_fedsam.training import local_update as local_update_module
from napari_fedsam.training.batches import Batches
from napari_fedsam.training.errors import CancelledError, TrainingError
from napari_fedsam.training.evaluation import evaluate
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.phase_training import PhaseTraining
from napari_fedsam.training.progress import Progress
from napari_fedsam.training.schedule import MOMENTS


def frozen_state(model) -> dict[str, torch.Tensor]:
    names = model.parameters_of("shared").keys() | model.parameters_of("local").keys()
    return {k: v.clone() for k, v in model.state_dict().items() if k not in names}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(after[name], value)}


def distance(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float((one[name] - two[name]).square().sum()) for name in one))


DECOUPLED = MethodOptions(schedule="decoupled")

# What a method moves before the exchange, and after the aggregation of the last round.
MOVES = {
    "pfedsam": ("both", "local"),
    "fedper": ("both", ""),
    "fedrep": ("both", ""),
    "local": ("local", ""),
    "local_norm": ("both", ""),
    "fedsca": ("both", ""),
    "ditto": ("shared", "local"),
    "lora_fedavg_ft": ("shared", "local"),
}


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_moves_its_own_parameters_in_their_time(
    personalise, samples, features, method: str
) -> None:
    model = personalise(method=method, rounds=1, batch_size=2, epochs=1)
    for moment, expected in zip(
        ("update", "personalise"), MOVES.get(method, ("shared", "")), strict=True
    ):
        before = model.shared_state(), model.local_state(), frozen_state(model)
        result = local_update(model, samples, seed=1, moment=moment, cache=features)
        after = model.shared_state(), model.local_state(), frozen_state(model)
        shared, local, frozen = (moved(b, a) for b, a in zip(before, after, strict=True))
        assert bool(shared) == (expected in ("shared", "both"))
        assert bool(local) == (expected in ("local", "both")), method
        assert not frozen
        assert (result.steps > 0) == bool(expected)
        assert all(p.grad is None for p in model.parameters())
    assert not any(module.training for module in model.modules())


def test_both_phases_move_all_of_their_own_parameters(small, samples) -> None:
    prompts = PromptShares(none=0.4, box=0.3, click=0.3)
    model = small(options=DECOUPLED, epochs=6.0, batch_size=1, prompts=prompts)
    shared, local = model.shared_state(), model.local_state()
    result = local_update(model, samples, seed=1)
    assert not moved(local, model.local_state())
    # Of the decoder only the head of the answer in use is trained.
    still = shared.keys() - moved(shared, model.shared_state())
    assert all(name.startswith("mask_decoder") for name in still)
    assert result.samples == 2
    assert 0 < result.loss < 10
    assert result.seconds > 0
    between = model.shared_state()
    local_update(model, samples, seed=1, moment="personalise")
    assert not moved(between, model.shared_state())
    assert moved(local, model.local_state()) == set(local)


def test_progress_rises_to_one_over_all_phases(small, samples) -> None:
    seen: list[Progress] = []
    model = small(method="fedrep", batch_size=1, epochs=2.0, local_share=0.5)
    result = local_update(model, samples, seed=1, progress=seen.append)
    assert [p.fraction for p in seen] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert all(p.seconds_left is not None and p.seconds_left >= 0 for p in seen)
    assert seen[-1].seconds_left == 0
    assert result.steps == 4
    # Of the last phase.
    assert len(result.losses) == 2
    assert result.loss == pytest.approx(np.mean(result.losses))


def test_the_shared_phase_does_not_see_the_experts(small, samples) -> None:
    one, two = small(options=DECOUPLED), small(options=DECOUPLED)
    two.load_local({k: torch.full_like(v, 0.3) for k, v in two.local_state().items()})
    for model in (one, two):
        local_update(model, samples, seed=0)
    assert not moved(one.shared_state(), two.shared_state())


def test_every_other_step_of_an_alternating_phase_is_the_global_models(small, samples) -> None:
    options = MethodOptions(schedule="alternating")
    model = small(options=options, epochs=1, batch_size=2)
    shared, local = model.shared_state(), model.local_state()
    assert local_update(model, samples, seed=0).steps == 1
    assert moved(shared, model.shared_state())
    assert not moved(local, model.local_state())
    model = small(options=options, epochs=2, batch_size=2)
    assert local_update(model, samples, seed=0).steps == 2
    assert moved(local, model.local_state())


def test_what_is_local_is_held_while_the_global_model_learns(small, samples) -> None:
    options = MethodOptions(schedule="alternating", decoder="local", structure_tokens="local")
    model = small(options=options, epochs=1, batch_size=2)
    shared, local = model.shared_state(), model.local_state()
    assert local_update(model, samples, seed=0).steps == 1
    assert moved(shared, model.shared_state())
    assert not moved(local, model.local_state())


def test_the_shared_phase_does_not_see_a_sites_own_copies(small, samples) -> None:
    one, two = small(method="ditto"), small(method="ditto")
    two.load_local({k: v + 0.3 for k, v in two.local_state().items()})
    for model in (one, two):
        local_update(model, samples, seed=0)
    assert not moved(one.shared_state(), two.shared_state())


def test_the_global_model_teaches_the_experts(small, samples) -> None:
    ends = []
    for strength in (0.0, 50.0):
        model = small(batch_size=1, epochs=4, options=MethodOptions(distillation=strength))
        local_update(model, samples, seed=0, moment="personalise")
        ends.append(model.local_state())
    assert moved(*ends)


@pytest.mark.parametrize(("method", "moment"), [("fedprox", "update"), ("ditto", "personalise")])
def test_a_strong_pull_keeps_parameters_near(small, samples, method: str, moment) -> None:
    far = []
    for strength in (0.0, 1000.0):
        options = MethodOptions(proximal=strength)
        model = small(method=method, options=options, epochs=8, batch_size=1, learning_rate=1e-3)
        start = small(method=method, options=options)
        local_update(model, samples, seed=0, moment=moment)
        owner = "shared_state" if method == "fedprox" else "local_state"
        far.append(distance(getattr(model, owner)(), getattr(start, owner)()))
    assert far[1] < 0.5 * far[0]


def test_the_loss_falls_when_two_cases_are_learnt_by_heart(personalise, samples, features) -> None:
    first = local_update(personalise(method="lora_fedavg"), samples, seed=0, cache=features)
    model = personalise(method="lora_fedavg", epochs=12, learning_rate=1e-3)
    last = local_update(model, samples, seed=0, cache=features)
    assert last.loss < 0.6 * first.loss


@pytest.fixture(scope="module")
def seeded(small, samples):
    def run(seed: int, number: int = 1) -> dict[str, torch.Tensor]:
        model = small(batch_size=1, augmentations=1, epochs=3)
        local_update(model, samples, seed=seed, round_number=number)
        state: dict[str, torch.Tensor] = model.shared_state()
        return state

    return run


def test_the_same_seed_gives_the_same_parameters(seeded) -> None:
    one = seeded(5)
    torch.manual_seed(1)
    np.random.seed(1)
    assert not moved(one, seeded(5))


def test_another_seed_gives_other_parameters(seeded) -> None:
    assert moved(seeded(5), seeded(6))


def test_every_seed_round_and_moment_draws_numbers_of_its_own(small, samples, monkeypatch) -> None:
    drawn = []

    def recorded(*args, **options) -> Batches:
        batches = Batches(*args, **options)
        drawn.append(repr(batches.random.bit_generator.state))
        return batches

    monkeypatch.setattr(local_update_module, "Batches", recorded)
    for seed, number, moment in itertools.product((0, 1), (1, 2), MOMENTS):
        local_update(small(), samples, seed=seed, round_number=number, moment=moment)
    assert len(set(drawn)) == len(drawn) == 8


def test_training_can_be_cancelled_between_steps(small, samples) -> None:
    model = small(batch_size=1, epochs=50)
    asked: list[Progress] = []
    with pytest.raises(CancelledError, match="cancelled"):
        local_update(
            model, samples, seed=0, progress=asked.append, cancelled=lambda: len(asked) >= 2
        )
    assert len(asked) == 2


def test_without_cases_there_is_nothing_to_train(small) -> None:
    with pytest.raises(TrainingError, match="no training cases"):
        local_update(small(), [], seed=0)


@pytest.mark.parametrize("together", [False, True])
def test_absent_structures_are_trained_on(small, samples, absent, together: bool) -> None:
    model = small(batch_size=3)
    before = model.shared_state()
    cases = [*samples, absent] if together else [absent]
    result = local_update(model, cases, seed=0)
    assert result.samples == len(cases)
    assert np.isfinite(result.loss)
    assert moved(before, model.shared_state())


def test_an_absent_structure_is_learnt_as_nothing_to_mark(personalise, absent, features) -> None:
    model = personalise(method="lora_fedavg", epochs=12, learning_rate=1e-3)
    local_update(model, [absent], seed=0, cache=features)
    predictor = Predictor(model)
    answer = predictor.predict(predictor.encode(absent.image), Prompts.none(), structure=3)
    assert not answer.mask.any()


def test_a_loss_that_is_no_number_stops_training(small, samples) -> None:
    model = small()
    model.load_shared({k: torch.full_like(v, 1e30) for k, v in model.shared_state().items()})
    with pytest.raises(TrainingError, match="diverged"):
        local_update(model, samples, seed=0)


def test_a_last_step_that_diverged_is_noticed(small, samples, monkeypatch) -> None:
    step = PhaseTraining.step

    def overflow(self, loss, rate, *, shared_alone=False):
        return step(self, loss * math.inf, rate, shared_alone=shared_alone)

    monkeypatch.setattr(PhaseTraining, "step", overflow)
    with pytest.raises(TrainingError, match="diverged"):
        local_update(small(method="lora_fedavg", epochs=1, batch_size=8), samples, seed=0)


def test_features_are_computed_once(small, samples, monkeypatch) -> None:
    cache = FeatureCache()
    local_update(small(epochs=4), samples, seed=0, cache=cache)

    def never(*_: object) -> torch.Tensor:
        raise AssertionError("computed again")

    monkeypatch.setattr(EncoderSplit, "prefix", never)
    # In the next phase and in the next round, too.
    local_update(small(), samples, seed=0, moment="personalise", cache=cache)
    local_update(small(epochs=4), samples, seed=3, round_number=2, cache=cache)


def test_a_moment_without_phases_changes_nothing(small, samples) -> None:
    model = small(method="lora_fedavg")
    before = model.shared_state()
    result = local_update(model, samples, seed=0, moment="personalise")
    assert result.steps == 0
    assert math.isnan(result.loss)
    assert not moved(before, model.shared_state())


def test_a_rounds_rate_reaches_the_optimiser(small, samples) -> None:
    """AdamW's single first step is as long as the rate: rounds apart are told from it."""
    lengths = []
    for number in (1, 10):
        model = small(method="lora_fedavg", rounds=10, epochs=1, batch_size=2, learning_rate=1e-3)
        before = model.shared_state()
        result = local_update(model, samples, seed=0, round_number=number)
        assert result.steps == 1
        lengths.append(distance(before, model.shared_state()))
    assert lengths[1] == pytest.approx(0.1 * lengths[0], rel=0.02)


@pytest.mark.parametrize("schedule", ["decoupled", "joint"])
def test_copies_move_along_while_the_shared_parameters_learn(small, samples, schedule) -> None:
    model = small(options=MethodOptions(personal_decoder=True, schedule=schedule), epochs=2)
    with torch.no_grad():
        for _, copy in model.copies():
            copy.add_(0.01)
    before = [(copy - shared).detach().clone() for shared, copy in model.copies()]
    start = model.shared_state()
    local_update(model, samples, seed=0)
    assert any("mask_decoder" in name for name in moved(start, model.shared_state()))
    assert model.local_copies.in_place
    for (shared, copy), apart in zip(model.copies(), before, strict=True):
        torch.testing.assert_close(copy - shared, apart, atol=1e-5, rtol=1e-3)


def test_two_cases_at_a_high_rate_do_not_make_the_model_forget_boxes(
    personalise, samples, features
) -> None:
    model = personalise(method="lora_fedavg", epochs=2, batch_size=1, learning_rate=1.2e-3)
    before = evaluate(Predictor(model), samples, ("box",)).mean_dice("box")
    local_update(model, samples, seed=0, cache=features)
    after = evaluate(Predictor(model), samples, ("box",)).mean_dice("box")
    assert after > before - 0.02
