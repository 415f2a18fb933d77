"""The part of the widget that chooses what is looked at, and how."""

from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QButtonGroup, QComboBox, QFileDialog, QLabel, QMenu, QPushButton, QWidget

from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.imaging.window import presets_for
from napari_fedsam.widgets.mask_layers import ARRIVING, ROLE_KEY
from napari_fedsam.widgets.section_parts import button, column, narrow, row

if TYPE_CHECKING:
    from napari.viewer import Viewer

PLANE_NAMES = ("Axial", "Coronal", "Sagittal")
CUSTOM = "custom window"


class ScanSection(QWidget):
    """Open button, scan layer, window presets and planes.

    Signals: `open_wanted` (path), `layer_chosen` (image layer or None), `plane_chosen` (axis).
    """

    open_wanted = Signal(object)
    layer_chosen = Signal(object)
    plane_chosen = Signal(int)

    def __init__(self, viewer: "Viewer", view: Viewpoint) -> None:
        super().__init__()
        self._viewer = viewer
        self._view = view
        self.open_button = QPushButton("Open")
        self.open_button.setToolTip("Open a scan: NIfTI, NRRD, MetaImage, DICOM or a picture")
        menu = QMenu(self.open_button)
        menu.addAction("File…", self._ask_file)
        menu.addAction("DICOM folder…", self._ask_folder)
        self.open_button.setMenu(menu)
        self.layers = narrow(QComboBox())
        self.layers.setToolTip("The image layer to annotate")
        self.layers.activated.connect(lambda _: self.layer_chosen.emit(self.chosen_layer))
        self.presets = narrow(QComboBox())
        self.presets.setToolTip("Window and level; the model sees what is shown")
        self.presets.activated.connect(self._preset_chosen)
        self.level_and_width = QLabel()
        self.level_and_width.setToolTip("Level / width of the window")
        self.planes = QButtonGroup(self)
        plane_buttons = []
        for axis, name in enumerate(PLANE_NAMES):
            plane = button(name, lambda: None, checkable=True)
            plane.clicked.connect(lambda _=False, axis=axis: self.plane_chosen.emit(axis))
            self.planes.addButton(plane, axis)
            plane_buttons.append(plane)
        layout = column(self)
        layout.addWidget(row(self.open_button, self.layers, stretch=self.layers))
        self._window_row = row(self.presets, self.level_and_width, stretch=self.presets)
        layout.addWidget(self._window_row)
        layout.addWidget(row(*plane_buttons))
        viewer.layers.events.inserted.connect(self.refresh_layers)
        viewer.layers.events.removed.connect(self.refresh_layers)
        view.scan_changed.connect(self._scan_changed)
        view.window_changed.connect(self._show_preset)
        view.slice_changed.connect(self._show_plane)
        self.refresh_layers()
        self._scan_changed()

    @property
    def chosen_layer(self) -> Image | None:
        """The layer shown in the list."""
        layer = self.layers.currentData()
        return layer if isinstance(layer, Image) else None

    def show_layer(self, layer: Image | None) -> None:
        """Show a layer as the chosen one."""
        with QSignalBlocker(self.layers):
            self.layers.setCurrentIndex(self.layers.findData(layer))

    def refresh_layers(self) -> None:
        """List the viewer's image layers."""
        chosen = self.chosen_layer
        images = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and ROLE_KEY not in layer.metadata
        ]
        with QSignalBlocker(self.layers):
            self.layers.clear()
            for layer in images:
                self.layers.addItem(layer.name, layer)
            self.layers.setCurrentIndex(self.layers.findData(chosen))
            self.layers.setPlaceholderText(self._hint(bool(images)))

    def _hint(self, has_images: bool) -> str:
        if has_images:
            return "choose a layer"
        roles = {layer.metadata.get(ROLE_KEY) for layer in self._viewer.layers}
        return "still being read" if ARRIVING in roles else "no scan open"

    def close_section(self) -> None:
        """Let go of the viewer."""
        self._viewer.layers.events.inserted.disconnect(self.refresh_layers)
        self._viewer.layers.events.removed.disconnect(self.refresh_layers)
        self.layers.clear()

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a scan")
        if path:
            self.open_wanted.emit(Path(path))

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open a DICOM folder")
        if path:
            self.open_wanted.emit(Path(path))

    def _scan_changed(self) -> None:
        scan = self._view.scan
        with QSignalBlocker(self.presets):
            self.presets.clear()
            if scan is not None and not scan.is_colour:
                for name, window in presets_for(scan).items():
                    self.presets.addItem(name, window)
        self._window_row.setVisible(self.presets.count() > 0)
        has_planes = scan is not None and scan.is_anatomical and not scan.is_picture
        for plane in self.planes.buttons():
            plane.setVisible(has_planes)
        self._show_preset()
        self._show_plane()

    def _preset_chosen(self) -> None:
        window = self.presets.currentData()
        if window is not None:
            self._view.set_window(window)

    def _show_preset(self) -> None:
        window = self._view.window
        self.level_and_width.setText(f"{_short(window.level)} / {_short(window.width)}")
        with QSignalBlocker(self.presets):
            custom = self.presets.findText(CUSTOM)
            if custom >= 0:
                self.presets.removeItem(custom)
            windows = [self.presets.itemData(index) for index in range(self.presets.count())]
            if windows and window not in windows:
                self.presets.addItem(CUSTOM)
                windows.append(window)
            if windows:
                self.presets.setCurrentIndex(windows.index(window))

    def _show_plane(self) -> None:
        if self._view.scan is not None:
            self.planes.button(self._view.slice.axis).setChecked(True)


def _short(value: float) -> str:
    """Write a number of stored units: whole where it is large."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
