"""A list of scans to work through: flags, what each has cost, and which comes next."""

import time
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from psygnal import Signal
from pydantic import BaseModel, ConfigDict

LONGEST_PAUSE = 60.0
"""A pause between two actions counts as no more than this, seconds."""


class Flag(StrEnum):
    """What the person has said of a scan."""

    TO_DO = "to do"
    DONE = "done"
    SKIPPED = "skipped"
    UNSURE = "unsure"


class Order(StrEnum):
    """Which scan comes next."""

    LIST = "in order"
    CONFIDENCE = "lowest confidence first"
    DISAGREEMENT = "largest disagreement first"


class Proposal(BaseModel):
    """What a model's proposals for a scan say of it.

    Attributes
    ----------
    model : str
        The model's `ModelInUse.provenance`.
    structure : int
        The value of the structure that was proposed.
    confidence : float
        Mean predicted overlap where something was proposed, 0..1; 0 where nothing was.
    disagreement : float or None
        1 - Dice between the global and the personalised model's proposals; None where there is
        no personalised model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    structure: int
    confidence: float
    disagreement: float | None = None


class Entry(BaseModel):
    """One scan of a worklist.

    Attributes
    ----------
    path : Path
        Its file or DICOM folder.
    flag : Flag
    seconds : float
        Time spent on it; long pauses count as `LONGEST_PAUSE`.
    prompts : int
        Number of prompts given on it, those taken back included.
    proposal : Proposal or None
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    flag: Flag = Flag.TO_DO
    seconds: float = 0.0
    prompts: int = 0
    proposal: Proposal | None = None


class WorklistState(BaseModel):
    """A worklist as it is kept on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: Path
    entries: tuple[Entry, ...]
    current: Path | None = None
    order: Order = Order.LIST


class Worklist:
    """The scans of a folder or a list, with the person's place among them.

    Parameters
    ----------
    origin : Path
        The folder, manifest or list that they come from.
    paths : sequence of Path
        The scans, in order.
    earlier : WorklistState, optional
        What is known of them; a scan with a history that is not among `paths` any more is kept.

    Attributes
    ----------
    entries : list of Entry
    current : int or None
        The scan being worked on.
    problems : dict of int to str
        Why scans cannot be opened; tried anew when the list is opened again.
    """

    changed: ClassVar[Signal] = Signal()

    def __init__(
        self, origin: Path, paths: Sequence[Path], earlier: WorklistState | None = None
    ) -> None:
        self.origin = origin
        known = {} if earlier is None else {entry.path: entry for entry in earlier.entries}
        gone = [each for path, each in known.items() if path not in paths and _has_history(each)]
        self.entries = [known.get(path) or Entry(path=path) for path in paths] + gone
        self.problems: dict[int, str] = {}
        self.order = Order.LIST if earlier is None else earlier.order
        place = {entry.path: index for index, entry in enumerate(self.entries)}
        self.current = None if earlier is None else place.get(earlier.current or Path())
        self._passed: set[int] = set()

    @property
    def state(self) -> WorklistState:
        """What is to be kept on disk."""
        current = None if self.current is None else self.entries[self.current].path
        return WorklistState(
            origin=self.origin, entries=tuple(self.entries), current=current, order=self.order
        )

    def find(self, path: Path) -> int | None:
        """Return the place of a scan's file or folder in the list, or None."""
        paths = [entry.path for entry in self.entries]
        return paths.index(path) if path in paths else None

    def flag(self, index: int, flag: Flag) -> None:
        """Say how it stands with a scan."""
        self._update(index, flag=flag)

    def add_work(self, index: int, *, seconds: float = 0.0, prompts: int = 0) -> None:
        """Count time and prompts for a scan."""
        entry = self.entries[index]
        self._update(index, seconds=entry.seconds + seconds, prompts=entry.prompts + prompts)

    def set_proposal(self, index: int, proposal: Proposal) -> None:
        """Keep what a model's proposal says of a scan."""
        self._update(index, proposal=proposal)

    def set_problem(self, index: int, sentence: str) -> None:
        """Leave a scan out that cannot be opened."""
        self.problems[index] = sentence
        self.changed.emit()

    def set_order(self, order: Order) -> None:
        """Choose which scan comes next."""
        self.order = order
        self.changed.emit()

    def go_to(self, index: int) -> None:
        """Work on a scan; one that failed to open is given another chance."""
        self.current = index
        self.problems.pop(index, None)
        self.changed.emit()

    def count(self, flag: Flag) -> int:
        """Return how many scans have a flag."""
        return sum(entry.flag is flag for entry in self.entries)

    def next(self, structure: int) -> int | None:
        """Return the scan to do next, other than the current one; None when none is left.

        Those that were passed over without a flag come again after the others.

        Parameters
        ----------
        structure : int
            Proposals of this structure are compared.
        """
        if self.current is not None:
            self._passed.add(self.current)
        waiting = [index for index in self._to_do() if index != self.current]
        if self._passed.issuperset(waiting):
            self._passed = set()
        return min(
            waiting,
            key=lambda index: (index in self._passed, self._rank(index, structure)),
            default=None,
        )

    def to_propose(self, model: str, structure: int, without: Collection[int] = ()) -> int | None:
        """Return the next scan without a proposal of this model for this structure, or None.

        Parameters
        ----------
        model : str
            See `Proposal`.
        structure : int
            The structure's value.
        without : collection of int
            Scans to leave out.
        """
        for index in sorted(set(self._to_do()).difference(without), key=self._distance):
            proposal = self.entries[index].proposal
            if proposal is None or (proposal.model, proposal.structure) != (model, structure):
                return index
        return None

    def _to_do(self) -> list[int]:
        return [
            index
            for index, entry in enumerate(self.entries)
            if entry.flag is Flag.TO_DO and index not in self.problems
        ]

    def _rank(self, index: int, structure: int) -> tuple[float, int]:
        """Return what sorts the scans; those without a proposal come last, in order."""
        proposal, distance = self.entries[index].proposal, self._distance(index)
        if self.order is Order.LIST or proposal is None or proposal.structure != structure:
            return 2.0, distance
        if self.order is Order.CONFIDENCE:
            return proposal.confidence, distance
        if proposal.disagreement is None:
            return 2.0, distance
        return -proposal.disagreement, distance

    def _distance(self, index: int) -> int:
        """Return how far down the list a scan is; from the end it goes on at the beginning."""
        start = 0 if self.current is None else self.current
        return (index - start) % len(self.entries)

    def _update(self, index: int, **values: object) -> None:
        self.entries[index] = self.entries[index].model_copy(update=values)
        self.changed.emit()


def _has_history(entry: Entry) -> bool:
    return entry.flag is not Flag.TO_DO or entry.seconds > 0 or entry.prompts > 0


class WorkClock:
    """Measures the time from action to action.

    Parameters
    ----------
    now : callable
        Returns seconds from any start.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: float | None = None

    def start(self) -> None:
        """Begin to count."""
        self._last = self._now()

    def stop(self) -> None:
        """Count no more."""
        self._last = None

    def lap(self) -> float:
        """Return the seconds since the last lap, at most `LONGEST_PAUSE`; 0 when stopped."""
        if self._last is None:
            return 0.0
        now = self._now()
        passed, self._last = now - self._last, now
        return min(passed, LONGEST_PAUSE)
