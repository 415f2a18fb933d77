"""All sections of the widget, one below the other, in a scroll area."""

from collections.abc import Collection, Mapping

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QLabel, QScrollArea, QVBoxLayout, QWidget

from napari_fedsam import __version__
from napari_fedsam.widgets.section_parts import Section


class SectionStack(QScrollArea):
    """Titled sections that can be folded away, below a bar that is shown at times.

    Parameters
    ----------
    offer : QWidget
        The bar above the sections.
    sections : mapping of str to QWidget
        The sections by title, from top to bottom.
    folded : collection of str
        Titles of sections that are folded away at first.
    """

    def __init__(
        self, offer: QWidget, sections: Mapping[str, QWidget], folded: Collection[str] = ()
    ) -> None:
        super().__init__()
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(6, 4, 6, 4)
        column.setSpacing(6)
        column.addWidget(offer)
        for title, section in sections.items():
            column.addWidget(Section(title, section, expanded=title not in folded))
        column.addStretch(1)
        about = QLabel(f"napari-fedsam {__version__}: research use only")
        about.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column.addWidget(about)
        self.setWidget(body)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
