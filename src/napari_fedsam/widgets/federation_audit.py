"""Shows what was sent: every message that left this site, and what was in it."""

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QHeaderView,
    QPlainTextEdit,
    QSplitter,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.audit import AuditLine
from napari_fedsam.federation.sent import arrays_of, open_sent
from napari_fedsam.files import write_text_atomically

_COLUMNS = ("time (UTC)", "round", "purpose", "what", "bytes")


class AuditDialog(QDialog):
    """The audit log, newest first; a chosen message is opened from its kept bytes.

    Parameters
    ----------
    lines : sequence of AuditLine
        Oldest first.
    sent : Path
        Folder of the kept messages.
    parent : QWidget, optional
    """

    def __init__(
        self, lines: Sequence[AuditLine], sent: Path, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("What was sent")
        self.resize(760, 520)
        self._lines = list(reversed(lines))
        self._sent = sent
        self.table = QTableWidget(len(self._lines), len(_COLUMNS))
        self.table.setHorizontalHeaderLabels(_COLUMNS)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        for row, line in enumerate(self._lines):
            for column, text in enumerate(_cells(line)):
                self.table.setItem(row, column, QTableWidgetItem(text))
        self.table.resizeColumnsToContents()
        self.table.horizontalHeader().setSectionResizeMode(3, QHeaderView.ResizeMode.Stretch)
        self.table.itemSelectionChanged.connect(self._open_chosen)
        self.content = QPlainTextEdit("Choose a message to see what was in it.")
        self.content.setReadOnly(True)
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.addWidget(self.table)
        parts.addWidget(self.content)
        standard = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(standard.Save | standard.Close)
        buttons.button(standard.Save).setText("Export the list…")
        buttons.accepted.connect(self._ask_export)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(parts)
        layout.addWidget(buttons)

    def export(self, path: Path) -> None:
        """Write the whole list, oldest first, one JSON line a message."""
        text = "".join(f"{line.model_dump_json()}\n" for line in reversed(self._lines))
        write_text_atomically(path, text)

    def _ask_export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Export the list", "audit.jsonl", "JSON lines (*.jsonl)"
        )
        if path:
            self.export(Path(path))

    def _open_chosen(self) -> None:
        row = self.table.currentRow()
        if 0 <= row < len(self._lines):
            self.content.setPlainText(self._describe(self._lines[row]))

    def _describe(self, line: AuditLine) -> str:
        known = [f"{name} = {value:g}" for name, value in line.numbers.items()]
        known += [f"{name} = {value}" for name, value in line.texts.items()]
        head = [f"sha256 {line.sha256}", *([f"code {line.error}"] if line.error else []), *known]
        try:
            arrays = arrays_of(open_sent(self._sent, line))
        except FedSamError as error:
            arrays, note = {}, str(error)
            listed = [f"{a.name} {a.shape} {a.dtype}" for a in line.arrays]
        else:
            note = "Opened from the very bytes that were sent."
            listed = [
                f"{name} {array.shape} {array.dtype}, from {array.min():.4g} to {array.max():.4g}"
                for name, array in arrays.items()
            ]
        return "\n".join([note, "", *head, "", *listed])


def _cells(line: AuditLine) -> tuple[str, ...]:
    what = line.error or f"arrays: {len(line.arrays)}, numbers: {len(line.numbers)}"
    return line.time[:19].replace("T", " "), str(line.round), line.purpose, what, str(line.bytes)
