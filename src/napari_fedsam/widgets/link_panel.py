"""Binds the crosshair to the window: clicks and the cursor move it, every linked scan shows it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QWidget

from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.imaging.physical_space import PhysicalSpace
from napari_fedsam.widgets.crosshair_lines import CrosshairLines
from napari_fedsam.widgets.cursor_preview import RELEASE_IS_LOST
from napari_fedsam.widgets.layers import scan_of
from napari_fedsam.widgets.link_section import LinkSection
from napari_fedsam.widgets.open_scans import OpenScans
from napari_fedsam.widgets.prompt_layers import PromptLayers
from napari_fedsam.widgets.side_by_side import SideBySide

if TYPE_CHECKING:
    from napari.viewer import Viewer

_STILL = 3
"""How far the mouse may move between press and release of a click, in pixels."""

_LEFT = 1
_ALONE = "Open another scan of the patient: it will show the point that you click here."
_HIDDEN_BY_GRID = "napari's grid is on, which shows layers apart: turn it off to see the crosshair."


class LinkPanel(QObject):
    """Links the open scans of a patient by one physical point.

    Parameters
    ----------
    viewer : napari.Viewer
    session : AnnotationSession
    section : LinkSection
    scans : OpenScans
    prompts : PromptLayers
    owner : QWidget
        The docked widget beside which the linked scans are shown.
    """

    def __init__(
        self,
        viewer: "Viewer",
        session: AnnotationSession,
        section: LinkSection,
        scans: OpenScans,
        prompts: PromptLayers,
        *,
        owner: QWidget,
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._session = session
        self._crosshair = session.crosshair
        self._section = section
        self._scans = scans
        self._prompts = prompts
        self._owner = owner
        self.side: SideBySide | None = None
        self._is_following = False
        self.lines = CrosshairLines(viewer, self._crosshair, prompts)
        self._canvas = viewer.window._qt_viewer.canvas.native
        self._canvas.installEventFilter(self)
        viewer.mouse_drag_callbacks.append(self._pressed)
        viewer.mouse_move_callbacks.append(self._moved)
        # What is shown beside the canvas follows its camera, too.
        self._sources = (*self.lines.sources, viewer.layers.events.removed)
        for source in self._sources:
            source.connect(self.refresh)
        self._crosshair.changed.connect(self.refresh)
        session.view.slice_changed.connect(self.refresh)
        scans.chosen.connect(self._scan_chosen)
        self.refresh()

    def toggle(self) -> None:
        """Link the open scans, or stop that."""
        self._crosshair.turn(not self._crosshair.is_on)

    def toggle_side_by_side(self) -> None:
        """Show the linked scans beside the canvas, or stop that."""
        if self.side is not None:
            self.side.take_off()
            return
        self._crosshair.turn(True)
        self.side = SideBySide(self._viewer, self._owner)
        self.side.closed.connect(self._side_closed)
        self.refresh()

    def switch(self) -> None:
        """Annotate the next of the open scans."""
        layers = self._scans.layers
        here = [place for place, layer in enumerate(layers) if self._is_annotated(layer)]
        if layers:
            self._scans.choose(layers[(here[0] + 1) % len(layers) if here else 0])

    def follow(self, held: bool) -> None:
        """Let the crosshair follow the cursor, while a key is held."""
        self._is_following = held
        if held:
            self._crosshair.turn(True)
            self._move_to(self._viewer.cursor.position)

    def refresh(self) -> None:
        """Show what is linked, and the linked scans at the point."""
        crosshair = self._crosshair
        self._section.show_switches(
            is_linked=crosshair.is_on, is_side_by_side=self.side is not None
        )
        linked, sentences = self._linked()
        self._section.show_state(sentences)
        if self.side is not None:
            self.side.show_layers(linked, crosshair.move_to, self._scans.choose)
            for picture in self.side.pictures:
                picture.show_point(crosshair.point, self._session.view.slice.axis, self.lines.field)

    def _linked(self) -> tuple[list[Image], list[str]]:
        """Return the other scans that show the point, and what there is to say."""
        here = self._crosshair.space
        if not self._crosshair.is_on or here is None:
            return [], []
        linked, sentences = [], []
        others = [layer for layer in self._scans.layers if not self._is_annotated(layer)]
        for layer in others:
            scan = scan_of(layer)
            space = None if scan is None else PhysicalSpace.of(scan)
            if space is None:
                continue
            reason = space.why_apart(here)
            if not reason:
                linked.append(layer)
                by = "" if space.names_frame_with(here) else ", by the coordinates in their files"
                reason = f"{space.name} is linked{by}."
            sentences.append(reason)
        if here.unplaced:
            sentences = [here.why_apart(here)]
        elif not others:
            sentences = [_ALONE]
        if self.lines.grid.enabled:
            sentences.append(_HIDDEN_BY_GRID)
        return linked, sentences

    def _is_annotated(self, layer: Image) -> bool:
        return scan_of(layer) is self._session.scan

    def _move_to(self, world: Sequence[float]) -> None:
        pixel, grid = self._prompts.pixel_at(world), self._crosshair.grid
        if pixel is not None and grid is not None:
            self._crosshair.move_to(grid.to_point(self._session.view.slice.place(*pixel)))

    def _pressed(self, _viewer: Any, event: Any) -> Iterator[None]:
        """Take the place of a click, but not where a drag draws or moves the picture."""
        if not self._crosshair.is_on or event.button != _LEFT:
            return
        start = np.array(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.array(event.pos) - start).max() <= _STILL:
            self._move_to(event.position)

    def _moved(self, _viewer: Any, event: Any) -> None:
        if self._is_following:
            self._move_to(event.position)

    def eventFilter(self, _watched: Any, event: QEvent) -> bool:  # noqa: N802
        """Stop following when the key's release would not be seen; follow the canvas' size."""
        if event.type() in RELEASE_IS_LOST:
            self._is_following = False
        elif event.type() == QEvent.Type.Resize and self.side is not None:
            self.refresh()
        return False

    def _scan_chosen(self) -> None:
        """Look again once the layers of the chosen scan lie where it lies."""
        self.lines.refresh()
        self.refresh()

    def _side_closed(self) -> None:
        self.side = None
        self.refresh()

    def close(self) -> None:
        """Let go of the viewer."""
        for source in self._sources:
            source.disconnect(self.refresh)
        self._crosshair.changed.disconnect(self.refresh)
        self._session.view.slice_changed.disconnect(self.refresh)
        self._scans.chosen.disconnect(self._scan_chosen)
        self._viewer.mouse_drag_callbacks.remove(self._pressed)
        self._viewer.mouse_move_callbacks.remove(self._moved)
        self._canvas.removeEventFilter(self)
        self.lines.close()
        side, self.side = self.side, None
        if side is not None:
            side.closed.disconnect(self._side_closed)
            side.take_off()
