"""How many clicks a mask takes (NoC, Xu et al. 2016, arXiv 1603.04042)."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.sam.prediction import ImageEmbedding, Prediction
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.prompts import Prompts
from napari_fedsam.training.click_simulation import Click, next_click
from napari_fedsam.training.metrics import dice
from napari_fedsam.training.samples import TrainingSample

MOST_CLICKS = 10


def dice_after_clicks(
    predictor: Predictor,
    sample: TrainingSample,
    *,
    target: float,
    proposes: bool,
    encode: Callable[[NDArray[np.uint8]], ImageEmbedding] | None = None,
) -> list[float]:
    """Return the Dice after 0, 1, 2, ... simulated corrective clicks.

    Parameters
    ----------
    predictor : Predictor
    sample : TrainingSample
        With the structure present.
    target : float
        The user stops at this Dice, or after `MOST_CLICKS` clicks.
    proposes : bool
        Whether the model's proposal is what the user starts from; else an empty mask.
    encode : callable, optional
        Encodes an image; the predictor's own way when not given.
    """
    embedding = (encode or predictor.encode)(sample.image)
    answer: Prediction | None = None
    if proposes:
        answer = predictor.predict(embedding, Prompts.none(), structure=sample.structure)
    mask = np.zeros_like(sample.mask) if answer is None else answer.mask
    reached = [dice(mask, sample.mask) or 0.0]
    clicks: list[Click] = []
    while reached[-1] < target and len(clicks) < MOST_CLICKS:
        click = next_click(mask, sample.mask, clicks)
        if click is None:
            break
        clicks.append(click)
        answer = predictor.predict(
            embedding, _prompts(clicks), structure=sample.structure, previous=answer
        )
        mask = answer.mask
        reached.append(dice(mask, sample.mask) or 0.0)
    return reached


def clicks_to(reached: Sequence[float], target: float) -> int:
    """Return the number of clicks after which a Dice was reached; `MOST_CLICKS` if it never was.

    Parameters
    ----------
    reached : sequence of float
        From `dice_after_clicks`.
    target : float
    """
    return next((n for n, value in enumerate(reached) if value >= target), MOST_CLICKS)


def _prompts(clicks: Sequence[Click]) -> Prompts:
    return Prompts(
        np.array([(click.x, click.y) for click in clicks], np.float32),
        np.array([click.positive for click in clicks]),
    )
