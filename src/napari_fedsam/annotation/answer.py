"""From an ask to a mask: a pure function of the ask, whatever way it came about.

Clicks are answered one after another, each correcting what came before. So an answer can be
continued when a click is added, and replayed exactly when one is moved or taken back.
"""

from dataclasses import replace

import numpy as np

from napari_fedsam.annotation.ask import Ask, Click
from napari_fedsam.sam.predictor import ImageEmbedding, Prediction, Predictor
from napari_fedsam.sam.prompts import Box


def answer(
    predictor: Predictor,
    embedding: ImageEmbedding,
    ask: Ask,
    *,
    structure: int | None = None,
    earlier: tuple[Ask, Prediction] | None = None,
) -> Prediction:
    """Answer an ask on an encoded slice.

    Parameters
    ----------
    predictor : Predictor
    embedding : ImageEmbedding
        Of the slice, from `predictor.encode`.
    ask : Ask
        What is asked; must not be empty.
    structure : int, optional
        The structure's value, for a model that knows it.
    earlier : (Ask, Prediction), optional
        An answer that this ask may continue; used only where it does.

    Raises
    ------
    PromptError
        When a prompt lies outside the slice, or there is nothing but negative clicks.
    """
    if len(ask.boxes) > 1:
        parts = [
            answer(predictor, embedding, part, structure=structure) for part in _one_box_each(ask)
        ]
        return _union(parts)
    done = 0
    previous: Prediction | None = None
    if earlier is not None and ask.starts_with(earlier[0]) and _has_base(earlier[0]):
        previous, done = earlier[1], len(earlier[0].clicks)
    elif ask.boxes or ask.proposal:
        base = replace(ask, clicks=()).prompts()
        previous = predictor.predict(embedding, base, structure=structure)
    for count in range(done + 1, len(ask.clicks) + 1):
        first = replace(ask, clicks=ask.clicks[:count])
        if not _has_base(first) and count < len(ask.clicks):
            continue
        previous = predictor.predict(
            embedding, first.prompts(), structure=structure, previous=previous
        )
    if previous is None:
        return predictor.predict(embedding, ask.prompts(), structure=structure)
    return previous


def _has_base(ask: Ask) -> bool:
    """Whether there is a mask to correct once this much has been asked."""
    return bool(ask.boxes) or ask.proposal or any(click.positive for click in ask.clicks)


def _one_box_each(ask: Ask) -> list[Ask]:
    """Split an ask into one per box, each click going to the nearest box."""
    shares: list[list[Click]] = [[] for _ in ask.boxes]
    for click in ask.clicks:
        distances = [_distance(click, box) for box in ask.boxes]
        shares[distances.index(min(distances))].append(click)
    return [
        Ask(boxes=(box,), clicks=tuple(share)) for box, share in zip(ask.boxes, shares, strict=True)
    ]


def _distance(click: Click, box: Box) -> float:
    across = max(box[0] - click.x, 0.0, click.x - box[2])
    down = max(box[1] - click.y, 0.0, click.y - box[3])
    return float(np.hypot(across, down))


def _union(parts: list[Prediction]) -> Prediction:
    return Prediction(
        np.logical_or.reduce([part.mask for part in parts]),
        min(part.score for part in parts),
        np.maximum.reduce([part.low_res_logits for part in parts]),
    )
