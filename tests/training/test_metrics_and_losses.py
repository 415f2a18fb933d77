"""Numbers that can be checked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp
from monai.losses import DiceCELoss

from napari_fedsam.training.losses import distillation_loss, score_loss, segmentation_loss
from napari_fedsam.training.metrics import dice


def masks(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_dice() -> None:
    truth = masks("##..", "##..")
    assert dice(truth, truth) == 1.0
    assert dice(masks("#...", "#..."), truth) == pytest.approx(2 * 2 / 6)
    assert dice(~truth, truth) == 0.0
    assert dice(np.zeros_like(truth), truth) == 0.0


@pytest.mark.parametrize("marked", [False, True])
def test_an_empty_truth_has_no_dice(marked: bool) -> None:
    assert dice(np.full((2, 2), marked), np.zeros((2, 2), np.bool_)) is None


@given(hnp.arrays(np.bool_, (4, 5)), hnp.arrays(np.bool_, (4, 5)))
def test_dice_is_symmetric_and_between_0_and_1(a: np.ndarray, b: np.ndarray) -> None:
    value = dice(a, b)
    if value is not None:
        assert 0 <= value <= 1
        assert (value == 1) == np.array_equal(a, b)
        if a.any():
            assert value == dice(b, a)


def test_segmentation_loss_of_one_pixel() -> None:
    # p = sigmoid(0) = 1/2 against 1: soft Dice 1 - (2 * 0.5) / (0.5 + 1), cross-entropy log 2.
    loss = segmentation_loss(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    assert float(loss) == pytest.approx(1 - 1 / 1.5 + math.log(2), abs=1e-4)


def test_segmentation_loss_and_its_gradient_are_monais_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(4, 1, 32, 32, generator=generator)
    target = (torch.rand(values.shape, generator=generator) > 0.7).float()
    gradients = []
    for loss in (segmentation_loss, DiceCELoss(sigmoid=True)):
        logits = values.clone().requires_grad_()
        result = loss(logits, target)
        result.backward()
        gradients.append((result.detach(), logits.grad))
    assert all(torch.equal(ours, monais) for ours, monais in zip(*gradients, strict=True))


def test_segmentation_loss_falls_with_better_masks_and_averages_over_images() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[:, :, 2:6, 2:6] = 1
    right, wrong = (target - 0.5) * 20, (0.5 - target) * 20
    assert float(segmentation_loss(right, target)) < 0.01
    assert float(segmentation_loss(wrong, target)) > 5
    mixed = torch.cat([right[:1], wrong[1:]])
    halves = (segmentation_loss(right, target) + segmentation_loss(wrong, target)) / 2
    torch.testing.assert_close(segmentation_loss(mixed, target), halves)


def test_score_loss_is_the_squared_error_of_the_iou() -> None:
    target = torch.zeros(3, 1, 2, 2)
    target[0, 0, 0], target[1, 0, 0] = 1, 1
    logits = torch.full((3, 1, 2, 2), -1.0)
    logits[0, 0, :, 0] = 1  # IoU 1/3 with the upper row
    logits[1, 0, 0] = 1  # IoU 1
    scores = torch.tensor([[0.5], [0.7], [0.2]], requires_grad=True)  # the third: both empty, 1
    loss = score_loss(scores, logits, target)
    assert float(loss.detach()) == pytest.approx(((0.5 - 1 / 3) ** 2 + 0.3**2 + 0.8**2) / 3)
    loss.backward()
    assert scores.grad is not None


def test_score_loss_teaches_the_score_and_not_the_mask() -> None:
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    scores = torch.zeros(1, 1, requires_grad=True)
    score_loss(scores, logits, torch.ones(1, 1, 2, 2)).backward()
    assert logits.grad is None


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_of_one_pixel(temperature: float) -> None:
    student, teacher = 0.4, -1.2
    q = 1 / (1 + math.exp(-student / temperature))
    p = 1 / (1 + math.exp(-teacher / temperature))
    divergence = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    loss = distillation_loss(torch.tensor([student]), torch.tensor([teacher]), temperature)
    assert float(loss) == pytest.approx(temperature**2 * divergence, rel=1e-5)


def test_distillation_of_equals_is_zero_and_only_the_student_learns() -> None:
    logits = torch.linspace(-50, 50, 12).reshape(1, 1, 3, 4)
    assert float(distillation_loss(logits, logits, 2.0)) == pytest.approx(0, abs=1e-6)
    student = (logits + 1).requires_grad_()
    teacher = logits.clone().requires_grad_()
    distillation_loss(student, teacher, 2.0).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_distillation_stays_finite_for_certain_logits() -> None:
    loss = distillation_loss(torch.tensor([500.0]), torch.tensor([-500.0]), 1.0)
    assert float(loss) == pytest.approx(500)
