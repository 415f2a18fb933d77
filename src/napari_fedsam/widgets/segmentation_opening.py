"""Opens segmentations that name their structures, as Labels layers on the scan they belong to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import stem_of
from napari_fedsam.imaging.readers import read_segmentation
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import Segmentation
from napari_fedsam.widgets.layers import STRUCTURES_KEY, colours_of, labels_layer_data, scan_of
from napari_fedsam.widgets.scan_opening import ScanOpening

if TYPE_CHECKING:
    from napari.viewer import Viewer


def open_scans(viewer: "Viewer") -> list[Scan]:
    """Return the scans in a viewer, the selected layer's first, then the newest first."""
    layers = list(reversed(viewer.layers))
    active = viewer.layers.selection.active
    ordered = [active, *layers] if active is not None else layers
    found = [scan for scan in map(scan_of, ordered) if scan is not None]
    return [scan for place, scan in enumerate(found) if scan not in found[:place]]


def read_for_any(path: Path, scans: Sequence[Scan]) -> tuple[Segmentation, Scan]:
    """Read a segmentation on the first scan that it fits.

    Raises
    ------
    ImagingError
        When there is no scan, or why it does not fit the first one.
    """
    refusals = []
    for scan in scans:
        try:
            return read_segmentation(path, scan), scan
        except ImagingError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
    raise ImagingError(
        f"{path.name} is a segmentation, not a scan: open the scan that it belongs to first."
    )


class SegmentationOpening(ScanOpening):
    """Reads a segmentation in a thread, then adds its Labels layer to a viewer."""

    def _read(self, series: str | None) -> None:
        del series
        path, scans = self._path, open_scans(self._viewer)
        self._background.run(
            "scan", lambda: read_for_any(path, scans), self._show_labels, self._failed
        )

    def _show_labels(self, found: tuple[Segmentation, Scan]) -> None:
        segmentation, scan = found
        data, options, _ = labels_layer_data(segmentation.labels, scan, stem_of(self._path))
        options["metadata"][STRUCTURES_KEY] = segmentation.structures
        self.layer = self._viewer.add_labels(
            data, colormap=colours_of(segmentation.structures), **options
        )
        self._end()
        self.opened.emit(self.layer)
