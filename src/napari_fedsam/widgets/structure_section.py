"""The part of the widget that chooses what is being segmented."""

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QComboBox, QLineEdit, QWidget

from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.imaging.segmentation import PALETTE
from napari_fedsam.widgets.section_parts import button, column, narrow, row, swatch


class StructureSection(QWidget):
    """Structure choice, a line for a new one, and the saving of masks.

    Signals: `add_wanted` (name, colour), `save_wanted`.
    """

    add_wanted = Signal(str, str)
    save_wanted = Signal()

    def __init__(self, view: Viewpoint) -> None:
        super().__init__()
        self._view = view
        self.structures = narrow(QComboBox())
        self.structures.setToolTip("The structure that prompts and accepted masks belong to")
        self.structures.activated.connect(
            lambda _: view.choose_structure(self.structures.currentData())
        )
        self.name = QLineEdit()
        self.name.setPlaceholderText("new structure")
        self.name.setToolTip("Name of a structure to add, such as spleen")
        self.name.returnPressed.connect(self._add)
        self.color = button("", self._pick_color, "Colour of the new structure")
        self.color.setFixedWidth(28)
        self.add = button("Add", self._add, "Add the structure")
        self.save = button(
            "Save mask…", self.save_wanted.emit, "Save the segmentation with the scan's geometry"
        )
        layout = column(self)
        layout.addWidget(row(self.structures, self.save, stretch=self.structures))
        layout.addWidget(row(self.name, self.color, self.add, stretch=self.name))
        view.structure_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """List the structures on offer."""
        with QSignalBlocker(self.structures):
            self.structures.clear()
            for each in self._view.structures:
                self.structures.addItem(
                    swatch(each.color), f"{each.value}  {each.name}", each.value
                )
            self.structures.setCurrentIndex(self.structures.findData(self._view.structure.value))
        self.structures.setToolTip(
            self._view.structure.definition
            or "The structure that prompts and accepted masks belong to"
        )
        self._set_color(PALETTE[len(self._view.structures) % len(PALETTE)])

    def _set_color(self, color: str) -> None:
        self._color = color
        self.color.setIcon(swatch(color))

    def _pick_color(self) -> None:
        color = QColorDialog.getColor(QColor(self._color), self, "Colour of the new structure")
        if color.isValid():
            self._set_color(color.name())

    def _add(self) -> None:
        self.add_wanted.emit(self.name.text(), self._color)
