"""Child processes that are found again and ended completely, on every operating system."""

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.files import make_private_folder, write_text_atomically
from napari_fedsam.process_priority import give_way

# Every process below a table's folder inherits this variable; orphans are recognised by it.
OWNER_VARIABLE = "NAPARI_FEDSAM_PROCESS_OWNER"
_TABLE_NAME = "processes.json"
_GRACE_SECONDS = 3.0
_LOGS_KEPT = 3


@dataclass(frozen=True)
class ProcessRecord:
    """One started process.

    Attributes
    ----------
    pid : int
        Its process id.
    created : float
        When it was created (seconds since the epoch): a process that got the same id later has
        another time and is never touched.
    log : str
        File that holds its standard output and error.
    """

    pid: int
    created: float
    log: str


def flower_command(name: str) -> str:
    """Return the path of one of Flower's commands beside the running Python.

    Raises
    ------
    FederationError
        When it is not installed there.
    """
    suffix = ".exe" if sys.platform == "win32" else ""
    for folder in _script_folders():
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return str(path)
    raise FederationError(
        f"Flower's command '{name}' is not beside the Python that runs napari-fedsam "
        f"({sys.executable}); reinstall napari-fedsam there."
    )


def child_environment(flower_home: Path, *, threads: int | None = None) -> dict[str, str]:
    """Return the environment of Flower's processes: private, quiet, bounded.

    Parameters
    ----------
    flower_home : Path
        Private folder for what Flower stores (bundles, configuration).
    threads : int, optional
        Threads for numerical libraries; half of the processors (at least one) by default.
    """
    scripts = str(Path(flower_command("flower-superexec")).parent)
    environment = {
        **os.environ,
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A tenth of a second would cost an idle site 3 % of a core, this costs 1 %.
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
        "PYTHONUNBUFFERED": "1",
        # Flower logs symbols that the code pages of Windows do not have.
        "PYTHONUTF8": "1",
    }
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if threads is not None:
            environment[variable] = str(threads)
        environment.setdefault(variable, str(max(1, (os.cpu_count() or 2) // 2)))
    for variable in ("NO_PROXY", "no_proxy"):
        kept = [entry for entry in environment.get(variable, "").split(",") if entry]
        environment[variable] = ",".join([*kept, "127.0.0.1", "localhost"])
    return environment


class ProcessTable:
    """The processes started for one folder, remembered on disk.

    Any program can find and end them later by making a table of the same folder.

    Parameters
    ----------
    folder : Path
        Private folder for the table and the log files (in `logs`).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / _TABLE_NAME
        self._owned: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        low_priority: bool = False,
    ) -> ProcessRecord:
        """Start a process with its own log file and remember it under `name`."""
        logs = make_private_folder(self.folder / "logs")
        log = rotated_log(logs, name)
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, OWNER_VARIABLE: self._mark()},
                cwd=self.folder,
                **_detached(),
            )
        self._owned.append(process)
        # A process that has ended already stays a zombie until it is polled, so this cannot fail.
        handle = psutil.Process(process.pid)
        if low_priority:
            give_way(handle)
        record = ProcessRecord(process.pid, handle.create_time(), str(log))
        self._write({**self.records(), name: record})
        return record

    def records(self) -> dict[str, ProcessRecord]:
        """Return the remembered processes by name, whether they still run or not."""
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return {name: ProcessRecord(**entry) for name, entry in entries.items()}

    def running(self, name: str) -> bool:
        """Tell whether the process remembered under `name` still runs."""
        record = self.records().get(name)
        return record is not None and _process_of(record) is not None

    def log_text(self, name: str) -> str:
        """Return what the process remembered under `name` has written, "" when nothing."""
        record = self.records().get(name)
        if record is None:
            return ""
        with contextlib.suppress(OSError):
            return Path(record.log).read_text(encoding="utf-8", errors="replace")
        return ""

    def end_all(self, *, gently: Sequence[str] = ()) -> int:
        """End every process of this folder with all its descendants, and forget them.

        Parameters
        ----------
        gently : sequence of str
            Names of processes that get up to three seconds to say goodbye first.

        Returns
        -------
        int
            How many processes were ended.
        """
        first = [self._process(name) for name in gently]
        polite = [process for process in first if process is not None]
        victims = self._everything()
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate() if process in polite else process.kill()
        psutil.wait_procs(polite, timeout=_GRACE_SECONDS)
        # A second look finds what was being started during the first.
        remaining = self._everything()
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs({*victims, *remaining}, timeout=_GRACE_SECONDS)
        self._forget()
        return len({*victims, *remaining})

    def _everything(self) -> set[psutil.Process]:
        processes = set()
        for record in self.records().values():
            process = _process_of(record)
            if process is not None:
                processes.add(process)
                with contextlib.suppress(psutil.NoSuchProcess):
                    processes.update(process.children(recursive=True))
        processes.update(_marked(self._mark()))
        return {process for process in processes if _is_alive(process)}

    def _process(self, name: str) -> psutil.Process | None:
        record = self.records().get(name)
        return None if record is None else _process_of(record)

    def _mark(self) -> str:
        return str(self.folder.resolve())

    def _forget(self) -> None:
        for process in self._owned:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_GRACE_SECONDS)
        self._owned.clear()
        self._path.unlink(missing_ok=True)

    def _write(self, records: Mapping[str, ProcessRecord]) -> None:
        content = {name: asdict(record) for name, record in records.items()}
        write_text_atomically(self._path, json.dumps(content))


def rotated_log(folder: Path, name: str) -> Path:
    """Return the path of a new log in a folder, and keep the last ones beside it."""
    for number in range(_LOGS_KEPT - 1, 0, -1):
        older = folder / f"{name}.{number}.log"
        newer = folder / (f"{name}.{number - 1}.log" if number > 1 else f"{name}.log")
        if newer.exists():
            newer.replace(older)
    return folder / f"{name}.log"


def _script_folders() -> Iterator[Path]:
    yield Path(sysconfig.get_path("scripts"))
    yield Path(sys.executable).parent
    yield Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))


def _detached() -> dict[str, Any]:
    # Ctrl-C in a terminal must reach our program alone, which then ends its children in order.
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def _process_of(record: ProcessRecord) -> psutil.Process | None:
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.created) < 1.0
    except psutil.Error:
        return None
    return process if same and _is_alive(process) else None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _marked(mark: str) -> Iterator[psutil.Process]:
    own = os.getpid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != own and process.environ().get(OWNER_VARIABLE) == mark:
                yield process
