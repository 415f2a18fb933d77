"""Proposes on the scans of a worklist before they are opened, one scan at a time."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

from qtpy.QtCore import QObject

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.worklist import Proposal, Worklist
from napari_fedsam.annotation.worklist_proposal import propose_scan
from napari_fedsam.cases.case import Structure
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.errors import ImagingError, MultipleSeriesError
from napari_fedsam.widgets.encode_ahead import EncodeAhead

LoadGlobal = Callable[[ModelInUse], ModelInUse | None]


@dataclass(eq=False)
class _Task:
    """One scan to propose on."""

    worklist: Worklist
    index: int
    model: ModelInUse
    structure: Structure
    steps: Generator[None, None, Proposal] | None = None


class ProposeAhead(QObject):
    """Fills in the proposals of a worklist, slice after slice in turn with `EncodeAhead`.

    Parameters
    ----------
    session : AnnotationSession
        Its model proposes the structure that is chosen in it.
    ahead : EncodeAhead
        Whose thread is shared; it yields to the person.
    load_global : callable
        Loads the global model beside a personalised one; runs in the thread.
    """

    def __init__(
        self, session: AnnotationSession, ahead: EncodeAhead, load_global: LoadGlobal
    ) -> None:
        super().__init__()
        self._session = session
        self._ahead = ahead
        self._load_global = load_global
        self._worklist: Worklist | None = None
        self._task: _Task | None = None
        self._global: tuple[ModelInUse, ModelInUse | None] | None = None
        self._without: set[int] = set()
        session.model_changed.connect(self._try_again)
        session.view.structure_changed.connect(self._wake)

    @property
    def running(self) -> bool:
        """Whether a scan is being proposed on."""
        return self._task is not None

    def use(self, worklist: Worklist | None) -> None:
        """Propose on the scans of another worklist, or on none."""
        self._worklist = worklist
        self._try_again()

    def _try_again(self) -> None:
        self._without = set()
        self._wake()

    def _wake(self) -> None:
        model, structure = self._session.model, self._session.view.structure
        if self.running or self._worklist is None or model is None:
            return
        if not (model.can_propose and model.structure_for(structure) is not None):
            self._global = None
            return
        index = self._worklist.to_propose(model.provenance, structure.value, self._without)
        if index is None:
            # It takes as much memory as the model in use.
            self._global = None
            return
        self._task = _Task(self._worklist, index, model, structure)
        self._continue(self._task)

    def _continue(self, task: _Task) -> None:
        self._ahead.share(
            lambda between: self._step(task, between),
            lambda proposal: self._stepped(task, proposal),
            lambda error: self._failed(task, error),
        )

    def _step(self, task: _Task, between: Callable[[], None]) -> Proposal | None:
        """Do one step in the thread; the last one returns the proposal."""
        if task.steps is None:
            path = task.worklist.entries[task.index].path
            known = self._global_beside(task.model)
            task.steps = propose_scan(path, task.structure, task.model, known, between)
        try:
            next(task.steps)
        except StopIteration as end:
            proposal: Proposal = end.value
            return proposal
        return None

    def _global_beside(self, model: ModelInUse) -> ModelInUse | None:
        if not model.is_personalised:
            return None
        if self._global is None or self._global[0] is not model:
            self._global = model, self._load_global(model)
        return self._global[1]

    def _stepped(self, task: _Task, proposal: Proposal | None) -> None:
        session = self._session
        now = (self._worklist, session.model, session.view.structure)
        if now != (task.worklist, task.model, task.structure):
            self._rest()
        elif proposal is None:
            self._continue(task)
        else:
            task.worklist.set_proposal(task.index, proposal)
            self._rest()

    def _failed(self, task: _Task, error: FedSamError) -> None:
        self._without.add(task.index)
        # Of several series the person chooses one when the scan is opened.
        if isinstance(error, ImagingError) and not isinstance(error, MultipleSeriesError):
            task.worklist.set_problem(task.index, str(error))
        self._rest()

    def _rest(self) -> None:
        self._task = None
        self._wake()

    def close(self) -> None:
        """Start nothing more."""
        self._session.model_changed.disconnect(self._try_again)
        self._session.view.structure_changed.disconnect(self._wake)
        self._worklist = None
