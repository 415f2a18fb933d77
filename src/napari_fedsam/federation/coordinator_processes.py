"""The processes of a coordinator: SuperLink, the SuperExec of our ServerApp, and the proxy."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator

import psutil
from filelock import FileLock, Timeout

from napari_fedsam.federation.attended import attended_command
from napari_fedsam.federation.certificates import CertificateFiles
from napari_fedsam.federation.control import is_answering
from napari_fedsam.federation.coordinator_settings import COORDINATOR_VARIABLE, CoordinatorSettings
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import write_private_file
from napari_fedsam.federation.processes import ProcessTable, child_environment
from napari_fedsam.federation.proxy import PROXY, start_proxy
from napari_fedsam.federation.waiting import wait_for
from napari_fedsam.files import make_private_folder, write_text_atomically

SUPERLINK = "superlink"
SUPEREXEC = "superexec"

_START_SECONDS = 60.0


class CoordinatorProcesses:
    """What runs for a coordinator; seen and ended from any program.

    SuperLink listens on loopback with TLS, registered keys and a database on disk. The SuperExec
    that runs our ServerApp stands apart from it, so that a run outlives a crash of SuperLink.

    Parameters
    ----------
    table : ProcessTable
        Of the coordinator's folder.
    settings : CoordinatorSettings
    certificates : CertificateFiles
    agree : callable
        Brings SuperLink's list of sites to the coordinator's; called whenever SuperLink was
        started, before the others are.
    """

    def __init__(
        self,
        table: ProcessTable,
        settings: CoordinatorSettings,
        certificates: CertificateFiles,
        agree: Callable[[], None],
    ) -> None:
        self._table = table
        self._settings = settings
        self._certificates = certificates
        self._agree = agree
        self._owner = table.folder / "owner.json"
        self._lock = table.folder / "coordinator.lock"
        self._secret = table.folder / "superexec.secret"

    @property
    def names(self) -> tuple[str, ...]:
        """The processes that belong to this coordinator, in the order of their start."""
        proxy = (PROXY,) if self._settings.proxy == "nginx" else ()
        return (SUPERLINK, SUPEREXEC, *proxy)

    @property
    def running(self) -> bool:
        """Whether all of them are up."""
        return all(self._table.running(name) for name in self.names)

    @property
    def ended(self) -> tuple[str, ...]:
        """The processes that were started and have ended without being asked to."""
        records = self._table.records()
        return tuple(
            name for name in self.names if name in records and not self._table.running(name)
        )

    @property
    def end_with_this_program(self) -> bool:
        """Whether they were started by this program, and not to outlive it."""
        try:
            return bool(json.loads(self._owner.read_text(encoding="utf-8")) == os.getpid())
        except FileNotFoundError:
            return False

    def start(self, *, detached: bool) -> None:
        """Start all and return when they answer.

        Raises
        ------
        FederationError
            When they run already, or one does not come up; nothing is left running then.
        """
        with self._exclusive():
            if self.running:
                raise FederationError(
                    f"The coordinator of '{self._settings.federation}' is running already; stop "
                    "it with 'napari-fedsam coordinator stop'."
                )
            # Left over from a program that was killed.
            self._table.end_all()
            # Only who holds this secret may fetch tasks, and with them the right to act as the
            # ServerApp.
            write_private_file(self._secret, secrets.token_hex(32).encode("ascii"))
            owner = None if detached else os.getpid()
            write_text_atomically(self._owner, json.dumps(owner))
            try:
                for name in self.names:
                    self._start(name, owner)
            except BaseException:
                self._owner.unlink(missing_ok=True)
                self._table.end_all()
                raise

    def revive(self) -> tuple[str, ...]:
        """Start again what has ended without being asked to, and return the names of it.

        Does nothing while another program starts or stops the coordinator.
        """
        with contextlib.suppress(Timeout), FileLock(self._lock, timeout=0):
            ended = self.ended
            # Gone when it was asked to stop.
            if ended and self._owner.exists():
                owner = json.loads(self._owner.read_text(encoding="utf-8"))
                if owner is None or psutil.pid_exists(owner):
                    for name in ended:
                        self._start(name, owner)
                    return ended
        return ()

    def agree_on_sites(self) -> None:
        """Bring SuperLink's list of sites to the coordinator's, if SuperLink runs.

        Waits while another program starts, revives or stops the coordinator.
        """
        with FileLock(self._lock):
            if self._table.running(SUPERLINK):
                self._agree()

    def stop(self) -> None:
        """End all of them with everything below."""
        self._owner.unlink(missing_ok=True)
        with FileLock(self._lock):
            self._table.end_all(gently=[SUPERLINK])

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        lock = FileLock(self._lock, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise FederationError(
                f"Another program is starting the coordinator in {self._table.folder}; try again "
                "when it has finished."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _start(self, name: str, owner: int | None) -> None:
        if name == SUPERLINK:
            self._start_superlink(owner)
        elif name == SUPEREXEC:
            self._start_superexec(owner)
        else:
            start_proxy(self._table, self._settings, self._certificates, end_with=owner)

    def _environment(self) -> dict[str, str]:
        environment = child_environment(make_private_folder(self._table.folder / "flower"))
        environment[COORDINATOR_VARIABLE] = str(self._table.folder.resolve())
        return environment

    def _start_superlink(self, owner: int | None) -> None:
        certificates = self._certificates
        command = [
            "flower-superlink",
            *("--host", "127.0.0.1", "--port", str(self._settings.superlink_port)),
            *("--ssl-certfile", str(certificates.server.resolve())),
            *("--ssl-keyfile", str(certificates.server_key.resolve())),
            *("--ssl-ca-certfile", str(certificates.authority.resolve())),
            "--enable-supernode-auth",
            *("--database", str((self._table.folder / "superlink.db").resolve())),
            *("--isolation", "process"),
            *("--superexec-auth-secret-file", str(self._secret.resolve())),
            "--disable-runtime-dependency-installation",
        ]
        command = attended_command(command, end_with=owner)
        self._table.start(SUPERLINK, command, self._environment())
        if not wait_for(
            lambda: is_answering(self._settings.local_address, certificates.authority),
            seconds=_START_SECONDS,
            while_true=lambda: self._table.running(SUPERLINK),
        ):
            raise FederationError(self._reason())
        self._agree()

    def _start_superexec(self, owner: int | None) -> None:
        command = [
            "flower-superexec",
            *("--runtime-api-address", self._settings.local_address),
            *("--root-certificates", str(self._certificates.authority.resolve())),
            *("--superexec-auth-secret-file", str(self._secret.resolve())),
        ]
        command = attended_command(command, end_with=owner)
        self._table.start(SUPEREXEC, command, self._environment())

    def _reason(self) -> str:
        if "address already in use" in self._table.log_text(SUPERLINK).lower():
            return (
                f"Port {self._settings.superlink_port} is in use by another program; stop that "
                "program, or set up the coordinator with another port."
            )
        log = self._table.folder / "logs" / f"{SUPERLINK}.log"
        return f"SuperLink did not start; its log is {log}."
