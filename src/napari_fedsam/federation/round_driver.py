"""Driving rounds: waiting for sites, starting runs, going on after a crash."""

import datetime
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.control import Control, RunInfo
from napari_fedsam.federation.coordinator_processes import CoordinatorProcesses
from napari_fedsam.federation.coordinator_settings import CoordinatorFiles
from napari_fedsam.federation.coordinator_status import CoordinatorStatus
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.room import lack_of_room
from napari_fedsam.federation.round_result import RoundResult
from napari_fedsam.personalization.federation_options import FederationOptions

_POLL_SECONDS = 0.5
# Runs that end early without a round in between.
_MOST_FAILURES = 3


class RoundDriver:
    """Runs a number of rounds on a coordinator that was started.

    Parameters
    ----------
    files : CoordinatorFiles
    options : FederationOptions
        Gives the hours in which rounds may start.
    processes : CoordinatorProcesses
        Are started again when one has ended without being asked to.
    connect : callable
        Opens a connection to SuperLink.
    status : callable
        Tells how the coordinator stands.
    tell : callable
        Receives a line whenever there is something new.
    cancelled : callable
        Asked twice a second; the rounds are stopped once it returns True.
    """

    def __init__(
        self,
        files: CoordinatorFiles,
        options: FederationOptions,
        processes: CoordinatorProcesses,
        connect: Callable[[], AbstractContextManager[Control]],
        status: Callable[[], CoordinatorStatus],
        *,
        tell: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._files = files
        self._options = options
        self._processes = processes
        self._connect = connect
        self._status = status
        self._tell = tell
        self._cancelled = cancelled
        self._store = CheckpointStore(files.folder)
        self._told_rounds = len(self._store.results())

    def drive(self, bundle: bytes, sha256: str, rounds: int, wait_seconds: float | None) -> None:
        """Run rounds until that many are recorded, the coordinator is paused, or it is cancelled.

        Raises
        ------
        FederationError
            When the sites do not come in time, or runs keep failing.
        """
        last = len(self._store.results()) + rounds
        failures = 0
        while (done := len(self._store.results())) < last and not self._ends_here():
            self._wait(wait_seconds)
            if self._ends_here():
                break
            outcome = self._run(bundle, sha256, last - done)
            self._tell_results(finished=True)
            if outcome.completed or self._ends_here():
                continue
            failures = failures + 1 if len(self._store.results()) == done else 1
            reason = outcome.details or "no reason given"
            if failures == _MOST_FAILURES:
                raise FederationError(
                    f"The run ended early {failures} times ({reason}); read the log 'superexec' in "
                    f"{self._files.folder / 'logs'}."
                )
            self._tell(f"the run ended early ({reason}); going on with the next round")

    def _ends_here(self) -> bool:
        return self._cancelled() or self._files.paused.exists()

    def _wait(self, seconds: float | None) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        told = ""
        while (line := self._waits_for()) and not self._ends_here():
            if line != told:
                self._tell(line)
                told = line
            if deadline is not None and time.monotonic() > deadline:
                raise FederationError(f"No round was run: {line}.")
            time.sleep(_POLL_SECONDS)

    def _waits_for(self) -> str:
        if self._processes.ended:
            self._revive()
        now = datetime.datetime.now().astimezone().time()
        if not self._options.may_start(now):
            return f"waiting for the agreed hours ({self._options.hours})"
        if lack_of_room(self._files.folder):
            return f"waiting for room on the disk of {self._files.folder}, which is full"
        return self._status().waits_for

    def _run(self, bundle: bytes, sha256: str, rounds: int) -> RunInfo:
        with self._connect() as control:
            run_id = control.start_run(bundle, sha256, rounds)
        while True:
            try:
                with self._connect() as control:
                    return self._follow(control, run_id)
            except FederationError:
                # The run goes on in its own process while SuperLink is brought back.
                if not self._processes.ended:
                    raise
                self._revive()

    def _follow(self, control: Control, run_id: int) -> RunInfo:
        stopped = False
        while not (state := control.run(run_id)).finished:
            # A pause lets the round end; the ServerApp sees it by itself.
            if self._cancelled() and not stopped:
                control.stop_run(run_id)
                stopped = True
            if self._processes.ended:
                self._revive()
            self._tell_results()
            time.sleep(_POLL_SECONDS)
        return state

    def _revive(self) -> None:
        for name in self._processes.revive():
            self._tell(f"{name} had ended unexpectedly and was started again")

    def _tell_results(self, *, finished: bool = False) -> None:
        results: list[RoundResult] = self._store.results()
        for result in results[self._told_rounds :]:
            if not (result.complete or finished):
                break
            self._tell(result.summary)
            self._told_rounds += 1
