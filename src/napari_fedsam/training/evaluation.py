"""How well a model segments held-out images, by kind of prompt.

Prompts come from the true mask: none; its bounding box; or the pixel deepest inside its largest
component. Images where the structure is absent have no Dice: they count by the pixels that the
proposal wrongly marks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.sam.prediction import ImageEmbedding
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.prompts import Prompts, box_of_mask, deepest_point
from napari_fedsam.training.metrics import dice
from napari_fedsam.training.progress import Progress, ProgressMeter
from napari_fedsam.training.samples import TrainingSample

PromptKind = Literal["none", "point", "box"]

JUDGED_PROMPTS: tuple[PromptKind, ...] = ("none", "box", "point")
"""What a new model is judged by at a site, before it is used: everything that a person asks."""


@dataclass(frozen=True)
class ImageResult:
    """One image under one kind of prompt.

    Parameters
    ----------
    id, group : str
        The sample's.
    prompt : {"none", "point", "box"}
    dice : float or None
        None when the structure is absent.
    false_positives : int or None
        Pixels marked although the structure is absent; None when it is present.
    """

    id: str
    group: str
    prompt: PromptKind
    dice: float | None
    false_positives: int | None


@dataclass(frozen=True)
class Evaluation:
    """Results of a set of images.

    Parameters
    ----------
    images : tuple of ImageResult
    """

    images: tuple[ImageResult, ...]

    def mean_dice(self, prompt: PromptKind) -> float | None:
        """Return the mean Dice over images with the structure; None without any."""
        values = [r.dice for r in self.images if r.prompt == prompt and r.dice is not None]
        return float(np.mean(values)) if values else None

    def judged_dice(self) -> dict[str, float | None]:
        """Return the mean Dice by each kind of prompt that a site judges by."""
        return {kind: self.mean_dice(kind) for kind in JUDGED_PROMPTS}

    def overall_dice(self) -> float | None:
        """Return the mean of `mean_dice` over the kinds of prompt that were tried."""
        kinds = dict.fromkeys(result.prompt for result in self.images)
        known = [mean for kind in kinds if (mean := self.mean_dice(kind)) is not None]
        return math.fsum(known) / len(known) if known else None

    def count(self, prompt: PromptKind) -> int:
        """Return how many images with the structure were measured."""
        return sum(r.prompt == prompt and r.dice is not None for r in self.images)


def prompts_for(sample: TrainingSample, kind: PromptKind) -> Prompts | None:
    """Return the simulated prompt; None when an absent structure offers nothing to point at."""
    if kind == "none":
        return Prompts.none()
    if kind == "box":
        box = box_of_mask(sample.mask)
        return None if box is None else Prompts(box=box)
    point = deepest_point(sample.mask)
    return None if point is None else Prompts(np.array([point], np.float32), np.array([True]))


def evaluate(
    predictor: Predictor,
    samples: Sequence[TrainingSample],
    prompts: Sequence[PromptKind] = ("none", "point", "box"),
    *,
    encode: Callable[[NDArray[np.uint8]], ImageEmbedding] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Segment every sample under every kind of prompt.

    Parameters
    ----------
    predictor : Predictor
    samples : sequence of TrainingSample
    prompts : sequence of {"none", "point", "box"}
    encode : callable, optional
        Encodes an image; the predictor's own way when not given.
    progress : callable, optional
        Called after every sample.
    """
    encode = encode or predictor.encode
    meter = ProgressMeter(len(samples), progress)
    results: list[ImageResult] = []
    for sample in samples:
        embedding = encode(sample.image)
        for kind in prompts:
            given = prompts_for(sample, kind)
            if given is None:
                continue
            mask = predictor.predict(embedding, given, structure=sample.structure).mask
            wrong = int(mask.sum()) if sample.absent else None
            results.append(
                ImageResult(sample.id, sample.group, kind, dice(mask, sample.mask), wrong)
            )
        meter.step()
    return Evaluation(tuple(results))
