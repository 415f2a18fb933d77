"""The part of the widget that trains at this site alone."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QProgressBar, QWidget

from napari_fedsam.annotation.local_training import TrainingState
from napari_fedsam.training.site_training import SiteTrainingResult
from napari_fedsam.widgets.section_parts import button, column, row, words


class TrainingSection(QWidget):
    """One button that starts, a bar, one that cancels, and what came of it.

    Signals: `start_wanted`, `cancel_wanted`.
    """

    start_wanted = Signal()
    cancel_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.start = button(
            "Train here now",
            self.start_wanted.emit,
            "Train this site's model on the kept cases, in the background and without exchanging "
            "anything",
        )
        self.cancel = button(
            "Cancel", self.cancel_wanted.emit, "End training; the model in use stays as it is"
        )
        self.progress = QProgressBar()
        self.outcome = words()
        self.outcome.setObjectName("napari-fedsam-training-outcome")
        layout = column(self)
        layout.addWidget(row(self.start, self.cancel, stretch=self.start))
        layout.addWidget(self.progress)
        layout.addWidget(self.outcome)
        self.show_state(TrainingState())

    def show_state(self, state: TrainingState) -> None:
        """Show where training stands."""
        running = state.status == "running"
        self.start.setEnabled(not running)
        self.cancel.setEnabled(running)
        self.progress.setVisible(running)
        if running:
            # Without any step done, nothing is known yet.
            self.progress.setRange(0, 100 if state.fraction else 0)
            self.progress.setValue(round(100 * state.fraction))
            self.progress.setFormat(f"training %p %{_left(state.seconds_left)}")
            self.outcome.setText("")
        elif state.result is not None:
            self.outcome.setText(_outcome(state.result))
        else:
            self.outcome.setText(state.reason)
        self.outcome.setVisible(bool(self.outcome.text()))


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", {round(seconds)} s left" if seconds < 90 else f", {round(seconds / 60)} min left"


def _outcome(result: SiteTrainingResult) -> str:
    trained = f"Trained on {_counted(result.cases, 'case')}."
    if not result.held_out:
        return (
            f"{trained} There are no held-out cases to judge the new model: it is kept but not "
            "used."
        )
    before, after = result.before, result.after
    if all(dice is None for dice in after.values()):
        return (
            f"{trained} No held-out case shows the structure, so that the new model cannot be "
            "judged: it is kept but not used."
        )
    rows = [
        f"Dice {prompt}: {_number(before[kind])} before, {_number(after[kind])} now"
        for kind, prompt in (
            ("none", "without a prompt"),
            ("box", "with a box"),
            ("point", "with one click"),
        )
    ]
    held_out = _counted(result.held_out, "held-out case")
    return f"{trained} On {held_out}: {'; '.join(rows)}. {result.verdict}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _number(dice: float | None) -> str:
    return "-" if dice is None else f"{dice:.2f}"
