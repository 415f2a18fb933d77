"""Everything of a session that is drawn in the viewer: layers, sliders, edge letters."""

from typing import TYPE_CHECKING

from napari.layers import Image, Layer

from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.widgets.edge_letters import CanvasLetters
from napari_fedsam.widgets.layers import scan_from_image, scan_of
from napari_fedsam.widgets.mask_layers import MaskLayers
from napari_fedsam.widgets.prompt_layers import PromptLayers, Tool
from napari_fedsam.widgets.viewpoint_binding import ViewpointBinding

if TYPE_CHECKING:
    from napari.viewer import Viewer


class ScanDisplay:
    """Shows one scan at a time with its prompts, preview and segmentation.

    Attributes
    ----------
    masks : MaskLayers
    prompts : PromptLayers
    binding : ViewpointBinding
    letters : CanvasLetters
    """

    def __init__(self, viewer: "Viewer", session: AnnotationSession) -> None:
        self._viewer = viewer
        self._session = session
        self.masks = MaskLayers(viewer, session)
        self.prompts = PromptLayers(viewer, session, lambda: self.masks.preview)
        self.prompts.tool_changed.connect(self._tool_changed)
        self.binding = ViewpointBinding(viewer, session.view)
        self.letters = CanvasLetters(viewer, session.view)

    def show(self, layer: Image) -> bool:
        """Let the session annotate an image layer's scan.

        Returns
        -------
        bool
            False when it is annotated already.

        Raises
        ------
        ImagingError
            When the layer cannot be annotated.
        """
        scan = scan_from_image(layer)
        if scan is self._session.scan:
            return False
        self._session.open_scan(scan, self.masks.segmentation_for(layer))
        self.masks.attach()
        for other in self._viewer.layers:
            owner = scan_of(other)
            if owner is not None:
                other.visible = owner is scan
        self.prompts.attach(layer)
        self.binding.attach(layer)
        return True

    def _tool_changed(self, tool: str) -> None:
        self.masks.touch_up(tool == Tool.TOUCH_UP.value)

    def forget(self, removed: Layer) -> None:
        """Close the scan when its image layer was removed from the viewer."""
        scan = scan_of(removed)
        if not isinstance(removed, Image) or scan is None:
            return
        self._session.forget_scan(scan)
        if scan is self._session.scan:
            self._session.close_scan()
            self.prompts.detach()
            self.masks.close()

    def take_off(self) -> None:
        """Close the open scan and take everything that belongs to it off the viewer."""
        scan = self._session.scan
        owned = [layer for layer in self._viewer.layers if scan and scan_of(layer) is scan]
        # The image first: removing it closes the scan.
        for layer in sorted(owned, key=lambda each: not isinstance(each, Image)):
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def close(self) -> None:
        """Take prompts, preview and letters off the viewer; the segmentation stays."""
        self.binding.close()
        self.letters.close()
        self.prompts.close()
        self.masks.close()
