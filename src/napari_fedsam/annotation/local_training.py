"""Training at this site alone, in a process of its own; anything may watch its state."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from psygnal import Signal

from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.cases.case import Structure
from napari_fedsam.files import make_private_folder
from napari_fedsam.process_priority import give_way
from napari_fedsam.training.errors import refused_by_system
from napari_fedsam.training.profile_folder import profile_folder
from napari_fedsam.training.site_training import SiteTrainingResult

Status = Literal["idle", "running", "done", "failed"]

# On POSIX the end of a process by SIGKILL, which Windows does not know.
_KILLED = -9


@dataclass(frozen=True)
class TrainingState:
    """Where training at this site stands.

    Attributes
    ----------
    status : {"idle", "running", "done", "failed"}
    fraction : float
        Done so far, 0..1, while it runs.
    seconds_left : float or None
    result : SiteTrainingResult or None
        Once it is done.
    reason : str
        Why it failed.
    """

    status: Status = "idle"
    fraction: float = 0.0
    seconds_left: float | None = None
    result: SiteTrainingResult | None = None
    reason: str = ""


class LocalTraining:
    """Starts, follows and cancels training in a child process.

    What the child writes to standard error is kept in `logs/training.log` of the profile's folder,
    until the next training. `changed` is emitted from a thread of its own.
    """

    changed = Signal(TrainingState)

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = False
        self.state = TrainingState()

    @property
    def running(self) -> bool:
        """Whether training is under way."""
        return self._process is not None

    def start(
        self, source: ModelSource, structures: Sequence[Structure], *, ask_first: bool = False
    ) -> None:
        """Start training on the cases of the federation's structures, or of those given.

        Parameters
        ----------
        source : ModelSource
            Of the profile that is trained.
        structures : sequence of Structure
            Used where this site is in no federation.
        ask_first : bool
            Whether a new model that did no worse waits until the person wants to use it.

        Raises
        ------
        FedSamError
            When the recipe cannot be read or written, or the child cannot be started.
        """
        if self._process is not None:
            return
        folder = profile_folder(source.site_folder, source.profile)
        try:
            recipe = source.recipe_for_training(structures)
            log = make_private_folder(folder / "logs") / "training.log"
            command = [
                # Of a crash outside Python the log has a traceback, too.
                *(sys.executable, "-X", "faulthandler"),
                *("-m", "napari_fedsam.training.site_training"),
                *(str(source.site_folder), str(recipe), "--profile", source.profile),
                *(["--ask-first"] if ask_first else []),
            ]
            process = _started(command, log)
        except OSError as error:
            raise refused_by_system("Training could not start", error, folder) from error
        give_way(psutil.Process(process.pid))
        self._cancelled = False
        self._process = process
        self._set(TrainingState("running"))
        follow = threading.Thread(
            target=self._follow, args=(process, log), name="napari-fedsam-training", daemon=True
        )
        follow.start()

    def cancel(self) -> None:
        """End training; the model in use stays as it is."""
        process = self._process
        if process is not None:
            self._cancelled = True
            process.kill()

    def _follow(self, process: "subprocess.Popen[str]", log: Path) -> None:
        outcome = None
        for line in process.stdout or ():
            told = _read(line)
            if "result" in told:
                outcome = TrainingState("done", 1.0, result=SiteTrainingResult(**told["result"]))
            elif "error" in told:
                outcome = TrainingState("failed", reason=str(told["error"]))
            elif "fraction" in told:
                left = told.get("seconds_left")
                self._set(TrainingState("running", float(told["fraction"]), left))
        status = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        self._process = None
        # What was told before the end is so, cancelled or not.
        if outcome is None and self._cancelled:
            outcome = TrainingState()
        self._set(outcome or TrainingState("failed", reason=_reason_of_end(status, log)))

    def _set(self, state: TrainingState) -> None:
        self.state = state
        self.changed.emit(state)


def _started(command: Sequence[str], log: Path) -> "subprocess.Popen[str]":
    with log.open("wb") as errors:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
        )


def _reason_of_end(status: int, log: Path) -> str:
    if status == _KILLED:
        return (
            "The system ended training, most likely for want of memory; the model in use is "
            f"unchanged. Close other programs, then train again (its log is {log})."
        )
    return (
        "Training ended before it was done; the model in use is unchanged. Read why in "
        f"{log}, then train again."
    )


def _read(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
