"""The annotation session: prompts in, previews out, accepted masks kept as cases.

State without a window: views listen to the signals and call the methods, all in one thread. The
slow steps are handed out as work (`session.answering`) and may run in another.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

from numpy.typing import NDArray
from psygnal import Signal

from napari_fedsam.annotation.acceptance import Acceptance, DiskJobs
from napari_fedsam.annotation.accepting import Accepting
from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.crosshair import Crosshair
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.history import History
from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.prompting import Prompting
from napari_fedsam.annotation.work import Place
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.imaging.scan import Scan


class AnnotationSession(Prompting, Accepting):
    """One person annotating one scan at a time.

    Parameters
    ----------
    store : CaseStore
        Where accepted masks are kept.
    annotator : str
        Who accepts them.
    disk : DiskJobs, optional
        Runs what waits for the disk; by default at once.

    Attributes
    ----------
    crosshair : Crosshair
        The point that links this scan to others.
    """

    model_changed: ClassVar[Signal] = Signal()
    opened: ClassVar[Signal] = Signal()

    def __init__(
        self, store: CaseStore, *, annotator: str = "", disk: DiskJobs | None = None
    ) -> None:
        super().__init__(store, annotator=annotator, disk=disk)
        self._auto_propose = False
        self.crosshair = Crosshair(self.view)
        self.view.slice_changed.connect(self._arrived)
        self.view.structure_changed.connect(self._arrived)
        self.view.window_changed.connect(self.answering.work_wanted.emit)
        self.answering.failed.connect(self.failed.emit)

    # --- scan

    def open_scan(self, scan: Scan, segmentation: NDArray[Any] | None = None) -> None:
        """Begin to annotate a scan, on the middle slice of its acquired plane.

        A scan that the crosshair links to the one before begins on the slice nearest to it. What
        was done on a scan that was open before is there again, with its undo steps.

        Parameters
        ----------
        scan : Scan
        segmentation : unsigned integer array in display order, optional
            Where accepted masks are written; by default the one that the scan had, or a new one.
        """
        self._put_aside()
        self._look_at(scan)
        if segmentation is not None:
            self.segmentation = segmentation
        self.opened.emit()

    def close_scan(self) -> None:
        """Forget the scan with its prompts and undo steps; kept cases stay."""
        self._look_at(None)
        self.opened.emit()

    def _look_at(self, scan: Scan | None) -> None:
        self.view.open(scan, None if scan is None else self.crosshair.start_of(scan))
        self._forget()
        self._take_up()
        self.answering.hover.point_at(None)
        self.answering.forget()
        self._arrived()

    # --- model

    def use_model(self, model: ModelInUse) -> None:
        """Let another model answer; the prompts stay and are answered again."""
        self.answering.use_model(model)
        self.model_changed.emit()
        self._arrived()

    @property
    def can_propose(self) -> bool:
        """Whether the model has learned to propose the chosen structure without a prompt."""
        model = self.model
        return (
            model is not None
            and model.can_propose
            and model.structure_for(self.view.structure) is not None
        )

    def propose(self) -> None:
        """Ask the model for its own proposal.

        Raises
        ------
        AnnotationError
            When the model has not learned to propose this structure.
        """
        if not self.can_propose:
            raise AnnotationError(
                f"The model in use has not learned to propose {self.view.structure.name}: click "
                "on it or draw a box; a model personalised in a federation can propose."
            )
        self.set_ask(replace(self.ask, proposal=True, automatic=False))

    @property
    def auto_propose(self) -> bool:
        """Whether a slice gets the model's proposal while it is shown and nothing is asked on it.

        Such a proposal is gone once the slice is left, unless the person takes it up.
        """
        return self._auto_propose

    @auto_propose.setter
    def auto_propose(self, wanted: bool) -> None:
        self._auto_propose = wanted
        if wanted:
            self._arrived()

    # --- going on, and arriving

    def resume(
        self, asks: dict[Place, Ask], accepted: list[Acceptance], edits: Iterable[LabelEdit]
    ) -> None:
        """Go on where an earlier session of this scan stopped; undo begins anew."""
        self._history = History()
        self._edit(LabelEdit.from_nothing(self.segmentation).swapped())
        for edit in edits:
            self._edit(edit)
        self._accepted = {each.place: each for each in accepted}
        self._asks = dict(asks)
        self._arrived()

    def _arrived(self) -> None:
        """Show the prompts of a place, a scan or a model that is new."""
        place = self.view.place
        # What nobody has taken up goes with the slice that it was made for.
        self._asks = {p: ask for p, ask in self._asks.items() if p == place or not ask.automatic}
        is_bare = self.ask.is_empty and place not in self._accepted
        if self.auto_propose and self.view.scan is not None and self.can_propose and is_bare:
            self._asks[place] = self._after_painting(Ask(proposal=True, automatic=True))
        preview = self.preview
        if preview is not None and preview.place != place:
            self.answering.drop_preview()
        self.answering.hover.drop()
        self.answering.foreseen.expect_nothing()
        self._show_ask()
