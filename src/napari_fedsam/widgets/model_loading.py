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
    `failed` (`FedSamError`), `activity` (words, downloaded fraction or -1), `back_changed`
    (whether one can go back to an earlier version), `unused_changed` (`Version` or None: newer than
    the one in use). While another model than the site's is chosen, neither is on offer.
    """

    loaded = Signal(object, bool)
    failed = Signal(object)
    back_changed = Signal(bool)
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
        self._told = ""
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
        if self._busy or self.choice != SITE_MODEL:
            return
        source = self.source

        def look() -> tuple[int | None, Version | None]:
            return source.active_version, source.unused_version

        self._background.run(
            "disk", look, lambda found: self._followed(source, *found), self._tell_once
        )

    def go_back(self) -> None:
        """Return to the version that was in use before, and load it."""
        self._activate(self.source.go_back)

    def use_newest(self) -> None:
        """Activate the newest version, choose the site's model, and load it."""
        self._activate(self.source.use_newest)

    def _activate(self, step: Callable[[], None]) -> None:
        self._background.run("model", step, lambda _: self.load(SITE_MODEL), self.failed.emit)

    def _followed(self, source: ModelSource, active: int | None, unused: Version | None) -> None:
        if self._busy or source is not self.source or self.choice != SITE_MODEL:
            # Another model was chosen meanwhile.
            return
        self._told = ""
        if active != self._seen_version:
            self.load(SITE_MODEL)
        self._tell_unused(unused)

    def _tell_once(self, error: FedSamError) -> None:
        """Tell what prevents following, not at every look for as long as it lasts."""
        if str(error) != self._told:
            self._told = str(error)
            self.failed.emit(error)

    def _tell_unused(self, version: Version | None) -> None:
        if version != self._unused:
            self._unused = version
            self.unused_changed.emit(version)

    def _tell_offers(self) -> None:
        is_sites = self.choice == SITE_MODEL
        self.back_changed.emit(is_sites and self._seen_version is not None)
        if not is_sites:
            self._tell_unused(None)

    def _start(self) -> None:
        choice, self._wanted = self._wanted or SITE_MODEL, None
        self._load(choice, choice)

    def _load(self, choice: str, name: str) -> None:
        """Load a model by its name, which stands for what was chosen."""
        source = self.source
        self._busy = True
        self.activity.emit("loading the model", -1.0)

        def job() -> tuple[ModelInUse, int | None]:
            # Read before loading: a version that comes meanwhile is loaded next time.
            version = _active_of(source, otherwise=None)
            return source.load(name, progress=self._tell_progress), version

        self._background.run(
            "model",
            job,
            lambda found: self._done(choice, source, *found),
            lambda error: self._fail(choice, name, source, error),
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
        self._tell_offers()

    def _fail(self, choice: str, name: str, source: ModelSource, error: FedSamError) -> None:
        if self._model is None and name == SITE_MODEL and self._wanted is None:
            # Another federation's model must not go on answering in this one's place. The site's
            # stays the one that is chosen: it is followed, and one can go back.
            self.failed.emit(error)
            self._load(SITE_MODEL, DEFAULT_MODEL)
            return
        if source is self.source and choice == self.choice == SITE_MODEL:
            # Not tried again until yet another version comes.
            self._seen_version = _active_of(source, otherwise=self._seen_version)
            self._tell_offers()
        self._rest()
        self.failed.emit(error)

    def _rest(self) -> None:
        self._busy = False
        self.activity.emit("", -1.0)
        if self._wanted is not None:
            self._start()


def _active_of(source: ModelSource, *, otherwise: int | None) -> int | None:
    try:
        return source.active_version
    except FedSamError:
        return otherwise
