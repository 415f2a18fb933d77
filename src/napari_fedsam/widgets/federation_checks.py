"""Shows the connection test: each step ticked or explained, as it is done."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_fedsam.federation.connection_test import Check

_WIDTH = 520
_TICK, _CROSS = "\N{CHECK MARK}", "\N{MULTIPLICATION X}"
_GOOD, _BAD = "#2e9d5a", "#d55e00"


class ChecksDialog(QDialog):
    """One line a step; `show_check` adds one, `finish` says how it ended."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Test connection")
        self.setMinimumWidth(_WIDTH)
        self.checks: list[Check] = []
        self._lines = QGridLayout()
        self._lines.setColumnStretch(2, 1)
        self.outcome = QLabel("Testing ...")
        self.outcome.setWordWrap(True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addLayout(self._lines)
        layout.addWidget(self.outcome)
        layout.addWidget(buttons)

    def show_check(self, check: Check) -> None:
        """Add a step."""
        row = len(self.checks)
        self.checks.append(check)
        sign = QLabel(_TICK if check.passed else _CROSS)
        sign.setStyleSheet(f"color: {_GOOD if check.passed else _BAD}; font-weight: bold")
        words = QLabel(check.words)
        words.setTextFormat(Qt.TextFormat.PlainText)
        words.setWordWrap(True)
        words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        for column, label in enumerate((sign, QLabel(check.name), words)):
            self._lines.addWidget(label, row, column)

    def finish(self) -> None:
        """Say how it ended."""
        failed = [check.name for check in self.checks if not check.passed]
        self.outcome.setText(
            f"Taking part would fail: {', '.join(failed).lower()}."
            if failed
            else "Everything that taking part needs is in order."
        )
        self.adjustSize()
