"""The part of the widget with the list of scans to work through."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QAbstractListModel, QModelIndex, QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QAbstractButton, QComboBox, QFileDialog, QListView, QMenu, QWidget

from napari_fedsam.annotation.worklist import Entry, Flag, Order, Worklist
from napari_fedsam.widgets.keys import KeyTooltips
from napari_fedsam.widgets.section_parts import button, column, narrow, row, swatch, words

_ACTIONS = (
    ("scan_done", "Done"),
    ("skip_scan", "Skip"),
    ("scan_unsure", "Unsure"),
    ("next_scan", "Next scan"),
)
_COLOURS = {
    Flag.TO_DO: "#9aa0a6",
    Flag.DONE: "#009e73",
    Flag.SKIPPED: "#5b6066",
    Flag.UNSURE: "#e69f00",
}
_PROBLEM = "#d55e00"
_CURRENT = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE} "
_LISTS = "Lists of scans (*.csv *.txt);;All files (*)"
_NO_PARENT = QModelIndex()


class WorklistModel(QAbstractListModel):
    """A worklist as a Qt list, two lines a scan."""

    def __init__(self) -> None:
        super().__init__()
        self._worklist: Worklist | None = None

    def show(self, worklist: Worklist | None) -> None:
        """Show a worklist, or none."""
        self.beginResetModel()
        self._worklist = worklist
        self.endResetModel()

    def refresh(self) -> None:
        """Show what has changed in it."""
        if self.rowCount():
            self.dataChanged.emit(self.index(0), self.index(self.rowCount() - 1))

    def rowCount(self, parent: QModelIndex = _NO_PARENT) -> int:  # noqa: N802
        """Return the number of scans."""
        worklist = self._worklist
        return 0 if worklist is None or parent.isValid() else len(worklist.entries)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a scan's words, flag or tooltip."""
        worklist, place = self._worklist, index.row()
        if worklist is None or not 0 <= place < len(worklist.entries):
            return None
        entry, problem = worklist.entries[place], worklist.problems.get(place)
        if role == Qt.ItemDataRole.DisplayRole:
            mark = _CURRENT if place == worklist.current else ""
            name = _name(entry.path, worklist.origin)
            return f"{mark}{name}\n{'cannot be opened' if problem else _in_short(entry)}"
        if role == Qt.ItemDataRole.DecorationRole:
            return swatch(_PROBLEM if problem else _COLOURS[entry.flag])
        if role == Qt.ItemDataRole.ToolTipRole:
            return (
                problem
                or f"{entry.path}\n{', '.join((entry.flag, *_cost(entry), *_proposal(entry)))}"
            )
        return None


class WorklistSection(QWidget):
    """Open button, order, the list, and buttons that flag the scan and go on.

    Signals: `open_wanted` (path), `entry_chosen` (its place in the list), `order_chosen` (Order).

    Parameters
    ----------
    do : callable
        Runs an action by its name.
    """

    open_wanted = Signal(object)
    entry_chosen = Signal(int)
    order_chosen = Signal(object)

    def __init__(self, do: Callable[[str], object]) -> None:
        super().__init__()
        self._worklist: Worklist | None = None
        self._earlier: Path | None = None
        self.open_button = button("Open list", lambda: None, "Work through many scans")
        menu = QMenu(self.open_button)
        menu.addAction("Folder of scans…", self._ask_folder)
        menu.addAction("Manifest or list…", self._ask_file)
        self.open_button.setMenu(menu)
        self.resume = button("", self._resume, "Go on with the worklist that was open last")
        self.orders = narrow(QComboBox())
        self.orders.setToolTip("Which scan comes next")
        for order in Order:
            self.orders.addItem(order.value, order)
        self.orders.activated.connect(lambda _: self.order_chosen.emit(self.orders.currentData()))
        self.model = WorklistModel()
        self.list = QListView()
        self.list.setModel(self.model)
        self.list.setUniformItemSizes(True)
        self.list.setFixedHeight(150)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.doubleClicked.connect(lambda index: self.entry_chosen.emit(index.row()))
        self.buttons: dict[str, QAbstractButton] = {
            name: button(text, functools.partial(do, name)) for name, text in _ACTIONS
        }
        self.status = words()
        self._actions = row(*self.buttons.values(), stretch=list(self.buttons.values()))
        layout = column(self)
        layout.addWidget(row(self.open_button, self.resume, self.orders, stretch=self.orders))
        layout.addWidget(self.list)
        layout.addWidget(self._actions)
        layout.addWidget(self.status)
        self._tooltips = KeyTooltips(self.buttons)
        self.show_model(can_propose=False, is_personalised=False)
        self.offer(None)
        self.refresh()

    def show_worklist(self, worklist: Worklist | None) -> None:
        """Show a worklist, or none."""
        self._worklist = worklist
        self.model.show(worklist)
        self.resume.hide()
        if worklist is not None:
            with QSignalBlocker(self.orders):
                self.orders.setCurrentIndex(self.orders.findData(worklist.order))
        self.refresh()
        self.show_current()

    def show_current(self) -> None:
        """Bring the scan being worked on into view."""
        if self._worklist is not None and self._worklist.current is not None:
            self.list.setCurrentIndex(self.model.index(self._worklist.current))

    def refresh(self) -> None:
        """Show what has changed."""
        worklist = self._worklist
        for part in (self.list, self._actions, self.orders):
            part.setVisible(worklist is not None)
        if worklist is None:
            self.status.setText("Open a folder of scans, or a list, to work through it.")
            return
        self.model.refresh()
        unsure, skipped = worklist.count(Flag.UNSURE), worklist.count(Flag.SKIPPED)
        text = f"{worklist.count(Flag.TO_DO)} of {len(worklist.entries)} left"
        text += f", {unsure} unsure" if unsure else ""
        text += f", {skipped} skipped" if skipped else ""
        if worklist.problems:
            text += f", {len(worklist.problems)} cannot be opened"
        self.status.setText(text)

    def show_model(self, *, can_propose: bool, is_personalised: bool) -> None:
        """Offer the orders that the model in use can tell of."""
        possible = {Order.CONFIDENCE: can_propose, Order.DISAGREEMENT: is_personalised}
        for index, order in enumerate(Order):
            is_possible = possible.get(order, True)
            item = self.orders.model().item(index)
            item.setEnabled(is_possible)
            item.setToolTip(
                ""
                if is_possible
                else "Needs a model that has learned to propose the chosen structure, such as one "
                "personalised in a federation"
            )

    def offer(self, origin: Path | None) -> None:
        """Offer to go on with an earlier worklist."""
        self._earlier = origin
        self.resume.setVisible(origin is not None and self._worklist is None)
        if origin is not None:
            self.resume.setText("Continue the last one")
            self.resume.setToolTip(f"Go on with {origin.name}")

    def close_section(self) -> None:
        """Let go of napari."""
        self._tooltips.close()

    def _resume(self) -> None:
        if self._earlier is not None:
            self.open_wanted.emit(self._earlier)

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open a folder of scans")
        if path:
            self.open_wanted.emit(Path(path))

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a list of scans", filter=_LISTS)
        if path:
            self.open_wanted.emit(Path(path))


def _name(path: Path, origin: Path) -> str:
    folder = origin if origin.is_dir() else origin.parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


def _in_short(entry: Entry) -> str:
    """Return what fits into the list: what a scan has cost, else what the model says of it."""
    return ", ".join((entry.flag, *(_cost(entry) or _proposal(entry))))


def _cost(entry: Entry) -> list[str]:
    parts = []
    if entry.seconds >= 1:
        minutes, seconds = divmod(round(entry.seconds), 60)
        parts.append(f"{minutes}:{seconds:02} min")
    if entry.prompts:
        parts.append(f"{entry.prompts} prompt{'s' if entry.prompts > 1 else ''}")
    return parts


def _proposal(entry: Entry) -> list[str]:
    if entry.proposal is None:
        return []
    parts = [f"confidence {entry.proposal.confidence:.2f}"]
    if entry.proposal.disagreement is not None:
        parts.append(f"disagreement {entry.proposal.disagreement:.2f}")
    return parts
