"""From an ask to a mask: a pure function of the ask, whatever way it came about.

Corrections are answered one after another, each building on what came before. So an answer can
be continued when one is added, and replayed exactly when one is moved or taken back.

What was drawn is certain: no answer contradicts a scribble or what was painted by hand.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_fedsam.annotation.ask import Ask, Click, Correction, Painting, Path, Scribble
from napari_fedsam.annotation.bit_mask import BitMask
from napari_fedsam.annotation.drawing import pixels_of_line, pixels_within
from napari_fedsam.sam.prediction import ImageEmbedding, Prediction
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.prompts import Box, box_of_mask

_FEWEST_PIXELS = 8
"""A component of a mask prompt below this size is no object of its own."""


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
    parts = _one_object_each(ask)
    if len(parts) > 1:
        answers = [_answer_one(predictor, embedding, part, structure) for part in parts]
        return _obeying(predictor, _union(answers), ask.corrections)
    continued: tuple[Prediction, int] | None = None
    if earlier is not None and ask.starts_with(earlier[0]) and _has_base(earlier[0]):
        continued = earlier[1], len(earlier[0].corrections)
    return _answer_one(predictor, embedding, parts[0], structure, continued=continued)


def _answer_one(
    predictor: Predictor,
    embedding: ImageEmbedding,
    part: Ask,
    structure: int | None,
    *,
    continued: tuple[Prediction, int] | None = None,
) -> Prediction:
    """Answer an ask for one object, from an answer to its first corrections where there is one."""
    previous, done = continued or (None, 0)
    if continued is None and part.has_region:
        base = replace(part, corrections=())
        previous = predictor.predict(embedding, base.prompts(), structure=structure)
        previous = _within_lasso(predictor, previous, part)
    for count in range(done + 1, len(part.corrections) + 1):
        first = replace(part, corrections=part.corrections[:count])
        if not _has_base(first) and count < len(part.corrections):
            continue
        if not isinstance(first.corrections[-1], Painting):
            previous = predictor.predict(
                embedding, first.prompts(), structure=structure, previous=previous
            )
            previous = _within_lasso(predictor, previous, part)
        elif previous is None:
            blank = np.zeros(embedding.image_shape, np.bool_)
            previous = predictor.redrawn(blank, None)
        previous = _obeying(predictor, previous, first.corrections)
    if previous is None:
        return predictor.predict(embedding, part.prompts(), structure=structure)
    return previous


def _has_base(ask: Ask) -> bool:
    """Whether there is a mask to correct once this much has been asked."""
    return ask.has_region or any(
        isinstance(each, Painting) or each.positive for each in ask.corrections
    )


# --- several objects


def _one_object_each(ask: Ask) -> list[Ask]:
    """Split an ask into one per box, lasso and component of its mask.

    Each click and scribble goes to the nearest object; what was painted is applied to them all
    together afterwards.
    """
    objects = [Ask(boxes=(box,)) for box in ask.boxes]
    objects += [Ask(lassos=(outline,), boxes=(_box_around(outline),)) for outline in ask.lassos]
    if ask.mask is not None:
        objects += [Ask(mask=mask) for mask in _components(ask.mask)]
    if ask.proposal and not objects:
        objects = [Ask(proposal=True)]
    if len(objects) <= 1:
        only = objects[0] if objects else Ask()
        return [replace(only, corrections=ask.corrections)]
    boxes = [_extent(each) for each in objects]
    for correction in ask.corrections:
        if not isinstance(correction, Painting):
            distances = [_distance(correction, box) for box in boxes]
            nearest = distances.index(min(distances))
            objects[nearest] = objects[nearest].with_correction(correction)
    return objects


def _components(mask: BitMask) -> list[BitMask]:
    labelled, count = ndimage.label(mask.unpacked())
    if count <= 1:
        return [mask]
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    large = [index + 1 for index in range(count) if sizes[index] >= _FEWEST_PIXELS]
    return [BitMask.of(labelled == value) for value in large] or [mask]


def _extent(ask: Ask) -> Box:
    if ask.boxes:
        return ask.boxes[0]
    around = None if ask.mask is None else box_of_mask(ask.mask.unpacked())
    return around or (0.0, 0.0, 0.0, 0.0)


def _box_around(outline: Path) -> Box:
    corners = np.asarray(outline)
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _distance(correction: Click | Scribble, box: Box) -> float:
    points = np.asarray(correction.points)
    across = np.maximum(np.maximum(box[0] - points[:, 0], points[:, 0] - box[2]), 0)
    down = np.maximum(np.maximum(box[1] - points[:, 1], points[:, 1] - box[3]), 0)
    return float(np.hypot(across, down).min())


def _union(parts: list[Prediction]) -> Prediction:
    return Prediction(
        np.logical_or.reduce([part.mask for part in parts]),
        min(part.score for part in parts),
        np.maximum.reduce([part.low_res_logits for part in parts]),
    )


# --- what was drawn is certain


def _within_lasso(predictor: Predictor, found: Prediction, ask: Ask) -> Prediction:
    if not ask.lassos:
        return found
    inside = pixels_within(ask.lassos[0], _shape(found))
    return predictor.redrawn(found.mask & inside, found)


def _obeying(
    predictor: Predictor, found: Prediction, corrections: tuple[Correction, ...]
) -> Prediction:
    """Let an answer hold what was scribbled and painted, the later the stronger."""
    mask = found.mask.copy()
    for place, correction in enumerate(corrections):
        if isinstance(correction, Click):
            continue
        added, removed = _drawn(correction, _shape(found))
        later = corrections[place + 1 :]
        mask[_uncontradicted(added, later, by=False)] = True
        mask[_uncontradicted(removed, later, by=True)] = False
    return found if np.array_equal(mask, found.mask) else predictor.redrawn(mask, found)


def _drawn(
    correction: Scribble | Painting, shape: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if isinstance(correction, Painting):
        return correction.added.unpacked(), correction.removed.unpacked()
    line = pixels_of_line(correction.path, shape)
    nothing = np.zeros(shape, np.bool_)
    return (line, nothing) if correction.positive else (nothing, line)


def _uncontradicted(
    drawn: NDArray[np.bool_], later: tuple[Correction, ...], *, by: bool
) -> NDArray[np.bool_]:
    """Leave out the components of a drawing on which a later click says otherwise."""
    clicks = [each for each in later if isinstance(each, Click) and each.positive is by]
    if not clicks or not drawn.any():
        return drawn
    labelled, _ = ndimage.label(drawn)
    height, width = drawn.shape
    hit = {
        labelled[min(max(round(each.y), 0), height - 1), min(max(round(each.x), 0), width - 1)]
        for each in clicks
    }
    return drawn & ~np.isin(labelled, list(hit - {0}))


def _shape(found: Prediction) -> tuple[int, int]:
    height, width = found.mask.shape
    return height, width
