"""The slow steps of a session as values that can run in any thread.

A session hands out at most one piece of work at a time (`AnnotationSession.pending_work`), the
caller runs it where it likes, and brings the result back (`AnnotationSession.finish`). Work reads
nothing of the session while it runs, so a result that has become stale is simply dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.answer import answer
from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.cases.case import Structure
from napari_fedsam.imaging.window import Window, apply_window
from napari_fedsam.sam.prediction import ImageEmbedding, Prediction

if TYPE_CHECKING:
    # It needs `Place` from here.
    from napari_fedsam.annotation.viewpoint import Viewpoint


@dataclass(frozen=True)
class Place:
    """Where an ask lives: a slice and a structure's value."""

    slice: SliceKey
    structure: int


@dataclass(frozen=True, eq=False)
class EncodeWork:
    """Encode one slice.

    Attributes
    ----------
    key : tuple
        The cache's key for the result.
    pixels : ndarray
        The slice's stored values, (H, W) or (H, W, 3).
    """

    key: tuple[int, SliceKey, Window]
    model: ModelInUse
    pixels: NDArray[np.generic]
    window: Window

    @property
    def number(self) -> int:
        """Which of the scans that were opened it is for (see `Viewpoint`)."""
        return self.key[0]

    def run(self, between: Callable[[], None] | None = None) -> ImageEmbedding:
        """Window and encode the slice (slow: 0.3 s to many seconds); `between` may wait."""
        return self.model.encode(apply_window(self.pixels, self.window), between)


@dataclass(frozen=True, eq=False)
class PredictWork:
    """Answer an ask on an encoded slice.

    Attributes
    ----------
    number : int
        Which of the scans that were opened it is for (see `Viewpoint`).
    structure : Structure
        That of the place.
    """

    number: int
    place: Place
    structure: Structure
    ask: Ask
    model: ModelInUse
    window: Window
    embedding: ImageEmbedding
    earlier: tuple[Ask, Prediction] | None

    def run(self) -> Prediction:
        """Decode the mask (fast)."""
        return answer(
            self.model.predictor,
            self.embedding,
            self.ask,
            structure=self.model.structure_for(self.structure),
            earlier=self.earlier,
        )


Work = EncodeWork | PredictWork


@dataclass(frozen=True, eq=False)
class Preview:
    """The model's answer that is on screen, waiting to be accepted.

    Attributes
    ----------
    number : int
        Which of the scans that were opened it is of (see `Viewpoint`): places and windows of two
        scans are often the same.
    """

    number: int
    place: Place
    ask: Ask
    model: ModelInUse
    window: Window
    prediction: Prediction

    def is_of(self, view: "Viewpoint") -> bool:
        """Whether it is of the scan, the place and the window that are looked at."""
        seen = view.number, view.place, view.window
        return (self.number, self.place, self.window) == seen

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The proposed mask, shape (H, W)."""
        return self.prediction.mask

    @property
    def score(self) -> float:
        """The IoU that the model predicts for its own mask."""
        return self.prediction.score
