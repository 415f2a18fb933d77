"""Losses on the decoder's low-resolution mask logits."""

import torch
from torch.nn import functional as F

_SMOOTHING = 1e-5


def segmentation_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return Dice + binary cross-entropy, averaged over the batch.

    To the bit what MONAI's `DiceCELoss(sigmoid=True)` returns; importing MONAI would take longer
    than many a training, in each process that a round starts.

    Parameters
    ----------
    logits : float tensor of shape (B, 1, h, w)
    target : float tensor of shape (B, 1, h, w) in {0, 1}
    """
    logits = logits.float()
    probability = torch.sigmoid(logits)
    true = torch.sum(probability * target, dim=(2, 3))
    false_positive = (torch.sum(probability, dim=(2, 3)) - true) * 0.5
    false_negative = (torch.sum(target, dim=(2, 3)) - true) * 0.5
    overlap = 2 * true + _SMOOTHING
    whole = 2 * (true + false_positive + false_negative) + _SMOOTHING
    dice = torch.mean(1 - overlap / whole)
    return dice + F.binary_cross_entropy_with_logits(logits, target)


def score_loss(scores: torch.Tensor, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the squared error of the predicted IoU, as segment-anything trains its IoU head.

    Keeping the score calibrated keeps the ranking of candidate masks right.

    Parameters
    ----------
    scores : float tensor of shape (B, 1)
    logits, target : float tensors of shape (B, 1, h, w)
    """
    predicted = logits.detach() > 0
    truth = target > 0.5
    overlap = (predicted & truth).sum(dim=(2, 3)).float()
    union = (predicted | truth).sum(dim=(2, 3)).float()
    return F.mse_loss(scores.float(), torch.where(union > 0, overlap / union.clamp_min(1), 1.0))


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return T^2 * KL(teacher || student) of per-pixel mask logits, averaged over pixels.

    Each pixel is a Bernoulli variable whose logit is divided by T (Hinton et al. 2015).

    Parameters
    ----------
    student, teacher : float tensors of one shape
        The teacher gets no gradient.
    temperature : float
        T > 0.
    """
    student = student.float() / temperature
    teacher = teacher.detach().float() / temperature
    probability = torch.sigmoid(teacher)
    positive = probability * (F.logsigmoid(teacher) - F.logsigmoid(student))
    negative = (1 - probability) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return temperature**2 * (positive + negative).mean()
