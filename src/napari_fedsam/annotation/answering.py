"""Who answers the prompts: the model, the encoded slices, and the preview on screen."""

from collections.abc import Callable
from typing import Any, ClassVar

from psygnal import Signal

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.embedding_cache import CAPACITY, EmbeddingCache
from napari_fedsam.annotation.foreseen import Foreseen
from napari_fedsam.annotation.hover import Hover
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.annotation.work import EncodeWork, PredictWork, Preview, Work
from napari_fedsam.errors import FedSamError
from napari_fedsam.sam.prediction import ImageEmbedding


class Answering:
    """Keeps the preview up with the prompts, by handing out work.

    Parameters
    ----------
    view : Viewpoint
        What is looked at.
    current_ask : callable
        Returns the prompts of the present place.

    Attributes
    ----------
    model : ModelInUse or None
        The model that answers.
    preview : Preview or None
        The newest answer for this place; while the next is computed, the one before it.
    hover : Hover
        What a point under the cursor would give, answered once all prompts are.
    foreseen : Foreseen
        The click that is expected next, answered after everything else.
    """

    preview_changed: ClassVar[Signal] = Signal()
    work_wanted: ClassVar[Signal] = Signal()
    failed: ClassVar[Signal] = Signal(Exception)

    def __init__(self, view: Viewpoint, current_ask: Callable[[], Ask]) -> None:
        self._view = view
        self._current_ask = current_ask
        self._cache = EmbeddingCache()
        self._refused: set[object] = set()
        self._encoded_ahead: set[object] = set()
        self.model: ModelInUse | None = None
        self.preview: Preview | None = None
        self.hover = Hover(view, current_ask)
        self.foreseen = Foreseen(view, current_ask)

    @property
    def is_current(self) -> bool:
        """Whether the preview answers the prompts as they are now."""
        return self.preview is not None and self._answers(self.preview)

    @property
    def is_encoded(self) -> bool:
        """Whether the slice on screen has been encoded."""
        return self._key in self._cache

    def use_model(self, model: ModelInUse) -> None:
        """Let another model answer from now on."""
        self.model = model
        self.forget()

    def forget(self) -> None:
        """Drop the encoded slices, what was answered ahead, and the preview of another scan.

        That of another model stays on screen, no longer current, until the next one comes.
        """
        self._cache.clear()
        self._refused.clear()
        self._encoded_ahead.clear()
        self.hover.drop()
        self.foreseen.drop()
        if self.preview is not None and self.preview.number != self._view.number:
            self.drop_preview()
        self.work_wanted.emit()

    def point_at(self, point: tuple[float, float] | None) -> None:
        """Answer for the cursor's position (x, y) too, while that is wanted (see `Hover`)."""
        if self.hover.is_wanted:
            self.hover.point_at(point)
            self.work_wanted.emit()

    def expect_click(self, x: float, y: float, *, positive: bool) -> None:
        """Answer a click at (x, y) before it is given, once nothing else is to be done."""
        self.foreseen.expect(x, y, positive=positive)
        self.work_wanted.emit()

    def use_foreseen(self) -> None:
        """Show at once what was computed ahead, if it answers the prompts as they are now."""
        foreseen = self.foreseen.answer
        if foreseen is not None and not self.is_current and self._answers(foreseen):
            self.preview = foreseen
            self.preview_changed.emit()

    def drop_preview(self) -> None:
        """Show no answer."""
        if self.preview is not None:
            self.preview = None
            self.preview_changed.emit()

    def pending_work(self, *, ahead: bool = True) -> Work | None:
        """Return what should be computed next, or None.

        Parameters
        ----------
        ahead : bool
            Also encode the slice on screen before anything was asked on it.
        """
        view, model = self._view, self.model
        if view.scan is None or model is None:
            return None
        ask = self._next_ask()
        if ask is None and not ahead:
            return None
        embedding = self._cache.get(self._key)
        work: Work | None = None
        if embedding is None:
            pixels = view.slice.pixels(view.display)
            work = EncodeWork(self._key, model, pixels, view.window)
        elif (ask := ask or self.foreseen.pending) is not None:
            work = PredictWork(
                view.number,
                view.place,
                view.structure,
                ask,
                model,
                view.window,
                embedding,
                self._earlier(),
            )
        return None if work is None or _identity(work) in self._refused else work

    def _next_ask(self) -> Ask | None:
        """Return what is to be answered next: the prompts, then the point under the cursor."""
        view, ask = self._view, self._current_ask()
        identity = view.number, view.place, ask, view.window
        if not (ask.is_empty or self.is_current or identity in self._refused):
            return ask
        return self.hover.pending

    def work_ahead(self) -> EncodeWork | None:
        """Return the slice to encode before anyone asks: the nearest of the plane, then the rest.

        None where nothing keeps what was encoded (see `ModelInUse.store`), and once all is done.
        """
        view, model = self._view, self.model
        if view.scan is None or model is None or model.store is None:
            return None
        here = view.slice.index
        for index in sorted(range(view.slice_count), key=lambda i: (abs(i - here), i)):
            place = SliceKey(view.slice.axis, index)
            key = view.number, place, view.window
            if key not in self._cache and key not in self._encoded_ahead | self._refused:
                return EncodeWork(key, model, place.pixels(view.display), view.window)
        return None

    def finish_ahead(self, work: EncodeWork, result: ImageEmbedding) -> None:
        """Take a slice that was encoded ahead; those nearby stay in memory too."""
        if self._is_stale(work):
            return
        self._encoded_ahead.add(work.key)
        place, here = work.key[1], self._view.slice
        if place.axis == here.axis and abs(place.index - here.index) <= CAPACITY // 3:
            self._cache.put(work.key, result)

    def finish(self, work: Work, result: Any) -> None:
        """Take the result of some work; one that has become stale is dropped."""
        if not self._is_stale(work):
            if isinstance(work, EncodeWork):
                self._cache.put(work.key, result)
            else:
                self._take(
                    Preview(work.number, work.place, work.ask, work.model, work.window, result)
                )
        self.work_wanted.emit()

    def _take(self, preview: Preview) -> None:
        if self._answers(preview):
            self.preview = preview
            self.preview_changed.emit()
        else:
            self.hover.take(preview)
            self.foreseen.take(preview)

    def refuse(self, work: Work, error: FedSamError) -> None:
        """Take note that some work failed: it is told once and not tried again.

        What was computed for a click that nobody has given, for a scan that was left or for a
        model that is gone is not spoken of.
        """
        if self._is_stale(work):
            self.work_wanted.emit()
            return
        if isinstance(work, PredictWork) and work.ask == self.foreseen.pending:
            self.foreseen.drop()
            self.work_wanted.emit()
            return
        self._refused.add(_identity(work))
        if isinstance(work, PredictWork) and work.ask != self._current_ask():
            # Else every movement of the mouse would tell of it again.
            self.hover.end()
        self.failed.emit(error)
        self.work_wanted.emit()

    def run_pending(self) -> None:
        """Do all pending work here and now (scripts and tests)."""
        while (work := self.pending_work()) is not None:
            try:
                result = work.run()
            except FedSamError as error:
                self.refuse(work, error)
            else:
                self.finish(work, result)

    @property
    def _key(self) -> tuple[int, Any, Any]:
        return self._view.number, self._view.slice, self._view.window

    def _is_stale(self, work: Work) -> bool:
        """Whether another scan or model has come since some work was handed out."""
        return work.model is not self.model or work.number != self._view.number

    def _answers(self, preview: Preview) -> bool:
        asked = preview.ask == self._current_ask()
        return asked and preview.model is self.model and preview.is_of(self._view)

    def _earlier(self) -> tuple[Ask, Any] | None:
        """Return the preview as something that further clicks may continue."""
        preview = self.preview
        if preview is None or preview.model is not self.model or not preview.is_of(self._view):
            return None
        return preview.ask, preview.prediction


def _identity(work: Work) -> object:
    if isinstance(work, EncodeWork):
        return work.key
    return work.number, work.place, work.ask, work.window
