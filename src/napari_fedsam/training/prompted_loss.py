"""The loss of a batch: without a prompt, and with boxes or with clicks on what is wrong."""

import functools
from dataclasses import dataclass

import numpy as np
import torch

from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.personalization.recipe import PromptShares
from napari_fedsam.sam.decoding import decode, decode_in_training
from napari_fedsam.training.batches import MASK_SIDE, Batch
from napari_fedsam.training.click_simulation import random_clicks
from napari_fedsam.training.feature_cache import TrainingEncoder
from napari_fedsam.training.losses import distillation_loss, score_loss, segmentation_loss

_MOST_CLICKS = 3


@dataclass(frozen=True, eq=False)
class Answer:
    """The decoder's answer to one prompt per mask: logits (B, 1, 256, 256), scores (B, 1)."""

    logits: torch.Tensor
    scores: torch.Tensor


@dataclass(frozen=True, eq=False)
class SimulatedPrompts:
    """What a batch is asked with beside no prompt: boxes, or clicks with or without a mask.

    Parameters
    ----------
    boxes : float tensor of shape (B, 4) or None
    points : ((B, n, 2) coordinates, (B, n) labels) or None
    logits : float tensor of shape (B, 1, 256, 256) or None
    """

    boxes: torch.Tensor | None = None
    points: tuple[torch.Tensor, torch.Tensor] | None = None
    logits: torch.Tensor | None = None


class PromptedLoss:
    """Computes answers and losses of one model.

    Parameters
    ----------
    model : PersonalisedModel
    encoder : TrainingEncoder
        Of the same model.
    random : numpy.random.Generator
        Decides between boxes and clicks, and where clicks are.
    """

    def __init__(
        self, model: PersonalisedModel, encoder: TrainingEncoder, random: np.random.Generator
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._random = random
        self._shares: PromptShares = model.recipe.training.prompts
        self._decode_fast = functools.partial(decode_in_training, bf16=encoder.bf16)

    def __call__(self, batch: Batch, *, distils: bool) -> torch.Tensor:
        """Return the loss of a batch, to be differentiated.

        Parameters
        ----------
        batch : Batch
        distils : bool
            Whether the global model teaches.
        """
        embeddings = self._embeddings(batch)
        proposal = self._decode(batch, embeddings, SimulatedPrompts())
        prompts = self._prompts(batch, proposal)
        answers = [proposal]
        if prompts is not None:
            answers.append(self._decode(batch, embeddings, prompts))
        loss = self._segmentation(batch, answers)
        options = self._model.recipe.options
        imbalance = self._model.expert_imbalance()
        if imbalance is not None:
            loss = loss + options.load_balance * imbalance
        if distils:
            distance = self._distance(batch, prompts, answers, options.temperature)
            loss = loss + options.distillation * distance
        return loss

    def _embeddings(self, batch: Batch) -> torch.Tensor:
        embeddings = self._encoder.suffix(batch.features, batch.pixels)
        if batch.image_of.tolist() == list(range(len(embeddings))):
            return embeddings
        # Its gradient is much quicker than that of indexing.
        return embeddings.index_select(0, batch.image_of)

    def _decode(self, batch: Batch, embeddings: torch.Tensor, prompts: SimulatedPrompts) -> Answer:
        run = decode if self._encoder.plain else self._decode_fast
        logits, scores = run(
            self._model,
            embeddings,
            points=prompts.points,
            boxes=prompts.boxes,
            logits=prompts.logits,
            structure=batch.structures,
        )
        return Answer(logits, scores)

    def _prompts(self, batch: Batch, proposal: Answer) -> SimulatedPrompts | None:
        """Choose boxes or clicks, as often as the recipe says; None when it wants neither."""
        shares = self._shares
        prompted = shares.box + shares.click
        if prompted == 0 or not bool(batch.present.any()):
            return None
        if self._random.random() * prompted < shares.box:
            return SimulatedPrompts(boxes=batch.boxes)
        corrects = bool(self._random.random() < 0.5)
        count = int(self._random.integers(1, _MOST_CLICKS + 1))
        wrong = (proposal.logits.detach() > 0) if corrects else torch.zeros_like(batch.targets)
        points = self._clicks(batch, wrong.bool(), count)
        return SimulatedPrompts(
            points=points, logits=proposal.logits.detach().float() if corrects else None
        )

    def _clicks(
        self, batch: Batch, masks: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        places = np.zeros((len(masks), count, 2), np.float32)
        labels = np.ones((len(masks), count), np.int64)
        truths = batch.targets[:, 0].bool().cpu().numpy()
        present = batch.present.tolist()
        for index, (mask, truth) in enumerate(zip(masks[:, 0].cpu().numpy(), truths, strict=True)):
            if not present[index]:
                continue
            # Nobody can click beside the image.
            rows, columns = batch.extents[index]
            within = mask[:rows, :columns], truth[:rows, :columns]
            clicks = random_clicks(*within, count, self._random)
            places[index] = [(click.x, click.y) for click in clicks]
            labels[index] = [click.positive for click in clicks]
        # Pixel centres of the low-resolution mask, in pixels of the encoder's input.
        scale = self._encoder.input_size / MASK_SIDE
        coordinates = torch.from_numpy((places + 0.5) * scale - 0.5)
        device = self._encoder.device
        return coordinates.to(device), torch.from_numpy(labels).to(device)

    def _segmentation(self, batch: Batch, answers: list[Answer]) -> torch.Tensor:
        proposal = answers[0]
        loss = self._shares.none * _loss(proposal, batch.targets)
        for answer in answers[1:]:
            # A box or a click says that the structure is there.
            prompted = Answer(_present(answer.logits, batch), _present(answer.scores, batch))
            targets = _present(batch.targets, batch)
            loss = loss + (1 - self._shares.none) * _loss(prompted, targets)
        return loss

    def _distance(
        self,
        batch: Batch,
        prompts: SimulatedPrompts | None,
        answers: list[Answer],
        temperature: float,
    ) -> torch.Tensor:
        with torch.no_grad(), self._model.global_view():
            embeddings = self._embeddings(batch)
            teachers = [self._decode(batch, embeddings, SimulatedPrompts())]
            if prompts is not None:
                teachers.append(self._decode(batch, embeddings, prompts))
        distance = self._shares.none * distillation_loss(
            answers[0].logits, teachers[0].logits, temperature
        )
        for answer, teacher in zip(answers[1:], teachers[1:], strict=True):
            distance = distance + (1 - self._shares.none) * distillation_loss(
                _present(answer.logits, batch), _present(teacher.logits, batch), temperature
            )
        return distance


def _present(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the values of the structures that are there; indexing has a slow gradient."""
    return values if bool(batch.present.all()) else values[batch.present]


def _loss(answer: Answer, targets: torch.Tensor) -> torch.Tensor:
    return segmentation_loss(answer.logits, targets) + score_loss(
        answer.scores, answer.logits, targets
    )
