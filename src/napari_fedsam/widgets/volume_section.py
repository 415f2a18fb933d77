"""The part of the widget that works on a structure's whole volume."""

import functools
from collections.abc import Callable

from qtpy.QtWidgets import (
    QAbstractButton,
    QGridLayout,
    QLabel,
    QProgressBar,
    QSpinBox,
    QWidget,
)

from napari_fedsam.annotation.propagation import Limits
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.annotation.volume_tools import Measures
from napari_fedsam.widgets.keys import KeyTooltips
from napari_fedsam.widgets.section_parts import SPACING, button, column, row, words

_BUTTONS = (
    (("propagate", "Propagate"), ("interpolate", "Interpolate"), ("cancel_volume", "Cancel")),
    (("fill_holes", "Fill holes"), ("largest_component", "Largest part"), ("smooth", "Smooth")),
)


class VolumeSection(QWidget):
    """Buttons, the range of slices, progress, and the structure's size.

    Parameters
    ----------
    view : Viewpoint
    do : callable
        Runs an action by its name.
    """

    def __init__(self, view: Viewpoint, do: Callable[[str], object]) -> None:
        super().__init__()
        self._view = view
        self._axis: tuple[int, int] | None = None
        self.first, self.last = QSpinBox(), QSpinBox()
        for box, tip in ((self.first, "First slice"), (self.last, "Last slice")):
            box.setToolTip(f"{tip} that propagation and interpolation may change")
        self.buttons: dict[str, QAbstractButton] = {}
        grid = QGridLayout()
        grid.setSpacing(SPACING)
        for line, actions in enumerate(_BUTTONS):
            for place, (name, text) in enumerate(actions):
                self.buttons[name] = button(text, functools.partial(do, name))
                grid.addWidget(self.buttons[name], line, place)
        self.progress = QProgressBar()
        self.progress.setFormat("%v of at most %m slices")
        self.size = words()
        layout = column(self)
        layout.addWidget(
            row(QLabel("Slices"), self.first, QLabel("to"), self.last, stretch=self.last)
        )
        layout.addLayout(grid)
        layout.addWidget(self.progress)
        layout.addWidget(self.size)
        self._tooltips = KeyTooltips(self.buttons)
        view.scan_changed.connect(self._new_range)
        view.slice_changed.connect(self._new_range)
        self._new_range()
        self.show_progress(None, 0)

    @property
    def limits(self) -> Limits:
        """The chosen range."""
        first, last = sorted((self.first.value() - 1, self.last.value() - 1))
        return Limits(first, last)

    def show_progress(self, done: int | None, total: int) -> None:
        """Show how far it is; None when nothing runs."""
        self.progress.setVisible(done is not None)
        self.buttons["cancel_volume"].setEnabled(done is not None)
        for name, each in self.buttons.items():
            if name != "cancel_volume":
                each.setEnabled(done is None and self._view.scan is not None)
        if done is not None:
            self.progress.setMaximum(total)
            self.progress.setValue(min(done, total))

    def show_size(self, measures: Measures | None) -> None:
        """Show a structure's size, or that there is none."""
        if measures is None or not measures.voxels:
            self.size.setText(f"No {self._view.structure.name} in this scan yet.")
        elif self._view.scan is not None and self._view.scan.spacing_known:
            self.size.setText(
                f"{self._view.structure.name}: {measures.millilitres:.4g} ml, longest diameter "
                f"{measures.diameter:.1f} mm"
            )
        else:
            self.size.setText(f"{self._view.structure.name}: {measures.voxels} voxels")

    def close_section(self) -> None:
        """Let go of napari."""
        self._tooltips.close()

    def _new_range(self) -> None:
        """Offer all slices whenever the scan or the plane is another."""
        present = self._view.number, self._view.slice.axis
        if present == self._axis:
            return
        self._axis = present
        for box, value in ((self.first, 1), (self.last, self._view.slice_count)):
            box.setRange(1, self._view.slice_count)
            box.setValue(value)
        self.show_progress(None, 0)
