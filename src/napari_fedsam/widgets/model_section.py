"""The part of the widget that says which model answers."""

from pathlib import Path

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QProgressBar, QWidget

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.model_source import SITE_MODEL
from napari_fedsam.sam.registry import available_models
from napari_fedsam.training.versions import Version
from napari_fedsam.widgets.section_parts import button, column, narrow, row, words

_FROM_FILE = "from file"


class ModelSection(QWidget):
    """Model choice, status line and a progress bar.

    Signals: `model_chosen` (`SITE_MODEL`, a registry name, or a checkpoint's path), `back_wanted`,
    `newest_wanted`.
    """

    model_chosen = Signal(str)
    back_wanted = Signal()
    newest_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.models = narrow(QComboBox())
        self.models.setToolTip("The model that answers prompts")
        self.models.addItem("This site's model", SITE_MODEL)
        for info in available_models():
            self.models.addItem(info.label, info.name)
        self.models.addItem("From a file…", _FROM_FILE)
        self.models.activated.connect(self._activated)
        self.status = words("no model loaded yet")
        self.status.setObjectName("napari-fedsam-model-status")
        self.back = button(
            "Go back", self.back_wanted.emit, "Use the model version before this one again"
        )
        self.use_newest = button("", self.newest_wanted.emit)
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self._keep_room_for_progress()
        layout = column(self)
        layout.addWidget(self.models)
        layout.addWidget(row(self.status, self.back, stretch=self.status))
        layout.addWidget(self.use_newest)
        layout.addWidget(self.progress)
        self._choice = SITE_MODEL
        self.show_model(None)
        self.show_back(False)
        self.show_unused(None)
        self._activity = ""
        self.set_activity("")

    def _keep_room_for_progress(self) -> None:
        policy = self.progress.sizePolicy()
        # Buttons below must not jump under the mouse whenever a slice is encoded.
        policy.setRetainSizeWhenHidden(True)
        self.progress.setSizePolicy(policy)
        self.progress.setFixedHeight(16)

    def show_model(self, model: ModelInUse | None) -> None:
        """Say what the model in use is."""
        self.status.setText("no model loaded yet" if model is None else model.label)

    def show_back(self, possible: bool) -> None:
        """Offer to go back where there is a version to leave, be it one that cannot be read."""
        self.back.setVisible(possible)

    def show_unused(self, version: Version | None) -> None:
        """Offer a newer version that was not taken up by itself."""
        self.use_newest.setVisible(version is not None)
        if version is not None:
            self.use_newest.setText(f"Use the newer model: {version.label}")
            self.use_newest.setToolTip(f"Newer than the model in use{_why_unused(version)}")

    def show_choice(self, choice: str) -> None:
        """Show which model was chosen."""
        self._choice = choice
        with QSignalBlocker(self.models):
            index = self.models.findData(choice)
            if index < 0:
                index = self.models.count() - 1
                self.models.insertItem(index, Path(choice).name, choice)
            self.models.setCurrentIndex(index)

    def set_activity(self, text: str, fraction: float | None = None) -> None:
        """Show what is being computed, or nothing for an empty text."""
        self._activity = text
        self.progress.setVisible(bool(text))
        self.progress.setFormat(text)
        if fraction is None:
            self.progress.setRange(0, 0)
        else:
            self.progress.setRange(0, 100)
            self.progress.setValue(round(100 * fraction))

    def _activated(self) -> None:
        choice = self.models.currentData()
        if choice == _FROM_FILE:
            choice, _ = QFileDialog.getOpenFileName(
                self, "Choose a checkpoint", filter="Checkpoints (*.pth *.pt *.safetensors)"
            )
            self.show_choice(choice or self._choice)
        if choice:
            self._choice = choice
            self.model_chosen.emit(choice)


def _why_unused(version: Version) -> str:
    if version.passed:
        return "; on this site's held-out cases it did no worse than the model in use then"
    if any(dice is not None for dice in version.dice.values()):
        return ", but it did worse on this site's held-out cases"
    return ", but this site has no held-out cases to judge it"
