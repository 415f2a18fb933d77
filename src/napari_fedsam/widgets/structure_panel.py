"""Binds the structure section to the session: new structures, the recipe's, and saved masks."""

from collections.abc import Callable
from pathlib import Path

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QFileDialog

from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.cases.case import Structure
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.mask_formats import save_filter
from napari_fedsam.imaging.writers import write_mask
from napari_fedsam.widgets.background import Background
from napari_fedsam.widgets.structure_section import StructureSection


class StructurePanel:
    """Offers structures and saves the segmentation.

    Parameters
    ----------
    session : AnnotationSession
    section : StructureSection
    source : callable
        Returns where the recipe of the federation in use is found.
    background : Background
    tell : callable
        Shows an error.
    """

    def __init__(
        self,
        session: AnnotationSession,
        section: StructureSection,
        source: Callable[[], ModelSource],
        background: Background,
        tell: Callable[[FedSamError], None],
    ) -> None:
        self._session = session
        self._section = section
        self._source = source
        self._background = background
        self._tell = tell
        section.add_wanted.connect(self._add)
        section.save_wanted.connect(self._ask_path)
        self.offer_recipe()

    def offer_recipe(self) -> None:
        """Offer the structures that the federation has agreed on, if there is one."""
        try:
            structures = self._source().structures()
        except FedSamError as error:
            self._tell(error)
            return
        if structures:
            self._session.offer_structures(structures)

    def choose(self, structure: Structure | int | str) -> None:
        """Segment a structure: one on offer by value or name, or a new one."""
        view = self._session.view
        if isinstance(structure, Structure):
            others = (each for each in view.structures if each.value != structure.value)
            offered = sorted((*others, structure), key=lambda each: each.value)
            view.offer_structures(tuple(offered))
            view.choose_structure(structure.value)
        elif isinstance(structure, int):
            view.choose_structure(structure)
        else:
            values = [each.value for each in view.structures if each.name == structure]
            if values:
                view.choose_structure(values[0])
            else:
                view.add_structure(structure)

    def save_mask(self, path: Path) -> None:
        """Save the segmentation in the format that the file's name asks for, in a worker."""
        scan = self._session.scan
        if scan is None:
            self._tell(ImagingError("There is no mask to save: open a scan first."))
            return
        # A copy, so that painting may go on meanwhile.
        mask = scan.orientation.from_display(self._session.segmentation.copy())
        structures = self._session.view.structures
        self._background.run(
            "disk",
            lambda: write_mask(mask, scan, path, structures),
            lambda _: show_info(f"The mask was saved as {path.name}."),
            self._tell,
        )

    def _add(self, name: str, color: str) -> None:
        try:
            self._session.view.add_structure(name, color)
        except FedSamError as error:
            self._tell(error)
        else:
            self._section.name.clear()

    def _ask_path(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self._section, "Save mask", filter=save_filter())
        if path:
            self.save_mask(Path(path))
