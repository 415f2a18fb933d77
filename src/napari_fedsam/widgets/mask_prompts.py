"""Masks that exist already as prompts: from the viewer's layers and from files."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtWidgets import QFileDialog

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.mask_formats import open_filter
from napari_fedsam.imaging.readers import read_segmentation
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.segmentation import MaskStructure, Segmentation, same_name
from napari_fedsam.widgets.background import Background
from napari_fedsam.widgets.mask_layers import ROLE_KEY

if TYPE_CHECKING:
    from napari.viewer import Viewer


class MaskPrompts:
    """Hands the session a mask of the slice on screen.

    Where a file names its structures, the one with the chosen structure's name counts, or the
    only one. Else a mask's voxels of the chosen structure's value count; where it has none of
    them at all, every voxel that is not background does.

    Parameters
    ----------
    viewer : napari.Viewer
    session : AnnotationSession
    background : Background
    tell : callable
        Shows an error.
    """

    def __init__(
        self,
        viewer: "Viewer",
        session: AnnotationSession,
        background: Background,
        tell: Callable[[FedSamError], None],
    ) -> None:
        self._viewer = viewer
        self._session = session
        self._background = background
        self._tell = tell

    def use_layer(self) -> None:
        """Take the selected Labels layer's mask, else that of the segmentation.

        Raises
        ------
        AnnotationError
            When there is none on this slice, or the layer has another size.
        """
        layer = self._viewer.layers.selection.active
        if isinstance(layer, Labels) and ROLE_KEY not in layer.metadata:
            self._use(np.asarray(layer.data), layer.name)
        else:
            self._session.use_own_mask()

    def use_file(self, path: Path | str | None) -> None:
        """Take a file's mask, read in a worker; without a path, ask for it."""
        scan = self._session.scan
        if scan is None:
            raise AnnotationError("No scan is open: open one first.")
        if path is None:
            path, _ = QFileDialog.getOpenFileName(
                self._viewer.window._qt_window, "Mask to start from", filter=open_filter()
            )
        if not path:
            return
        self._read(Path(path), scan)

    def _read(self, path: Path, scan: Scan) -> None:
        wanted = self._session.view.structure.name

        def show(found: Segmentation) -> None:
            view = self._session.view
            if scan is not view.scan:
                return
            if view.structure.name != wanted:
                self._read(path, scan)
                return
            labels = scan.orientation.to_display(found.labels)
            self._use_or_tell(labels, found.structures, path.name)

        self._background.run(
            "disk", lambda: read_segmentation(path, scan, wanted=wanted), show, self._tell
        )

    def _use_or_tell(
        self, labels: NDArray[Any], structures: tuple[MaskStructure, ...], name: str
    ) -> None:
        try:
            if structures:
                value = self._named(structures, name).value
                self._session.use_mask(self._session.view.slice.pixels(labels) == value)
            else:
                self._use(labels, name)
        except FedSamError as error:
            self._tell(error)

    def _named(self, structures: tuple[MaskStructure, ...], name: str) -> MaskStructure:
        wanted = self._session.view.structure.name
        same = [each for each in structures if same_name(each.name, wanted)]
        if not same and len(structures) > 1:
            held = ", ".join(f"'{each.name}'" for each in structures[:8])
            raise AnnotationError(
                f"'{name}' holds {held}{' and others' if len(structures) > 8 else ''}, but no "
                f"'{wanted}': choose a structure of one of these names, or add it."
            )
        return (same or list(structures))[0]

    def _use(self, labels: NDArray[Any], name: str) -> None:
        view = self._session.view
        labels = labels[np.newaxis] if labels.ndim == 2 else labels
        if labels.shape != view.shape:
            raise AnnotationError(
                f"'{name}' has {labels.shape} voxels, this scan {view.shape}: choose a mask of "
                "this scan."
            )
        here = view.slice.pixels(labels)
        mask = here == view.structure.value
        self._session.use_mask(
            mask if mask.any() or (labels == view.structure.value).any() else here > 0
        )
