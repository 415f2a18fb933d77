"""Lets a person pick one of several DICOM series."""

from collections.abc import Sequence

from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QLabel,
    QListWidget,
    QVBoxLayout,
    QWidget,
)

from napari_fedsam.imaging.errors import SeriesInfo


class SeriesDialog(QDialog):
    """A list of the series in a folder; the largest one is chosen at first."""

    def __init__(self, series: Sequence[SeriesInfo], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Choose a series")
        self._series: list[SeriesInfo] = list(series)
        self.list = QListWidget()
        for each in self._series:
            self.list.addItem(_words(each))
        largest = max(range(len(self._series)), key=lambda row: self._series[row].n_slices)
        self.list.setCurrentRow(largest)
        self.list.itemDoubleClicked.connect(self.accept)
        standard = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(standard.Open | standard.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel("This folder holds several series. Which one should be opened?"))
        layout.addWidget(self.list)
        layout.addWidget(buttons)
        self.resize(480, 280)

    @property
    def chosen(self) -> str:
        """The chosen series' identifier."""
        row: int = self.list.currentRow()
        return self._series[row].uid


def _words(series: SeriesInfo) -> str:
    slices = "slice" if series.n_slices == 1 else "slices"
    description = f": {series.description}" if series.description else ""
    return f"{series.name}{description} ({series.n_slices} {slices})"


def choose_series(series: Sequence[SeriesInfo], parent: QWidget | None = None) -> str | None:
    """Ask which series to open; None when the person gives up."""
    dialog = SeriesDialog(series, parent)
    try:
        accepted = dialog.exec() == QDialog.DialogCode.Accepted
        uid: str = dialog.chosen
        return uid if accepted else None
    finally:
        dialog.deleteLater()
