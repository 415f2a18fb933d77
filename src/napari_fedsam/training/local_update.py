"""One site's local update: train the shared and the local parameters on the site's cases."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from napari_fedsam.personalization.experts import experts_bypassed
from napari_fedsam.personalization.methods import Phase
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.sam.host_memory import keep_freed_memory
from napari_fedsam.sam.predictor import decode
from napari_fedsam.sam.preprocessing import mask_to_input
from napari_fedsam.sam.prompts import box_of_mask
from napari_fedsam.training.errors import CancelledError, TrainingError
from napari_fedsam.training.feature_cache import EncoderSplit, FeatureCache
from napari_fedsam.training.losses import distillation_loss, score_loss, segmentation_loss
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.variants import variant

_WARM_UP_SHARE = 0.1
_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class LocalUpdate:
    """What a local update did.

    Parameters
    ----------
    samples : int
        Training cases of the site.
    loss : float
        Mean loss of the last pass over the cases, in the last phase.
    seconds : float
    """

    samples: int
    loss: float
    seconds: float


@dataclass(frozen=True, eq=False)
class _Batch:
    """Cached features (B, ...), targets (B, 1, S, S), boxes (B, 4), structures and presence."""

    features: torch.Tensor
    targets: torch.Tensor
    boxes: torch.Tensor
    structures: list[int]
    present: torch.Tensor


def local_update(
    model: PersonalisedModel,
    samples: Sequence[TrainingSample],
    *,
    seed: int,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    cache: FeatureCache | None = None,
) -> LocalUpdate:
    """Train a personalised model in place, phase by phase, as its method declares.

    Parameters
    ----------
    model : PersonalisedModel
        Its recipe says how long and how fast.
    samples : sequence of TrainingSample
        Cases with the structure, and cases where it is absent.
    seed : int
        Same seed, same samples, same machine: same result.
    progress : callable, optional
        Called with the fraction done (0..1), filling the cache included.
    cancelled : callable, optional
        Asked before every step.
    cache : FeatureCache, optional
        To be used again by later updates of the same model and samples.

    Raises
    ------
    TrainingError
        Without samples, or when the loss is no longer a number.
    CancelledError
        When `cancelled` said so; the model then holds half-trained parameters: discard it.
    """
    if not samples:
        raise TrainingError("There are no training cases: accept some masks first.")
    keep_freed_memory()
    return _LocalUpdate(model, samples, seed, FeatureCache() if cache is None else cache).run(
        progress or (lambda _: None), cancelled or (lambda: False)
    )


class _LocalUpdate:
    def __init__(
        self,
        model: PersonalisedModel,
        samples: Sequence[TrainingSample],
        seed: int,
        cache: FeatureCache,
    ) -> None:
        self.model = model
        self.options = model.recipe.training
        self.samples = samples
        self.seed = seed
        self.cache = cache
        self.random = np.random.default_rng(seed)
        self.split = EncoderSplit(model)

    def run(self, progress: Callable[[float], None], cancelled: Callable[[], bool]) -> LocalUpdate:
        started = time.perf_counter()
        phases = [phase for phase in self.model.method.phases if self._steps(phase)]
        total = sum(self._steps(phase) for phase in phases)
        done = 0
        losses: list[float] = []
        for phase in phases:
            losses = []
            parameters = list(self.model.parameters_of(phase.trains).values())
            optimizer = torch.optim.AdamW(parameters, lr=self.options.learning_rate)
            steps = self._steps(phase)
            for step, indices in enumerate(self._batches(steps)):
                if cancelled():
                    raise CancelledError("Training was cancelled; the model in use is unchanged.")
                _set_rate(optimizer, self.options.learning_rate, step, steps)
                losses.append(self._step(phase, parameters, optimizer, self._batch(indices)))
                done += 1
                progress(done / total)
        tail = losses[-math.ceil(len(self.samples) / self.options.batch_size) :]
        return LocalUpdate(len(self.samples), float(np.mean(tail)), time.perf_counter() - started)

    def _steps(self, phase: Phase) -> int:
        epochs = self.options.epochs if phase.trains == "shared" else self.options.local_epochs
        return math.ceil(epochs * len(self.samples) / self.options.batch_size)

    def _batches(self, steps: int) -> Iterator[list[int]]:
        """Yield indices: every case once per pass, in a new random order each pass."""
        queue: list[int] = []
        for _ in range(steps):
            while len(queue) < self.options.batch_size:
                queue += self.random.permutation(len(self.samples)).tolist()
            yield queue[: self.options.batch_size]
            del queue[: self.options.batch_size]

    def _batch(self, indices: Sequence[int]) -> _Batch:
        chosen = [
            (index, int(self.random.integers(self.options.augmentations + 1))) for index in indices
        ]
        samples = [variant(self.samples[i], v, seed=self.seed) for i, v in chosen]
        features = [self._features(sample) for sample in samples]
        device = self.split.device
        size = self.model.input_size
        scales = [size / max(sample.mask.shape) for sample in samples]
        boxes = [self._box(sample) for sample in samples]
        return _Batch(
            torch.cat(features).to(device),
            torch.stack([(mask_to_input(s.mask, 256) > 0.5).float() for s in samples]).to(device),
            torch.from_numpy(
                np.stack([box * scale for box, scale in zip(boxes, scales, strict=True)])
            ).to(device),
            [sample.structure for sample in samples],
            torch.tensor([not sample.absent for sample in samples], device=device),
        )

    def _features(self, sample: TrainingSample) -> torch.Tensor:
        key = self.split.key(sample.image)
        cached = self.cache.get(key)
        if cached is None:
            cached = self.split.prefix(self.model.preprocess(sample.image)).to(torch.bfloat16)
            self.cache.put(key, cached)
        return cached.float()

    def _box(self, sample: TrainingSample) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Return the mask's box with shifted edges; an absent structure's box is not used."""
        box = np.array(box_of_mask(sample.mask) or (0, 0, 1, 1), np.float32)
        sides = np.tile(box[2:] - box[:2], 2)
        shift = self.random.uniform(-1, 1, 4) * self.options.box_jitter * sides
        height, width = sample.mask.shape
        limits = np.array([width - 1, height - 1] * 2)
        return np.clip(box + shift, 0, limits).astype(np.float32)

    def _step(
        self,
        phase: Phase,
        parameters: list[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        batch: _Batch,
    ) -> float:
        optimizer.zero_grad(set_to_none=True)
        if phase.trains == "shared":
            with experts_bypassed(self.model):
                loss = self._loss(batch, None)
        else:
            teacher = self._teacher(batch) if phase.distils else None
            loss = self._loss(batch, teacher)
        if not bool(loss.isfinite()):
            raise TrainingError("The training loss is no longer a number: lower the learning rate.")
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(parameters, _GRADIENT_NORM)
        optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def _teacher(self, batch: _Batch) -> tuple[torch.Tensor, torch.Tensor]:
        with experts_bypassed(self.model):
            (proposal, _), (boxed, _) = self._decode(batch)
        return proposal, boxed

    def _decode(
        self, batch: _Batch
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Return (logits, scores) without a prompt and with boxes."""
        device = self.split.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.split.bf16):
            embeddings = self.split.suffix(batch.features)
            proposal = decode(self.model, embeddings, structure=batch.structures)
            boxed = decode(self.model, embeddings, boxes=batch.boxes, structure=batch.structures)
        return proposal, boxed

    def _loss(
        self, batch: _Batch, teacher: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        proposal, boxed = self._decode(batch)
        weight = self.options.proposal_weight
        loss = weight * _prompt_loss(*proposal, batch.targets)
        present = batch.present
        if present.any():
            logits, scores = boxed
            boxed_loss = _prompt_loss(logits[present], scores[present], batch.targets[present])
            loss = loss + (1 - weight) * boxed_loss
        if teacher is not None:
            options = self.model.recipe.options
            distance = weight * distillation_loss(proposal[0], teacher[0], options.temperature)
            distance = distance + (1 - weight) * distillation_loss(
                boxed[0], teacher[1], options.temperature
            )
            loss = loss + options.distillation * distance
        return loss


def _prompt_loss(logits: torch.Tensor, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return segmentation_loss(logits, targets) + score_loss(scores, logits, targets)


def _set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    """Warm up linearly, then follow half a cosine towards zero."""
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    if step < warm_up:
        rate = peak * (step + 1) / warm_up
    else:
        rate = peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
    for group in optimizer.param_groups:
        group["lr"] = rate
