"""Small parts that every section of the widget is made of."""

from collections.abc import Callable

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget
from superqt import QCollapsible

SPACING = 4


def button(
    text: str, action: Callable[[], object], tip: str = "", *, checkable: bool = False
) -> QPushButton:
    """Make a push button; its text is never cut off."""
    made = QPushButton(text)
    made.setCheckable(checkable)
    made.setToolTip(tip)
    made.clicked.connect(lambda _checked=False: action())
    made.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
    return made


def row(*widgets: QWidget, stretch: QWidget | None = None) -> QWidget:
    """Put widgets side by side."""
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(SPACING)
    for widget in widgets:
        layout.addWidget(widget, 1 if widget is stretch else 0)
    return holder


def column(owner: QWidget) -> QVBoxLayout:
    """Give a section its layout."""
    layout = QVBoxLayout(owner)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(SPACING)
    return layout


def words(text: str = "") -> QLabel:
    """Make a label that wraps and whose text can be selected."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def swatch(color: str, size: int = 12) -> QIcon:
    """Make a square icon of one colour."""
    pixmap = QPixmap(QSize(size, size))
    pixmap.fill(QColor(color))
    return QIcon(pixmap)


def collapsible(title: str, content: QWidget, *, expanded: bool) -> QCollapsible:
    """Put a section under a title that folds it away."""
    # Signs that Qt's own font engine draws in any theme, instead of painted arrows.
    section = QCollapsible(title, expandedIcon="▾", collapsedIcon="▸")
    section.setDuration(0)
    section.setContent(content)
    section.layout().setContentsMargins(0, 0, 0, 0)
    section.layout().setSpacing(2)
    if expanded:
        section.expand(animate=False)
    return section
