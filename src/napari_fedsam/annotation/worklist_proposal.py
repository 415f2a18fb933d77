"""What a model's proposals say of a scan that has not been opened yet."""

from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.answer import answer
from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.annotation.worklist import Proposal
from napari_fedsam.cases.case import Structure
from napari_fedsam.imaging.readers import read_scan
from napari_fedsam.imaging.window import apply_window
from napari_fedsam.sam.prediction import Prediction

SLICES = 5
"""How many slices of a scan are looked at, evenly spread."""


def propose_scan(
    path: Path,
    structure: Structure,
    model: ModelInUse,
    global_model: ModelInUse | None,
    between: Callable[[], None],
) -> Generator[None, None, Proposal]:
    """Read one scan and propose a structure on some of its slices, one slice a step.

    Parameters
    ----------
    path : Path
    structure : Structure
    model : ModelInUse
        One that can propose.
    global_model : ModelInUse or None
        The same model without what is this site's own.
    between : callable
        Called often; it may wait.

    Raises
    ------
    FedSamError
        When the scan cannot be read.
    """
    between()
    view = Viewpoint()
    view.open(read_scan(path))
    scores: list[float] = []
    common, total = 0, 0
    for index in _spread(view.slice_count):
        yield
        pixels = SliceKey(view.slice.axis, index).pixels(view.display)
        image = apply_window(pixels, view.window)
        own = _proposed(model, image, structure, between)
        if own.mask.any():
            scores.append(float(np.clip(own.score, 0, 1)))
        if global_model is not None:
            theirs = _proposed(global_model, image, structure, between).mask
            common += int((own.mask & theirs).sum())
            total += int(own.mask.sum() + theirs.sum())
    return Proposal(
        model=model.provenance,
        structure=structure.value,
        confidence=float(np.mean(scores)) if scores else 0.0,
        disagreement=None if global_model is None else (1 - 2 * common / total if total else 0.0),
    )


def _spread(count: int) -> list[int]:
    """Return the slices to look at; the middle one, on which a scan opens, is among them."""
    return sorted({int((place + 0.5) * count / SLICES) for place in range(SLICES)})


def _proposed(
    model: ModelInUse, image: NDArray[np.uint8], structure: Structure, between: Callable[[], None]
) -> Prediction:
    between()
    embedding = model.encode(image, between)
    return answer(
        model.predictor, embedding, Ask(proposal=True), structure=model.structure_for(structure)
    )
