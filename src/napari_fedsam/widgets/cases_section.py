"""The part of the widget that lists the kept cases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QAbstractListModel, QModelIndex, QSize, Qt, QUrl
from qtpy.QtCore import Signal as QtSignal
from qtpy.QtGui import QDesktopServices, QIcon, QPixmap
from qtpy.QtWidgets import QLineEdit, QListView, QMessageBox, QWidget

from napari_fedsam.cases.case import CaseRecord
from napari_fedsam.widgets.section_parts import button, column, row, words

_THUMBNAIL = QSize(48, 48)
_NO_PARENT = QModelIndex()


class CasesModel(QAbstractListModel):
    """Case records as a Qt list, the newest first; thumbnails are read when they are shown.

    Parameters
    ----------
    thumbnail_path : callable
        Returns the path of a case's thumbnail.
    """

    def __init__(self, thumbnail_path: Callable[[str], Path]) -> None:
        super().__init__()
        self._thumbnail_path = thumbnail_path
        self._icons: dict[str, QIcon] = {}
        self.records: list[CaseRecord] = []

    def show(self, records: list[CaseRecord]) -> None:
        """Replace the list; records come oldest first."""
        self.beginResetModel()
        self.records = list(reversed(records))
        kept = {record.id for record in records}
        self._icons = {key: icon for key, icon in self._icons.items() if key in kept}
        self.endResetModel()

    def rowCount(self, parent: QModelIndex = _NO_PARENT) -> int:  # noqa: N802
        """Return the number of cases."""
        return 0 if parent.isValid() else len(self.records)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a case's words, thumbnail or tooltip."""
        if not 0 <= index.row() < len(self.records):
            return None
        record = self.records[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return _words(record)
        if role == Qt.ItemDataRole.DecorationRole:
            return self._icon(record.id)
        if role == Qt.ItemDataRole.ToolTipRole:
            return _details(record)
        return None

    def _icon(self, case_id: str) -> QIcon:
        if case_id not in self._icons:
            pixmap = QPixmap(str(self._thumbnail_path(case_id)))
            self._icons[case_id] = QIcon(pixmap)
        return self._icons[case_id]


def _words(record: CaseRecord) -> str:
    absent = " (absent)" if record.absent else ""
    when = record.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
    return f"{record.structure.name}{absent}\n{when}, {record.split}"


def _details(record: CaseRecord) -> str:
    place = f"{record.modality} {record.plane} slice {record.slice_index + 1}".strip()
    by = f"accepted by {record.annotator}" if record.annotator else "annotator not named"
    return f"Case {record.id}: {place}, {by}, mask proposed by {record.model or 'nobody'}"


class CasesSection(QWidget):
    """List of cases with delete and reveal, their count, and the annotator's name.

    Signals: `delete_wanted` (case id), `annotator_changed` (name).
    """

    delete_wanted = QtSignal(str)
    annotator_changed = QtSignal(str)

    def __init__(self, folder: Path, thumbnail_path: Callable[[str], Path], annotator: str) -> None:
        super().__init__()
        self._folder = folder
        self.model = CasesModel(thumbnail_path)
        self.list = QListView()
        self.list.setModel(self.model)
        self.list.setIconSize(_THUMBNAIL)
        self.list.setUniformItemSizes(True)
        self.list.setFixedHeight(150)
        self.count = words()
        self.annotator = QLineEdit(annotator)
        self.annotator.setPlaceholderText("annotator")
        self.annotator.setToolTip("Who accepts the masks; stays on this machine")
        self.annotator.editingFinished.connect(
            lambda: self.annotator_changed.emit(self.annotator.text().strip())
        )
        self.delete = button("Delete", self._delete, "Delete the chosen case")
        self.reveal = button("Reveal folder", self._reveal, "Show the cases on the disk")
        layout = column(self)
        layout.addWidget(self.count)
        layout.addWidget(self.list)
        layout.addWidget(row(self.annotator, self.delete, self.reveal, stretch=self.annotator))
        self.list.selectionModel().selectionChanged.connect(self._selection_changed)
        self.show_records([])

    @property
    def chosen(self) -> str | None:
        """The chosen case's id."""
        rows = [index.row() for index in self.list.selectedIndexes()]
        return self.model.records[rows[0]].id if rows else None

    def show_records(self, records: list[CaseRecord]) -> None:
        """Show these cases and count them."""
        self.model.show(records)
        self._selection_changed()
        absent = [record for record in records if record.absent]
        false = sum(1 for record in absent if _had_false_positives(record))
        validation = sum(1 for record in records if record.split == "val")
        text = "No case kept yet."
        if records:
            cases = "case" if len(records) == 1 else "cases"
            text = f"{len(records)} {cases}, {validation} held out to judge new models"
            if absent:
                text += f"; {len(absent)} absent, {false} wrongly proposed"
        self.count.setText(text)

    def _selection_changed(self) -> None:
        self.delete.setEnabled(self.chosen is not None)

    def _delete(self) -> None:
        case_id = self.chosen
        if case_id is None:
            return
        answer = QMessageBox.question(
            self,
            "Delete case",
            "Delete this case from the disk? Models that were trained on it keep what they have "
            "learned from it.",
        )
        if answer == QMessageBox.StandardButton.Yes:
            self.delete_wanted.emit(case_id)

    def _reveal(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._folder)))


def _had_false_positives(record: CaseRecord) -> bool:
    return any(prompt.get("false_positive_pixels") for prompt in record.prompts)
