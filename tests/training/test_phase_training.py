"""What moves in a phase, what it is pulled to, and how steps are taken."""

import pytest
import torch

from napari_fedsam.personalization import MethodOptions
from napari_fedsam.personalization.methods import Phase
from napari_fedsam.training.phase_training import PhaseTraining


def squares(training: PhaseTraining, model, trains: str) -> torch.Tensor:
    parameters = model.parameters_of(trains).values()
    return sum((p - 1).square().sum() for p in parameters)  # type: ignore[return-value]


def test_the_proximal_term_is_half_the_weighted_squared_distance(small) -> None:
    model = small(method="fedprox", options=MethodOptions(proximal=0.3))
    training = PhaseTraining(model, Phase("shared", proximal=True))
    assert float(training.pull().detach()) == 0.0
    count = 0
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters_of("shared").values()):
            parameter.add_(0.1 if number % 2 else -0.2)
            count += parameter.numel() * (1 if number % 2 else 4)
    expected = 0.5 * 0.3 * 0.01 * count
    assert float(training.pull().detach()) == pytest.approx(expected, rel=1e-4)


def test_a_personal_model_is_pulled_to_the_shared_one(small) -> None:
    model = small(method="ditto", options=MethodOptions(proximal=0.5))
    pairs = model.copies()
    with torch.no_grad():
        for shared, copy in pairs:
            shared.fill_(0.25)
            copy.fill_(1.0)
    training = PhaseTraining(model, Phase("local", proximal=True))
    count = sum(copy.numel() for _, copy in pairs)
    expected = 0.5 * 0.5 * 0.75**2 * count
    assert float(training.pull().detach()) == pytest.approx(expected, rel=1e-4)
    training.pull().backward()
    assert all(torch.allclose(copy.grad, torch.full_like(copy, 0.375)) for _, copy in pairs)
    assert all(shared.grad is None for shared, _ in pairs)


def test_phases_without_a_proximal_term_pull_nowhere(small) -> None:
    model = small(method="lora_fedavg")
    training = PhaseTraining(model, Phase("shared"))
    with torch.no_grad():
        next(iter(model.parameters_of("shared").values())).add_(1.0)
    assert float(training.pull()) == 0.0


@pytest.mark.parametrize(
    ("trains", "held"), [("shared", ("local",)), ("local", ("shared",)), ("both", ())]
)
def test_only_what_a_phase_trains_moves(small, trains: str, held: tuple[str, ...]) -> None:
    model = small()
    training = PhaseTraining(model, Phase(trains))  # type: ignore[arg-type]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = squares(training, model, "shared") + squares(training, model, "local")
    training.step(loss, 0.01)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    learning = {
        name
        for owner in ("shared", "local")
        if owner not in held
        for name in model.parameters_of(owner)
    }
    assert moved == learning
    assert all(p.grad is None for p in model.parameters())


def test_a_step_is_as_long_as_its_rate(small) -> None:
    """AdamW's first step is the rate itself in every coordinate, but for a hundredth's decay.

    What was inserted takes longer ones.
    """
    for rate in (0.1, 0.001):
        model = small(inserted_rate=3)
        training = PhaseTraining(model, Phase("shared"))
        before = model.shared_state()
        training.step(squares(training, model, "shared"), rate)
        after = model.shared_state()
        for ending, times in (("lora_b", 3), ("upscaling.0.bias", 1)):
            name = next(name for name in before if name.endswith(ending))
            moved = (after[name] - before[name]).abs()
            torch.testing.assert_close(
                moved, torch.full_like(moved, times * rate), rtol=0.02, atol=1e-6
            )


def test_gradients_are_clipped_together(small, monkeypatch) -> None:
    model = small()
    training = PhaseTraining(model, Phase("shared"))
    seen: list[float] = []

    def look(optimizer) -> None:
        gradients = [p.grad.flatten() for g in optimizer.param_groups for p in g["params"]]
        seen.append(float(torch.cat(gradients).norm()))

    monkeypatch.setattr(torch.optim.AdamW, "step", look)
    training.step(1e3 * squares(training, model, "shared"), 0.1)
    training.step(1e-9 * squares(training, model, "shared"), 0.1)
    assert seen[0] == pytest.approx(1.0, rel=1e-3)
    assert seen[1] < 1e-3


def test_parameters_that_a_loss_does_not_touch_stay(small) -> None:
    model = small()
    training = PhaseTraining(model, Phase("both"))
    before = model.local_state()
    training.step(squares(training, model, "shared"), 0.1)
    assert all(torch.equal(before[name], value) for name, value in model.local_state().items())


@pytest.mark.parametrize(
    ("method", "phase"),
    [
        ("fedprox", Phase("shared", proximal=True)),
        ("ditto", Phase("local", proximal=True)),
        ("pfedsam", Phase("both")),
    ],
)
def test_training_goes_on_exactly_from_what_was_kept(small, method: str, phase: Phase) -> None:
    def losses(model, training: PhaseTraining) -> torch.Tensor:
        parts = [squares(training, model, owner) for owner in ("shared", "local")]
        return sum(part for part in parts if torch.is_tensor(part)) + training.pull()  # type: ignore[return-value]

    straight = small(method=method)
    training = PhaseTraining(straight, phase)
    for _ in range(3):
        training.step(losses(straight, training), 0.05)
    kept = training.tensors()
    assert any(name.startswith("anchor/") for name in kept) == phase.proximal
    for _ in range(3):
        training.step(losses(straight, training), 0.05)

    resumed = small(method=method)
    again = PhaseTraining(resumed, phase)
    again.restore(kept)
    for _ in range(3):
        again.step(losses(resumed, again), 0.05)
    for one, two in (
        (straight.shared_state(), resumed.shared_state()),
        (straight.local_state(), resumed.local_state()),
    ):
        assert all(torch.equal(two[name], value) for name, value in one.items())


def test_what_is_kept_is_a_copy(small) -> None:
    model = small()
    training = PhaseTraining(model, Phase("shared"))
    training.step(squares(training, model, "shared"), 0.05)
    kept = training.tensors()
    before = {name: value.clone() for name, value in kept.items()}
    training.step(squares(training, model, "shared"), 0.05)
    assert all(torch.equal(kept[name], value) for name, value in before.items())
