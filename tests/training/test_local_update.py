"""One site's local update on two tiny cases."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from napari_fedsam.personalization import MethodOptions
from napari_fedsam.personalization.methods import Phase
from napari_fedsam.sam.encoder_split import EncoderSplit
from napari_fedsam.training.errors import CancelledError, TrainingError
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.local_update import _LocalUpdate, _set_rate, local_update


def frozen_state(model) -> dict[str, torch.Tensor]:
    names = model.parameters_of("shared").keys() | model.parameters_of("local").keys()
    return {k: v.clone() for k, v in model.state_dict().items() if k not in names}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(after[name], value)}


@pytest.fixture(scope="module")
def trained(personalise, samples, features):
    """What two steps of each phase of the full method move."""
    model = personalise(batch_size=1)
    before = model.shared_state(), model.local_state(), frozen_state(model)
    fractions: list[float] = []
    result = local_update(model, samples, seed=1, progress=fractions.append, cache=features)
    after = model.shared_state(), model.local_state(), frozen_state(model)
    return result, fractions, *(moved(b, a) for b, a in zip(before, after, strict=True)), model


def test_the_result_says_what_was_done(trained) -> None:
    result = trained[0]
    assert result.samples == 2
    assert 0 < result.loss < 10
    assert result.seconds > 0


def test_progress_rises_to_one_over_both_phases(trained) -> None:
    assert trained[1] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_both_phases_move_their_own_parameters(trained) -> None:
    _, _, shared, local, _, model = trained
    assert shared == set(model.shared_state())
    assert local == set(model.local_state())


def test_frozen_parameters_and_buffers_never_move(trained) -> None:
    assert trained[4] == set()


def test_no_gradient_is_left_behind_on_frozen_parameters(trained) -> None:
    assert all(p.grad is None for p in trained[5].parameters_of("frozen").values())


def test_the_shared_phase_leaves_the_local_parameters(personalise, samples, features) -> None:
    model = personalise(local_epochs=0)
    shared, local = model.shared_state(), model.local_state()
    local_update(model, samples, seed=0, cache=features)
    assert moved(shared, model.shared_state())
    assert not moved(local, model.local_state())


def test_the_local_phase_leaves_the_shared_parameters(personalise, samples, features) -> None:
    model = personalise()
    model.method = replace(model.method, phases=(Phase("local", distils=True),))
    shared, local = model.shared_state(), model.local_state()
    local_update(model, samples, seed=0, cache=features)
    assert not moved(shared, model.shared_state())
    assert moved(local, model.local_state())


def test_the_shared_phase_does_not_see_the_experts(personalise, samples, features) -> None:
    one, two = personalise(local_epochs=0), personalise(local_epochs=0)
    two.load_local({k: torch.full_like(v, 0.3) for k, v in two.local_state().items()})
    for model in (one, two):
        local_update(model, samples, seed=0, cache=features)
    assert not moved(one.shared_state(), two.shared_state())


def test_the_global_model_teaches_the_experts(personalise, samples, features) -> None:
    ends = []
    for strength in (0.0, 50.0):
        model = personalise(batch_size=1, options=MethodOptions(distillation=strength))
        model.method = replace(model.method, phases=(Phase("local", distils=True),))
        local_update(model, samples, seed=0, cache=features)
        ends.append(model.local_state())
    assert moved(*ends)


def test_the_loss_falls_when_two_cases_are_learnt_by_heart(personalise, samples, features) -> None:
    first = local_update(personalise(method="lora_fedavg"), samples, seed=0, cache=features)
    model = personalise(method="lora_fedavg", epochs=12, learning_rate=1e-3)
    last = local_update(model, samples, seed=0, cache=features)
    assert last.loss < 0.6 * first.loss


@pytest.fixture(scope="module")
def seeded(personalise, samples, features):
    def run(seed: int) -> dict[str, torch.Tensor]:
        model = personalise(batch_size=1, augmentations=1, local_epochs=0)
        local_update(model, samples, seed=seed, cache=features)
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


def test_training_can_be_cancelled_between_steps(personalise, samples, features) -> None:
    model = personalise(batch_size=1, epochs=50)
    asked: list[float] = []
    with pytest.raises(CancelledError, match="cancelled"):
        local_update(
            model,
            samples,
            seed=0,
            progress=asked.append,
            cancelled=lambda: len(asked) >= 2,
            cache=features,
        )
    assert len(asked) == 2


def test_without_cases_there_is_nothing_to_train(personalise) -> None:
    with pytest.raises(TrainingError, match="no training cases"):
        local_update(personalise(), [], seed=0)


@pytest.mark.parametrize("together", [False, True])
def test_absent_structures_are_trained_on(
    personalise, samples, absent, features, together: bool
) -> None:
    model = personalise(batch_size=3)
    before = model.shared_state()
    cases = [*samples, absent] if together else [absent]
    result = local_update(model, cases, seed=0, cache=features)
    assert result.samples == len(cases)
    assert np.isfinite(result.loss)
    assert moved(before, model.shared_state())


def test_an_absent_structure_is_learnt_as_nothing_to_mark(personalise, absent, features) -> None:
    from napari_fedsam.sam import Predictor, Prompts

    model = personalise(method="lora_fedavg", epochs=12, learning_rate=1e-3)
    local_update(model, [absent], seed=0, cache=features)
    predictor = Predictor(model)
    answer = predictor.predict(predictor.encode(absent.image), Prompts.none(), structure=3)
    assert not answer.mask.any()


def test_a_loss_that_is_no_number_stops_training(personalise, samples, features) -> None:
    model = personalise()
    model.load_shared({k: torch.full_like(v, 1e30) for k, v in model.shared_state().items()})
    with pytest.raises(TrainingError, match="no longer a number"):
        local_update(model, samples, seed=0, cache=features)


def test_features_are_computed_once(personalise, samples, monkeypatch) -> None:
    cache = FeatureCache()
    local_update(personalise(local_epochs=0), samples, seed=0, cache=cache)

    def never(*_: object) -> torch.Tensor:
        raise AssertionError("computed again")

    monkeypatch.setattr(EncoderSplit, "prefix", never)
    local_update(personalise(local_epochs=0), samples, seed=3, cache=cache)


@pytest.fixture
def update(personalise, make_sample, features):
    def build(**changes) -> _LocalUpdate:
        cases = [make_sample("abc"[:i], (10 * i, 20)) for i in range(1, 4)]
        return _LocalUpdate(personalise(**changes), cases, 0, features)

    return build


def test_every_case_comes_once_per_pass_in_a_new_order(update) -> None:
    indices = [i for batch in update(batch_size=2)._batches(30) for i in batch]
    passes = [tuple(indices[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(one) == [0, 1, 2] for one in passes)
    assert len(set(passes)) > 1


@pytest.mark.parametrize(
    ("epochs", "batch", "steps"), [(1, 2, 2), (2, 3, 2), (0.1, 4, 1), (4, 1, 12)]
)
def test_epochs_become_steps(update, epochs: float, batch: int, steps: int) -> None:
    assert update(epochs=epochs, batch_size=batch)._steps(Phase("shared")) == steps


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_simulated_boxes_shift_their_edges_within_the_image(update, samples, jitter) -> None:
    built = update(box_jitter=jitter)
    sample = samples[0]
    boxes = np.array([built._box(sample) for _ in range(200)])
    tight = np.array([10, 12, 30, 32])
    shift = np.abs(boxes - tight).max(axis=0)
    assert (shift <= jitter * 20 + 1e-4).all()
    assert (shift >= jitter * 20 * 0.8).all()
    assert boxes.min() >= 0
    assert (boxes[:, 2] <= 63).all()
    assert (boxes[:, 3] <= 47).all()


def test_targets_and_boxes_are_in_the_models_pixels(update) -> None:
    built = update(box_jitter=0.0)
    batch = built._batch([0, 1])
    assert batch.targets.shape == (2, 1, 256, 256)
    # 64 pixels wide become 256: the mask's box times four is where the target lies.
    for target, (x0, y0, x1, y1) in zip(batch.targets[:, 0], batch.boxes.tolist(), strict=True):
        rows, columns = torch.nonzero(target, as_tuple=True)
        seen = [columns.min(), rows.min(), columns.max(), rows.max()]
        np.testing.assert_allclose([x0, y0, x1, y1], [int(v) for v in seen], atol=5)


def test_the_learning_rate_warms_up_then_falls_as_half_a_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    rates = []
    for step in range(40):
        _set_rate(optimizer, 2.0, step, 40)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert all(earlier > later for earlier, later in pairwise(rates[4:]))
    assert 0 < rates[-1] < 0.02
    assert rates[22] == pytest.approx(1.0)
