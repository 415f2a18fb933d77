"""Driving rounds: waiting for sites, starting runs, going on after a crash."""

import contextlib
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
from napari_fedsam.files import write_text_atomically
from napari_fedsam.personalization.recipe import Recipe

_POLL_SECONDS = 0.5
# Runs that end early without a round in between.
_MOST_FAILURES = 3
# Each time, the sites that can take part train anew, and the others start a process to decline.
ASK_AGAIN_AFTER = datetime.timedelta(minutes=10)


class RoundDriver:
    """Runs a number of rounds on a coordinator that was started.

    Parameters
    ----------
    files : CoordinatorFiles
    recipe : Recipe
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
    ask_again_after : timedelta
        How long to wait after a round that changed nothing.
    """

    def __init__(
        self,
        files: CoordinatorFiles,
        recipe: Recipe,
        processes: CoordinatorProcesses,
        connect: Callable[[], AbstractContextManager[Control]],
        status: Callable[[], CoordinatorStatus],
        *,
        tell: Callable[[str], None],
        cancelled: Callable[[], bool],
        ask_again_after: datetime.timedelta,
    ) -> None:
        self._files = files
        self._recipe = recipe
        self._processes = processes
        self._connect = connect
        self._status = status
        self._tell = tell
        self._cancelled = cancelled
        self._ask_again_after = ask_again_after
        self._store = CheckpointStore(files.folder)
        self._waiting = ""
        self._told = {each.round: each.summary for each in self._store.results() if each.complete}

    def drive(self, bundle: bytes, sha256: str, rounds: int, wait_seconds: float | None) -> None:
        """Run rounds until so many have changed the model and all sites were asked to judge it.

        Ends before that when the coordinator is paused, or it is cancelled.

        Raises
        ------
        FederationError
            When the sites do not come in time, or runs keep failing.
        """
        self._files.asks_again.unlink(missing_ok=True)
        try:
            self._drive(bundle, sha256, self._done + rounds, wait_seconds)
        finally:
            self._files.asks_again.unlink(missing_ok=True)

    def _drive(self, bundle: bytes, sha256: str, last: int, wait_seconds: float | None) -> None:
        failures = 0
        while self._is_left(last) and not self._ends_here():
            self._wait(wait_seconds)
            # The ServerApp of an earlier run may have done what was left.
            if not self._is_left(last) or self._ends_here():
                break
            before = self._store.results()
            outcome = self._run(bundle, sha256, max(0, last - self._done))
            self._tell_results()
            new = [result for result in self._store.results() if result not in before]
            if new and not new[-1].aggregated:
                self._put_off()
            if outcome.completed or self._ends_here():
                continue
            failures = 1 if new else failures + 1
            reason = outcome.details or "no reason given"
            if failures == _MOST_FAILURES:
                raise FederationError(
                    f"The run ended early {failures} times ({reason}); read "
                    f"{self._files.serverapp_log}."
                )
            self._tell(f"the run ended early ({reason}); going on with the next round")

    @property
    def _done(self) -> int:
        return self._store.aggregated_rounds(self._recipe.hash)

    def _is_left(self, last: int) -> bool:
        return self._done < last or self._store.unjudged(self._recipe.hash) is not None

    def _put_off(self) -> None:
        then = datetime.datetime.now().astimezone() + self._ask_again_after
        # On a full disk the room is what is waited for.
        with contextlib.suppress(OSError):
            write_text_atomically(self._files.asks_again, then.isoformat())

    def _ends_here(self) -> bool:
        return self._cancelled() or self._files.paused.exists()

    def _wait(self, seconds: float | None) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while (line := self._waits_for()) and not self._ends_here():
            self._tell_wait(line)
            if deadline is not None and time.monotonic() > deadline:
                raise FederationError(f"No round was run: {line}.")
            time.sleep(_POLL_SECONDS)
        self._tell_wait("")

    def _tell_wait(self, line: str) -> None:
        """Tell what is waited for when it is something else than before."""
        if line and line != self._waiting:
            self._tell(line)
        self._waiting = line

    def _waits_for(self) -> str:
        if self._processes.ended:
            self._revive()
        now = datetime.datetime.now().astimezone().time()
        options = self._recipe.federation
        if not options.may_start(now):
            return f"waiting for the agreed hours ({options.hours})"
        if line := self._waits_for_room():
            return line
        if self._store.in_use:
            return "waiting for the ServerApp of an earlier run to end"
        try:
            return self._status().waits_for
        except FederationError as error:
            # As when `start`, in another terminal, is bringing SuperLink back.
            if not self._processes.running:
                raise
            return f"waiting for SuperLink ({error})"

    def _waits_for_room(self) -> str:
        if not lack_of_room(self._files.folder):
            return ""
        return f"waiting for room on the disk of {self._files.folder}, which is full"

    def _run(self, bundle: bytes, sha256: str, rounds: int) -> RunInfo:
        with self._connect() as control:
            run_id = control.start_run(bundle, sha256, rounds)
        try:
            return self._follow_patiently(run_id)
        except BaseException:
            # Nobody would follow it any longer, and the next run could not start beside it.
            with contextlib.suppress(FederationError), self._connect() as control:
                control.stop_run(run_id)
            raise

    def _follow_patiently(self, run_id: int) -> RunInfo:
        while True:
            try:
                with self._connect() as control:
                    return self._follow(control, run_id)
            except FederationError:
                # The run goes on in its own process while SuperLink is brought back, by this
                # program or by `start` in another terminal.
                if self._processes.ended:
                    self._revive()
                elif not self._processes.running:
                    raise
                time.sleep(_POLL_SECONDS)

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
            # SuperLink takes nothing on a full disk, and the run waits for it without a word.
            self._tell_wait(self._waits_for_room())
            time.sleep(_POLL_SECONDS)
        return state

    def _revive(self) -> None:
        for name in self._processes.revive():
            self._tell(f"{name} had ended unexpectedly and was started again")

    def _tell_results(self) -> None:
        for result in self._store.results():
            # A round that changes nothing again for the same reasons is told once.
            if result.complete and self._told.get(result.round) != result.summary:
                self._told[result.round] = result.summary
                self._tell(result.summary)


def asks_again(files: CoordinatorFiles) -> datetime.datetime | None:
    """Return when the sites are asked again after a round that changed nothing, None when now."""
    try:
        then = datetime.datetime.fromisoformat(files.asks_again.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return then if then > datetime.datetime.now().astimezone() else None
