"""Runs what changes or measures a whole volume in workers, and brings the results back."""

from collections.abc import Callable

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.volume_tools import Measures, Spacing, Volume, measure
from napari_fedsam.annotation.volume_work import (
    FoundMasks,
    PropagationWork,
    interpolation_of,
    propagation_of,
)
from napari_fedsam.errors import FedSamError
from napari_fedsam.widgets.background import Background
from napari_fedsam.widgets.volume_section import VolumeSection

MEASURE_MS = 300
"""How long the segmentation must rest before it is measured."""


class VolumePanel(QObject):
    """Propagation, interpolation, volume tools and measures of a session.

    Parameters
    ----------
    session : AnnotationSession
    section : VolumeSection
    background : Background
    tell : callable
        Shows an error.
    """

    _progressed = Signal(int)

    def __init__(
        self,
        session: AnnotationSession,
        section: VolumeSection,
        background: Background,
        tell: Callable[[FedSamError], None],
    ) -> None:
        super().__init__()
        self._session = session
        self._section = section
        self._background = background
        self._tell = tell
        self._running: PropagationWork | None = None
        self._is_measuring = False
        self._progressed.connect(self._show_progress)
        self._resting = QTimer(self)
        self._resting.setSingleShot(True)
        self._resting.setInterval(MEASURE_MS)
        self._resting.timeout.connect(self._measure)
        session.edited.connect(self._rest_first)
        session.opened.connect(self._rest_first)
        session.view.structure_changed.connect(self._rest_first)

    def propagate(self) -> None:
        """Carry the chosen structure through the volume.

        Raises
        ------
        AnnotationError
            When there is nothing to start from, or it is under way already.
        """
        if self._running is not None:
            raise AnnotationError("Propagation is under way: wait for it, or cancel it.")
        work = propagation_of(self._session, self._section.limits)
        self._running = work
        self._section.show_progress(0, work.slice_count)
        self._background.run(
            "volume", lambda: work.run(self._progressed.emit), self._propagated, self._failed
        )

    def interpolate(self) -> None:
        """Fill the slices between accepted ones."""
        job = interpolation_of(self._session, self._section.limits)
        self._background.run("volume", job, self._interpolated, self._tell)

    def cancel(self) -> None:
        """Stop propagation after the slice that it is at."""
        if self._running is not None:
            self._running.cancelled.set()

    def apply(self, tool: Callable[[Volume, Spacing], Volume]) -> None:
        """Change the chosen structure's volume by one of the volume tools.

        What is painted while the tool runs stays as it was painted.
        """
        session, scan = self._session, self._session.scan
        if scan is None:
            raise AnnotationError("No scan is open: open one first.")
        value, spacing = session.view.structure.value, scan.orientation.display_spacing
        segmentation, spare = session.segmentation, session.preserve_others

        def job() -> LabelEdit:
            # People go on painting in the array itself.
            then = segmentation.copy()
            return LabelEdit.making(then, value, tool(then == value, spacing), spare_others=spare)

        def done(edit: LabelEdit) -> None:
            if session.scan is not scan:
                return
            edit = edit.sparing_changes_in(session.segmentation)
            if len(edit):
                session.change(edit)
            show_info(f"{len(edit)} voxels were changed.")

        self._background.run("volume", job, done, self._tell)

    def close(self) -> None:
        """Stop what runs."""
        self.cancel()
        self._resting.stop()

    def _show_progress(self, done: int) -> None:
        if self._running is not None:
            self._section.show_progress(done, self._running.slice_count)

    def _propagated(self, found: FoundMasks) -> None:
        self._rest()
        count = self._put(found)
        if found.stops:
            show_info(f"{count} slices were filled; it ended at {'; '.join(found.stops)}.")

    def _interpolated(self, found: FoundMasks) -> None:
        show_info(f"{self._put(found)} slices were filled.")

    def _failed(self, error: FedSamError) -> None:
        self._rest()
        self._tell(error)

    def _rest(self) -> None:
        self._running = None
        self._section.show_progress(None, 0)

    def _put(self, found: FoundMasks) -> int:
        if self._session.scan is not found.scan:
            return 0
        return self._session.put_masks(found.axis, found.structure, found.masks)

    def _rest_first(self) -> None:
        self._resting.start()

    def _measure(self) -> None:
        session, scan = self._session, self._session.scan
        if scan is None or self._is_measuring:
            if self._is_measuring:
                self._resting.start()
            return
        segmentation, value = session.segmentation, session.view.structure.value
        spacing = scan.orientation.display_spacing
        self._is_measuring = True
        self._background.run(
            "measure", lambda: measure(segmentation, value, spacing), self._measured, self._tell
        )

    def _measured(self, measures: Measures) -> None:
        self._is_measuring = False
        self._section.show_size(measures)
