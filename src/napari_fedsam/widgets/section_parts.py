"""Small parts that every section of the widget is made of."""

from collections.abc import Callable, Sequence

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

SPACING = 4
_EXPANDED = "\N{BLACK DOWN-POINTING SMALL TRIANGLE}"
_COLLAPSED = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"
_ANY_HEIGHT = (1 << 24) - 1  # Qt's QWIDGETSIZE_MAX


def button(
    text: str, action: Callable[[], object], tip: str = "", *, checkable: bool = False
) -> QPushButton:
    """Make a push button; its text is never cut off."""
    made = QPushButton(text)
    made.setCheckable(checkable)
    made.setToolTip(tip)
    made.clicked.connect(lambda _checked=False: action())
    made.setSizePolicy(QSizePolicy.Policy.MinimumExpanding, QSizePolicy.Policy.Fixed)
    return made


def row(*widgets: QWidget, stretch: QWidget | Sequence[QWidget] = ()) -> QWidget:
    """Put widgets side by side; what is to stretch shares the room that is left."""
    stretched = [stretch] if isinstance(stretch, QWidget) else list(stretch)
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(SPACING)
    for widget in widgets:
        layout.addWidget(widget, int(any(widget is each for each in stretched)))
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


def caption(text: str) -> QLabel:
    """Make a small heading inside a section."""
    label = QLabel(text)
    font = label.font()
    font.setPointSizeF(0.85 * font.pointSizeF())
    label.setFont(font)
    label.setContentsMargins(0, 2, 0, 0)
    return label


def narrow(box: QComboBox) -> QComboBox:
    """Let a combo box be narrower than its longest entry."""
    box.setMinimumContentsLength(8)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box


def swatch(color: str, size: int = 12) -> QIcon:
    """Make a square icon of one colour."""
    pixmap = QPixmap(QSize(size, size))
    pixmap.fill(QColor(color))
    return QIcon(pixmap)


class Section(QCollapsible):
    """A titled part of the widget that can be folded away.

    The content may change its height at any time, and the sign before the title is text, so that
    it has the theme's colour.
    """

    def __init__(self, title: str, content: QWidget, *, expanded: bool = True) -> None:
        super().__init__(title, expandedIcon=" ", collapsedIcon=" ")
        self._title = title
        self.setDuration(0)
        self.setContent(content)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.layout().setSpacing(2)
        self.toggleButton().setIconSize(QSize(0, 0))
        self.toggleButton().setStyleSheet(
            "QPushButton, QPushButton:checked {text-align: left; border: none; padding: 2px 0;"
            "background: transparent; font-weight: bold;}"
        )
        self.toggled.connect(self._fold)
        if expanded:
            self.expand(animate=False)
        else:
            self.collapse(animate=False)

    def _fold(self, expanded: bool) -> None:
        self.setText(f"{_EXPANDED if expanded else _COLLAPSED} {self._title}")
        content = self.content()
        content.setVisible(expanded)
        content.setMaximumHeight(_ANY_HEIGHT)
