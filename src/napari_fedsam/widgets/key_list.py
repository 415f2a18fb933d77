"""The list of all keys, as they are now."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_fedsam.widgets.keys import ACTIONS, shown_keys


def show_keys(parent: QWidget) -> QDialog:
    """Open a window with every action and its keys; the person may go on working beside it."""
    dialog = QDialog(parent)
    dialog.setObjectName("napari-fedsam keys")
    dialog.setWindowTitle("Keys of napari-fedsam")
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    grid = QGridLayout()
    grid.setHorizontalSpacing(16)
    for line, action in enumerate(ACTIONS):
        key = QLabel(shown_keys(action) or "no key")
        key.setStyleSheet("font-weight: bold")
        grid.addWidget(key, line, 0)
        grid.addWidget(QLabel(action.description), line, 1)
    hint = QLabel("They can be changed in napari's preferences, under Shortcuts, Viewer.")
    closing = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
    closing.rejected.connect(dialog.close)
    layout = QVBoxLayout(dialog)
    layout.addLayout(grid)
    layout.addWidget(hint)
    layout.addWidget(closing)
    dialog.show()
    return dialog
