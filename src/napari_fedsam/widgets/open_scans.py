"""The scans that are open in a viewer, and which of them is annotated."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_fedsam.errors import FedSamError
from napari_fedsam.widgets.layers import scan_of
from napari_fedsam.widgets.mask_layers import ROLE_KEY
from napari_fedsam.widgets.scan_display import ScanDisplay
from napari_fedsam.widgets.scan_opening import ScanOpening
from napari_fedsam.widgets.scan_section import ScanSection

if TYPE_CHECKING:
    from napari.viewer import Viewer


class OpenScans(QObject):
    """Opens scans, and annotates the one that was opened or chosen last.

    Signals: `chosen` when another scan begins to be annotated, `idle_changed` when an opening
    begins or ends.

    Parameters
    ----------
    viewer : napari.Viewer
    display : ScanDisplay
    section : ScanSection
    tell : callable
        Shows an error.
    """

    chosen = Signal()
    idle_changed = Signal()

    def __init__(
        self,
        viewer: "Viewer",
        display: ScanDisplay,
        section: ScanSection,
        tell: Callable[[Exception], None],
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._display = display
        self._section = section
        self._tell = tell
        self._openings: list[ScanOpening] = []
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removed.connect(self._removed)

    @property
    def idle(self) -> bool:
        """Whether no scan is being opened."""
        return not self._openings

    @property
    def layers(self) -> list[Image]:
        """The image layers of the open scans, in the viewer's order."""
        return [layer for layer in self._viewer.layers if _is_scan(layer)]

    def open(self, path: Path) -> ScanOpening:
        """Open a file or DICOM folder in a worker and annotate it."""
        opening = ScanOpening(self._viewer, path)
        self._openings.append(opening)
        opening.ended.connect(self._ended)
        self.idle_changed.emit()
        return opening

    def choose(self, layer: Image | None) -> None:
        """Annotate the scan of an image layer."""
        if layer is None:
            return
        try:
            is_new = self._display.show(layer)
        except FedSamError as error:
            self._tell(error)
            return
        self._section.show_layer(layer)
        if is_new:
            self.chosen.emit()

    def choose_newest(self) -> None:
        """Annotate the scan on top of those that were open before the widget."""
        if self.layers:
            self.choose(self.layers[-1])

    def close(self) -> None:
        """Let go of the viewer."""
        self._viewer.layers.events.inserted.disconnect(self._inserted)
        self._viewer.layers.events.removed.disconnect(self._removed)

    def _inserted(self, event: Any) -> None:
        if _is_scan(event.value):
            self.choose(event.value)

    def _removed(self, event: Any) -> None:
        self._display.forget(event.value)

    def _ended(self, opening: ScanOpening) -> None:
        self._openings.remove(opening)
        self.idle_changed.emit()


def _is_scan(layer: Any) -> bool:
    return (
        isinstance(layer, Image) and scan_of(layer) is not None and ROLE_KEY not in layer.metadata
    )
