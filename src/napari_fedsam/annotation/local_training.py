"""Training at this site alone, in a process of its own; anything may watch its state."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psutil
from psygnal import Signal

from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.cases.case import Structure
from napari_fedsam.process_priority import give_way
from napari_fedsam.training.site_training import SiteTrainingResult

Status = Literal["idle", "running", "done", "failed"]


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

    `changed` is emitted from a thread of its own.
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

    def start(self, source: ModelSource, structures: Sequence[Structure]) -> None:
        """Start training on the cases of the federation's structures, or of those given.

        Parameters
        ----------
        source : ModelSource
            Of the profile that is trained.
        structures : sequence of Structure
            Used where this site is in no federation.

        Raises
        ------
        FedSamError
            When the recipe cannot be read or written.
        """
        if self._process is not None:
            return
        recipe = source.recipe_for_training(structures)
        command = [
            *(sys.executable, "-m", "napari_fedsam.training.site_training"),
            *(str(source.site_folder), str(recipe), "--profile", source.profile),
        ]
        self._cancelled = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        give_way(psutil.Process(self._process.pid))
        self._set(TrainingState("running"))
        follow = threading.Thread(
            target=self._follow, args=(self._process,), name="napari-fedsam-training", daemon=True
        )
        follow.start()

    def cancel(self) -> None:
        """End training; the model in use stays as it is."""
        process = self._process
        if process is not None:
            self._cancelled = True
            process.kill()

    def _follow(self, process: "subprocess.Popen[str]") -> None:
        last = TrainingState(
            "failed", reason="Training ended before it was done; the model in use is unchanged."
        )
        for line in process.stdout or ():
            told = _read(line)
            if "result" in told:
                last = TrainingState("done", 1.0, result=SiteTrainingResult(**told["result"]))
            elif "error" in told:
                last = TrainingState("failed", reason=str(told["error"]))
            elif "fraction" in told:
                left = told.get("seconds_left")
                self._set(TrainingState("running", float(told["fraction"]), left))
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        self._process = None
        self._set(TrainingState() if self._cancelled else last)

    def _set(self, state: TrainingState) -> None:
        self.state = state
        self.changed.emit(state)


def _read(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
