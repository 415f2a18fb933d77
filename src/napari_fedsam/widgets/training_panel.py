"""Binds the training section to training in a child process."""

from collections.abc import Callable

from qtpy.QtCore import QObject, Signal

from napari_fedsam.annotation.local_training import LocalTraining, TrainingState
from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.annotation.structures import structures_of_cases
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.widgets.training_section import TrainingSection


class TrainingPanel(QObject):
    """Starts and cancels training, and shows its state; nothing here waits for it.

    Signals: `finished`, when there is a new version.
    """

    finished = Signal()
    _changed = Signal(object)

    def __init__(
        self,
        source: Callable[[], ModelSource],
        store: CaseStore,
        section: TrainingSection,
        tell: Callable[[FedSamError], None],
        *,
        ask_first: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.training = LocalTraining()
        self._source = source
        self._store = store
        self._section = section
        self._tell = tell
        self._ask_first = ask_first
        section.start_wanted.connect(self.start)
        section.cancel_wanted.connect(self.training.cancel)
        # The signal of the other thread arrives in this one.
        self._changed.connect(self._show)
        self.training.changed.connect(self._changed.emit)

    def start(self) -> None:
        """Train on the kept cases."""
        try:
            source = self._source()
            structures = structures_of_cases(self._store.records(), source.structures())
            self.training.start(source, structures, ask_first=self._ask_first())
        except FedSamError as error:
            self._tell(error)

    def close(self) -> None:
        """End training with the window."""
        self.training.changed.disconnect()
        self.training.cancel()

    def _show(self, state: TrainingState) -> None:
        self._section.show_state(state)
        if state.status == "done":
            self.finished.emit()
