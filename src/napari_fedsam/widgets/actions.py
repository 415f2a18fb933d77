"""What keys and buttons do: the methods that `keys.ACTIONS` names."""

from pathlib import Path

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QWidget

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.volume_tools import fill_holes, largest_component, smooth
from napari_fedsam.annotation.worklist import Flag
from napari_fedsam.widgets.cursor_preview import CursorPreview
from napari_fedsam.widgets.key_list import show_keys
from napari_fedsam.widgets.link_panel import LinkPanel
from napari_fedsam.widgets.mask_prompts import MaskPrompts
from napari_fedsam.widgets.prompt_layers import Tool
from napari_fedsam.widgets.scan_display import ScanDisplay
from napari_fedsam.widgets.session_panel import SessionPanel
from napari_fedsam.widgets.volume_panel import VolumePanel
from napari_fedsam.widgets.window_drag import WindowDrag
from napari_fedsam.widgets.worklist_panel import WorklistPanel


class Actions(QWidget):
    """The actions of a widget, which makes the parts named here."""

    session: AnnotationSession
    _display: ScanDisplay
    _cursor_preview: CursorPreview
    _window_drag: WindowDrag
    _links: LinkPanel
    _mask_prompts: MaskPrompts
    _volume_panel: VolumePanel
    _session_panel: SessionPanel
    _worklist_panel: WorklistPanel

    def use_positive_point(self) -> None:
        """Make the next click a positive point."""
        self._display.prompts.choose(Tool.POSITIVE)

    def use_negative_point(self) -> None:
        """Make the next click a negative point."""
        self._display.prompts.choose(Tool.NEGATIVE)

    def use_box(self) -> None:
        """Make the next drag a box."""
        self._display.prompts.choose(Tool.BOX)

    def use_positive_scribble(self) -> None:
        """Make the next drag a scribble over what belongs to the structure."""
        self._display.prompts.choose(Tool.POSITIVE_SCRIBBLE)

    def use_negative_scribble(self) -> None:
        """Make the next drag a scribble over what does not belong to it."""
        self._display.prompts.choose(Tool.NEGATIVE_SCRIBBLE)

    def use_lasso(self) -> None:
        """Make the next drag an outline around an object."""
        self._display.prompts.choose(Tool.LASSO)

    def touch_up(self) -> None:
        """Paint on the answer with napari's brush."""
        self._display.prompts.choose(Tool.TOUCH_UP)

    def hover(self, held: bool) -> None:
        """Show what a click under the cursor would give, while a key is held."""
        if held:
            self._cursor_preview.start()
        else:
            self._cursor_preview.stop()

    def drag_window(self, held: bool) -> None:
        """Change the window with the mouse, while a key is held."""
        if held:
            self._window_drag.start()
        else:
            self._window_drag.stop()

    def toggle_link(self) -> None:
        """Link the open scans by a crosshair, or stop that."""
        self._links.toggle()

    def move_crosshair(self, held: bool) -> None:
        """Let the crosshair follow the cursor, while a key is held."""
        self._links.follow(held)

    def toggle_side_by_side(self) -> None:
        """Show the linked scans beside the canvas, or stop that."""
        self._links.toggle_side_by_side()

    def switch_scan(self) -> None:
        """Annotate the next of the open scans."""
        self._links.switch()

    def use_neighbour(self) -> None:
        """Start from the mask of the neighbouring slice."""
        self.session.use_neighbour()

    def use_layer_mask(self) -> None:
        """Start from the selected Labels layer, else from the segmentation."""
        self._mask_prompts.use_layer()

    def use_file_mask(self, path: Path | str | None = None) -> None:
        """Start from a mask in a file; without one, ask for it."""
        self._mask_prompts.use_file(path)

    def propose(self) -> None:
        """Ask the model for its proposal."""
        self.session.propose()

    def accept(self) -> None:
        """Accept the preview or what was drawn by hand, and keep it as a case."""
        self.session.accept()

    def accept_absent(self) -> None:
        """Accept that the structure is absent on this slice."""
        self.session.accept_absent()

    def undo(self) -> None:
        """Take back the last step: prompt, paint or accept."""
        if not self.session.undo():
            show_info("There is nothing to take back.")

    def redo(self) -> None:
        """Do again what was taken back."""
        if not self.session.redo():
            show_info("There is nothing to do again.")

    def toggle_preserve(self) -> None:
        """Spare what other structures cover, or overwrite it."""
        self.session.set_preserve_others(not self.session.preserve_others)

    def choose_structure(self, place: int) -> None:
        """Segment the structure at a place of the list, counted from 1."""
        structures = self.session.view.structures
        if place > len(structures):
            raise AnnotationError(
                f"There is no structure {place}: the list has {len(structures)}; add it first."
            )
        self.session.view.choose_structure(structures[place - 1].value)

    def propagate(self) -> None:
        """Carry the structure through the volume in both directions."""
        self._volume_panel.propagate()

    def interpolate(self) -> None:
        """Fill the slices between accepted ones."""
        self._volume_panel.interpolate()

    def cancel_volume(self) -> None:
        """Stop propagation and keep what it has found."""
        self._volume_panel.cancel()

    def fill_holes(self) -> None:
        """Fill the holes of the structure's volume."""
        self._volume_panel.apply(fill_holes)

    def largest_component(self) -> None:
        """Keep the largest part of the structure's volume."""
        self._volume_panel.apply(largest_component)

    def smooth(self) -> None:
        """Smooth the structure's surface."""
        self._volume_panel.apply(smooth)

    def show_keys(self) -> None:
        """List all keys."""
        show_keys(self)

    def clear(self) -> None:
        """Remove the prompts of this slice."""
        self.session.clear()

    def next_slice(self) -> None:
        """Go to the next slice."""
        self.session.view.next_slice()

    def previous_slice(self) -> None:
        """Go to the previous slice."""
        self.session.view.next_slice(-1)

    def open_worklist(self, path: Path | str) -> None:
        """Work through a folder of scans, a manifest or a list of files."""
        self._worklist_panel.open(Path(path))

    def scan_done(self) -> None:
        """Flag the scan of the worklist as done and open the next."""
        self._worklist_panel.go_on(Flag.DONE)

    def skip_scan(self) -> None:
        """Skip the scan of the worklist and open the next."""
        self._worklist_panel.go_on(Flag.SKIPPED)

    def scan_unsure(self) -> None:
        """Flag the scan of the worklist as unsure and open the next."""
        self._worklist_panel.go_on(Flag.UNSURE)

    def next_scan(self) -> None:
        """Open the next scan of the worklist, without a flag."""
        self._worklist_panel.go_on()

    def save_session(self, path: Path | str | None = None) -> None:
        """Save prompts, masks and structures as one file; without a path, ask for it."""
        self._session_panel.save(path)

    def open_session(self, path: Path | str | None = None) -> None:
        """Open a saved session with its scan; without a path, ask for it."""
        self._session_panel.open(path)
