"""A site's training in a round: before the exchange, and after the aggregation."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.sam.host_memory import keep_freed_memory
from napari_fedsam.training.batches import Batches
from napari_fedsam.training.errors import CancelledError, TrainingError
from napari_fedsam.training.feature_cache import CachedEncoder, FeatureCache, TrainingEncoder
from napari_fedsam.training.phase_training import PhaseTraining
from napari_fedsam.training.progress import Progress, ProgressMeter
from napari_fedsam.training.prompted_loss import PromptedLoss
from napari_fedsam.training.resume import TrainingState
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.schedule import MOMENTS, Moment, Stretch, stretches

_log = logging.getLogger(__name__)

_STEPS_BETWEEN_SAVES = 20
_NO_NUMBERS = "Training diverged, so its outcome is not used: lower the learning rate."


@dataclass(frozen=True)
class LocalUpdate:
    """What a local update did.

    Parameters
    ----------
    samples : int
        Training cases of the site.
    steps : int
        Optimiser steps.
    loss : float
        Mean loss of the last pass over the images, in the last phase; NaN without any step.
    losses : tuple of float
        Of every step of the last phase.
    seconds : float
    """

    samples: int
    steps: int
    loss: float
    losses: tuple[float, ...]
    seconds: float


def local_update(
    model: PersonalisedModel,
    samples: Sequence[TrainingSample],
    *,
    seed: int,
    moment: Moment = "update",
    round_number: int = 1,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    cache: FeatureCache | None = None,
    resume: Path | None = None,
    encoder: TrainingEncoder | None = None,
) -> LocalUpdate:
    """Train a personalised model in place, phase by phase, as its method declares.

    Parameters
    ----------
    model : PersonalisedModel
        Its recipe says how long and how fast.
    samples : sequence of TrainingSample
        Cases with the structure, and cases where it is absent.
    seed : int
        Not negative. Same seed, round, moment, samples and machine: same result; every round and
        moment draws numbers of its own.
    moment : {"update", "personalise"}
        Before the exchange of shared parameters, or after their aggregation.
    round_number : int
        From 1; later rounds train at a lower rate.
    progress : callable, optional
        Called after every step.
    cancelled : callable, optional
        Asked before every step.
    cache : FeatureCache, optional
        To be used again by later updates of the same samples.
    resume : Path, optional
        A file in which the state is kept from time to time; an update that was interrupted goes
        on from it, with the result that it would have had. It is removed at the end.
    encoder : TrainingEncoder, optional
        By default one that computes the frozen prefix of each image only once.

    Raises
    ------
    TrainingError
        Without samples, or when the loss or the outcome are no longer numbers.
    CancelledError
        When `cancelled` said so; the model then holds half-trained parameters: discard it.
    """
    if not samples:
        raise TrainingError("There are no training cases: accept some masks first.")
    keep_freed_memory()
    if encoder is None:
        encoder = CachedEncoder(model, FeatureCache() if cache is None else cache)
    draws = (seed, round_number, MOMENTS.index(moment))
    trainer = _Trainer(model, samples, encoder, seed=draws, round_number=round_number)
    due = trainer.stretches(moment)
    with model.attention_biases_in_training():
        return trainer.run(due, progress, cancelled or (lambda: False), resume)


class _Trainer:
    def __init__(
        self,
        model: PersonalisedModel,
        samples: Sequence[TrainingSample],
        encoder: TrainingEncoder,
        *,
        seed: Sequence[int],
        round_number: int,
    ) -> None:
        self.model = model
        self.options = model.recipe.training
        self.samples = samples
        self.seed = tuple(seed)
        self.round_number = round_number
        self.batches = Batches(
            samples,
            encoder,
            seed=self.seed,
            augmentations=self.options.augmentations,
            box_jitter=self.options.box_jitter,
        )
        self.loss = PromptedLoss(model, encoder, self.batches.random)
        self.losses: list[float] = []

    def stretches(self, moment: Moment) -> list[Stretch]:
        """Return the phases that are due now with their steps."""
        return stretches(self.model.recipe, len(self.batches), moment, self.round_number)

    def run(
        self,
        due: Sequence[Stretch],
        progress: Callable[[Progress], None] | None,
        cancelled: Callable[[], bool],
        resume: Path | None,
    ) -> LocalUpdate:
        started = time.perf_counter()
        fingerprint = self._fingerprint(due) if resume else ""
        saved = TrainingState.read(resume, fingerprint) if resume else None
        first, skipped = (saved.progress["phase"], saved.progress["step"]) if saved else (0, 0)
        done = sum(stretch.steps for stretch in due[:first]) + skipped
        total = sum(stretch.steps for stretch in due)
        meter = ProgressMeter(total, progress, done=done)

        def before_step(number: int, step: int, training: PhaseTraining) -> None:
            if cancelled():
                raise CancelledError("Training was cancelled; the model in use is unchanged.")
            if resume and step and step % _STEPS_BETWEEN_SAVES == 0:
                here = {"phase": number, "step": step, "losses": self.losses}
                here["batches"] = self.batches.state()
                _keep(TrainingState(fingerprint, training.tensors(), here), resume)

        for number, stretch in enumerate(due[first:], start=first):
            resting = stretch.phase.trains != "local"
            with (
                self.model.copies_following(),
                self.model.copies_at_rest() if resting else nullcontext(),
            ):
                self._train(number, stretch, saved, before_step, meter)
            saved = None
        self._check_outcome()
        if resume:
            resume.unlink(missing_ok=True)
        tail = self.losses[-math.ceil(len(self.batches) / self.options.batch_size) :]
        loss = float(np.mean(tail)) if tail else math.nan
        seconds = time.perf_counter() - started
        return LocalUpdate(len(self.samples), total, loss, tuple(self.losses), seconds)

    def _train(
        self,
        number: int,
        stretch: Stretch,
        saved: TrainingState | None,
        before_step: Callable[[int, int, PhaseTraining], None],
        meter: ProgressMeter,
    ) -> None:
        training = PhaseTraining(self.model, stretch.phase)
        self.losses, begin = [], 0
        if saved is not None:
            training.restore(saved.tensors)
            self.batches.load_state(saved.progress["batches"])
            self.losses, begin = list(saved.progress["losses"]), int(saved.progress["step"])
        for step in range(begin, stretch.steps):
            before_step(number, step, training)
            rate = stretch.rate(step)
            as_global = not stretch.phase.personal or (stretch.phase.alternates and step % 2 == 0)
            self.losses.append(self._step(training, rate, as_global=as_global))
            meter.step()

    def _check_outcome(self) -> None:
        """See to the last step, after which there is no loss that would tell."""
        for state in (self.model.shared_state(), self.model.local_state()):
            if not all(bool(values.isfinite().all()) for values in state.values()):
                raise TrainingError(_NO_NUMBERS)

    def _step(self, training: PhaseTraining, rate: float, *, as_global: bool) -> float:
        batch = self.batches.draw(self.options.batch_size)
        distils = training.phase.distils and not as_global
        with self.model.global_view() if as_global else nullcontext():
            loss = self.loss(batch, distils=distils) + training.pull()
            if not bool(loss.isfinite()):
                raise TrainingError(_NO_NUMBERS)
            training.step(loss, rate, shared_alone=as_global)
        return float(loss.detach())

    def _fingerprint(self, due: Sequence[Stretch]) -> str:
        digest = hashlib.sha256()
        digest.update(f"{self.model.recipe.hash} {self.seed}".encode())
        digest.update(repr(due).encode())
        for sample in self.samples:
            digest.update(f"{sample.id} {sample.structure} {sample.image.shape}".encode())
            digest.update(sample.image.tobytes() + sample.mask.tobytes())
        for state in (self.model.shared_state(), self.model.local_state()):
            for name in sorted(state):
                digest.update(name.encode() + state[name].numpy().tobytes())
        return digest.hexdigest()


def _keep(state: TrainingState, path: Path) -> None:
    try:
        state.write(path)
    except (OSError, SafetensorError) as error:
        # An interruption would cost more then, but this training goes on.
        _log.warning("The state of training could not be kept in %s: %s", path, error)
