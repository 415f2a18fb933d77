"""Loads models in a thread and follows the site's newest accepted version."""

from collections.abc import Callable

from qtpy.QtCore import QObject, Signal

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.model_source import SITE_MODEL, ModelSource
from napari_fedsam.errors import FedSamError
from napari_fedsam.sam.registry import DEFAULT_MODEL
from napari_fedsam.training.versions import Version
from napari_fedsam.widgets.background import Background


class ModelLoading(QObject):
    """Loads the chosen model, and again whenever the site gets another version.

    Signals: `loaded` (`ModelInUse`, whether a new version replaced one that was in use),
    `failed` (`FedSamError`), `activity` (words, downloaded fraction or -1), `unused_changed`
    (`Version` or None: newer than the one in use).
    """

    loaded = Signal(object, bool)
    failed = Signal(object)
    activity = Signal(str, float)
    unused_changed = Signal(object)

    def __init__(self, source: ModelSource, background: Background) -> None:
        super().__init__()
        self.source = source
        self._background = background
        self._busy = False
        self._wanted: str | None = None
        self._seen_version: int | None = None
        self._model: ModelInUse | None = None
        self._unused: Version | None = None
        self.choice = SITE_MODEL

    @property
    def idle(self) -> bool:
        """Whether the chosen model is in use, or could not be loaded."""
        return not self._busy

    def use_source(self, source: ModelSource) -> None:
        """Load the model of another of the site's federations from now on."""
        self.source = source
        # A version of the same number is another one there.
        self._model, self._seen_version = None, None
        self.load(SITE_MODEL)

    def load(self, choice: str) -> None:
        """Load a model; the last choice wins."""
        self._wanted = choice
        if not self._busy:
            self._start()

    def follow_site(self) -> None:
        """Load the site's active version when it is another one; a timer calls this."""
        if self._busy or self.choice != SITE_MODEL or self._model is None:
            return
        try:
            active = self.source.active_version
        except FedSamError as error:
            active = self._seen_version
            self.failed.emit(error)
        if active != self._seen_version:
            self.load(SITE_MODEL)
        self._background.run("disk", self._find_unused, self._tell_unused, self.failed.emit)

    def go_back(self) -> None:
        """Return to the version before the active one, and load it."""
        self._activate(self.source.go_back)

    def use_newest(self) -> None:
        """Activate the newest version, and load it."""
        self._activate(self.source.use_newest)

    def _activate(self, step: Callable[[], None]) -> None:
        self._background.run("model", step, lambda _: self.follow_site(), self.failed.emit)

    def _find_unused(self) -> Version | None:
        return self.source.unused_version

    def _tell_unused(self, version: Version | None) -> None:
        if version != self._unused:
            self._unused = version
            self.unused_changed.emit(version)

    def _start(self) -> None:
        choice, source = self._wanted or SITE_MODEL, self.source
        self._wanted = None
        self._busy = True
        self.activity.emit("loading the model", -1.0)

        def job() -> tuple[ModelInUse, int | None]:
            # Read before loading: a version that comes meanwhile is loaded next time.
            version = source.active_version
            return source.load(choice, progress=self._tell_progress), version

        self._background.run(
            "model",
            job,
            lambda found: self._done(choice, source, *found),
            lambda error: self._fail(choice, source, error),
        )

    def _tell_progress(self, fraction: float) -> None:
        """Pass the downloaded fraction on from the thread; the signal is queued."""
        if not self._background.closed:
            self.activity.emit("fetching the model", fraction)

    def _done(
        self, choice: str, source: ModelSource, model: ModelInUse, version: int | None
    ) -> None:
        if source is not self.source:
            self._rest()
            return
        is_update = (
            self._model is not None
            and choice == self.choice == SITE_MODEL
            and model.version != self._model.version
        )
        self.choice, self._model, self._seen_version = choice, model, version
        self._rest()
        self.loaded.emit(model, is_update)

    def _fail(self, choice: str, source: ModelSource, error: FedSamError) -> None:
        if self._model is None and choice == SITE_MODEL and self._wanted is None:
            # Another federation's model must not go on answering in this one's place.
            self._wanted = DEFAULT_MODEL
        elif source is self.source and choice == self.choice == SITE_MODEL:
            # Not tried again until yet another version comes.
            self._seen_version = self._active_or_seen()
        self._rest()
        self.failed.emit(error)

    def _active_or_seen(self) -> int | None:
        try:
            return self.source.active_version
        except FedSamError:
            return self._seen_version

    def _rest(self) -> None:
        self._busy = False
        self.activity.emit("", -1.0)
        if self._wanted is not None:
            self._start()
