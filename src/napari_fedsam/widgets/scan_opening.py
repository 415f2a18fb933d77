"""Opens scans in a worker and shows them in the viewer."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Layer
from napari.utils import progress
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal

from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.arriving_scan import Watch
from napari_fedsam.imaging.errors import MultipleSeriesError
from napari_fedsam.imaging.readers import read_scan
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.widgets.arriving_layer import ArrivingLayer
from napari_fedsam.widgets.background import Background
from napari_fedsam.widgets.layers import image_layer_data
from napari_fedsam.widgets.series_dialog import choose_series

if TYPE_CHECKING:
    from napari.viewer import Viewer

_open: set["ScanOpening"] = set()


def load_scan(path: Path, series: str | None = None, watch: Watch | None = None) -> Scan:
    """Read a scan and compute what is slow about it: its fingerprint and its first page."""
    scan = read_scan(path, series=series, watch=watch)
    _ = scan.fingerprint
    return scan


class ScanOpening(QObject):
    """Reads one file or DICOM folder in a thread, then adds its image layer to a viewer.

    Of several series in a folder the person picks one. Errors are shown as notifications.
    Signals: `opened` (the layer), `failed` (the error), `ended` (this object, however it went).

    Parameters
    ----------
    viewer : napari.Viewer
        With an open window.
    path : Path
        File or DICOM folder.
    ask_series : callable, optional
        Picks one of several series, None to give up; by default a dialog.
    """

    opened = Signal(object)
    failed = Signal(object)
    ended = Signal(object)

    def __init__(
        self,
        viewer: "Viewer",
        path: Path,
        ask_series: Callable[..., str | None] = choose_series,
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._path = path
        self._ask_series = ask_series
        self._background = Background(self)
        self._progress = progress(total=0, desc=f"opening {path.name}")
        self._arriving = ArrivingLayer(viewer)
        self.layer: Layer | None = None
        # Nothing else holds an opening that the reader started.
        _open.add(self)
        self._window = viewer.window._qt_window
        self._window.destroyed.connect(self._end)
        self._read(None)

    def _read(self, series: str | None) -> None:
        path, watch = self._path, self._arriving.watch
        self._background.run(
            "scan", lambda: load_scan(path, series, watch), self._show, self._failed
        )

    def _show(self, scan: Scan) -> None:
        data, options, _ = image_layer_data(scan)
        with self._arriving.replaced():
            self.layer = self._viewer.add_image(data, **options)
        self._end()
        self.opened.emit(self.layer)

    def _failed(self, error: FedSamError) -> None:
        if isinstance(error, MultipleSeriesError):
            series = self._ask_series(error.series, self._viewer.window._qt_window)
            if series is not None:
                self._read(series)
                return
        else:
            show_error(str(error))
            self.failed.emit(error)
        self._end()

    def _end(self) -> None:
        if self in _open:
            _open.discard(self)
            self._window.destroyed.disconnect(self._end)
            self._progress.close()
            self._arriving.close()
            self._background.close()
            self.ended.emit(self)
