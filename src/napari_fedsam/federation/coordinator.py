"""The coordinator of a federation: SuperLink, the sites' keys, and rounds."""

import atexit
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from napari_fedsam.federation.bundle import build_bundle, bundle_hash
from napari_fedsam.federation.certificates import CertificateFiles, create_certificates
from napari_fedsam.federation.checkpoints import CheckpointStore, RoundResult
from napari_fedsam.federation.control import Control, connect
from napari_fedsam.federation.coordinator_status import (
    PROFILE_NAME,
    RECIPE_NAME,
    CoordinatorSettings,
    CoordinatorStatus,
)
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import public_key_pem
from napari_fedsam.federation.processes import ProcessTable
from napari_fedsam.federation.profile import SiteProfile
from napari_fedsam.federation.sites import ApprovedSite, SiteList
from napari_fedsam.federation.superlink import SUPEREXEC, SUPERLINK, start_superlink
from napari_fedsam.files import make_private_folder, write_text_atomically
from napari_fedsam.personalization.recipe import Recipe

_POLL_SECONDS = 0.5


class Coordinator:
    """A coordinator in a folder of its own.

    Every program that makes one of the same folder sees and controls the same coordinator.

    Parameters
    ----------
    folder : Path
        The coordinator's folder; see `init` for a new one.

    Raises
    ------
    FederationError
        From most methods, when the folder was not initialised.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.sites = SiteList(self.folder / "sites.json")
        self._table = ProcessTable(self.folder)

    def init(
        self,
        recipe: Recipe,
        host: str = "127.0.0.1",
        port: int = 9092,
        *,
        name: str | None = None,
        hosts: Sequence[str] = (),
    ) -> SiteProfile:
        """Set up a new federation: recipe, certificates, empty list of sites, pinned bundle.

        Parameters
        ----------
        recipe : Recipe
            What the federation trains.
        host : str
            Host name or IP address that sites connect to.
        port : int
            Port of SuperLink.
        name : str, optional
            Name of the federation; the recipe's name by default.
        hosts : sequence of str
            Further names and addresses for the certificate.

        Returns
        -------
        SiteProfile
            What sites need to join; also written to `site-profile.json` for sending.

        Raises
        ------
        FederationError
            When the folder holds a coordinator already.
        """
        if self._settings_path.exists():
            raise FederationError(
                f"{self.folder} holds a coordinator already; choose another folder."
            )
        make_private_folder(self.folder)
        settings = CoordinatorSettings(federation=name or recipe.name, host=host, port=port)
        recipe.write(self.folder / RECIPE_NAME)
        create_certificates(self.folder, settings.federation, [host, *hosts])
        profile = SiteProfile(
            federation=settings.federation,
            address=settings.address,
            authority=self._certificates.authority.read_text(encoding="ascii"),
            bundle_sha256=bundle_hash(),
            recipe=recipe,
        )
        profile.write(self.folder / PROFILE_NAME)
        # Written last: its presence says that the folder is complete.
        write_text_atomically(self._settings_path, settings.model_dump_json(indent=2))
        return profile

    @property
    def profile(self) -> SiteProfile:
        """What sites need to join."""
        return SiteProfile.read(self.folder / PROFILE_NAME)

    @property
    def settings(self) -> CoordinatorSettings:
        """What `init` fixed."""
        try:
            text = self._settings_path.read_text(encoding="utf-8")
            return CoordinatorSettings.model_validate_json(text)
        except (FileNotFoundError, ValidationError) as error:
            raise FederationError(
                f"{self.folder} holds no coordinator; make one with 'napari-fedsam coordinator "
                "init'."
            ) from error

    @property
    def running(self) -> bool:
        """Whether its processes are up."""
        return self._table.running(SUPERLINK) and self._table.running(SUPEREXEC)

    def approve(self, site: str, public_key: str) -> ApprovedSite:
        """Let a site in by its public key (OpenSSH text); takes effect at once while running."""
        _ = self.settings
        approved = self.sites.add(site, public_key)
        if self.running:
            with self._connected() as control:
                self._register_all(control)
        return approved

    def revoke(self, site: str) -> None:
        """Shut a site out for good; its key can never be approved again in this federation."""
        removed = self.sites.remove(site)
        if self.running:
            key = public_key_pem(removed.public_key)
            with self._connected() as control:
                for node in control.nodes():
                    if node.public_key == key:
                        control.unregister(node.node_id)

    def start(self, *, detached: bool = False) -> None:
        """Start SuperLink and the process that runs our ServerApp; return when they answer.

        Parameters
        ----------
        detached : bool
            Whether they outlive this program; otherwise they end with it.

        Raises
        ------
        FederationError
            When it runs already, or does not come up; the reason is in the message.
        """
        settings = self.settings
        with self._exclusive():
            if self.running:
                raise FederationError(
                    f"The coordinator of '{settings.federation}' is running already; stop it with "
                    "'napari-fedsam coordinator stop'."
                )
            # Left over from a program that was killed.
            self._table.end_all()
            if not detached:
                atexit.register(self.stop)
            start_superlink(self._table, settings, self._certificates)
            with self._connected() as control:
                self._register_all(control)

    def run(
        self,
        rounds: int,
        *,
        tell: Callable[[str], None] | None = None,
        wait_seconds: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[RoundResult]:
        """Wait for the minimum of sites, run rounds, and return what each was.

        Parameters
        ----------
        rounds : int
            How many rounds.
        tell : callable, optional
            Receives a line whenever there is something new: what is awaited, each round's result.
        wait_seconds : float, optional
            Give up when the sites have not come within this time; wait for ever by default.
        cancelled : callable, optional
            Asked twice a second; the run is stopped once it returns True.

        Raises
        ------
        FederationError
            When the coordinator is not running, the sites do not come, or the run fails.
        """
        say = tell or (lambda _line: None)
        stop = cancelled or (lambda: False)
        before = len(self.results())
        with self._connected() as control:
            self._wait_for_sites(control, say, wait_seconds, stop)
            run_id = control.start_run(build_bundle(), self.profile.bundle_sha256, rounds)
            told = before
            while not (state := control.run(run_id)).finished:
                if stop():
                    control.stop_run(run_id)
                told = self._tell_results(told, say)
                time.sleep(_POLL_SECONDS)
        self._tell_results(told, say, finished=True)
        if not state.completed and not stop():
            raise FederationError(
                f"The run ended early ({state.details or 'no reason given'}); read the log "
                f"'{SUPEREXEC}' in {self.folder / 'logs'}."
            )
        return self.results()[before:]

    def results(self) -> list[RoundResult]:
        """Return all rounds of this federation, oldest first."""
        return CheckpointStore(self.folder).results()

    def status(self) -> CoordinatorStatus:
        """Return how the coordinator stands, from any program."""
        if not self.running:
            return self._status(None)
        with self._connected() as control:
            return self._status(control)

    def stop(self) -> None:
        """End all of the coordinator's processes, from any program."""
        self._table.end_all(gently=[SUPERLINK])
        atexit.unregister(self.stop)

    def wait(self, *, cancelled: Callable[[], bool] | None = None) -> None:
        """Block until the coordinator has stopped, for a command that runs in the foreground."""
        while self.running and not (cancelled and cancelled()):
            time.sleep(_POLL_SECONDS)

    @property
    def _settings_path(self) -> Path:
        return self.folder / "coordinator.json"

    @property
    def _certificates(self) -> CertificateFiles:
        return CertificateFiles.inside(self.folder)

    def _connected(self) -> AbstractContextManager[Control]:
        return connect(self.settings.local_address, self._certificates.authority)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        lock = FileLock(self.folder / "coordinator.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise FederationError(
                f"Another program is starting the coordinator in {self.folder}; try again when it "
                "has finished."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _status(self, control: Control | None) -> CoordinatorStatus:
        settings = self.settings
        online = {node.public_key for node in control.nodes() if node.online} if control else set()
        return CoordinatorStatus(
            federation=settings.federation,
            running=control is not None and self.running,
            address=settings.address,
            sites={
                site.name: public_key_pem(site.public_key) in online for site in self.sites.sites()
            },
            minimum_sites=Recipe.read(self.folder / RECIPE_NAME).minimum_sites,
            rounds=len(self.results()),
        )

    def _register_all(self, control: Control) -> None:
        known = {node.public_key for node in control.nodes()}
        for site in self.sites.sites():
            key = public_key_pem(site.public_key)
            if key not in known:
                control.register(key)

    def _wait_for_sites(
        self,
        control: Control,
        say: Callable[[str], None],
        seconds: float | None,
        stop: Callable[[], bool],
    ) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        told = ""
        while (line := self._status(control).waits_for) and not stop():
            if line != told:
                say(line)
                told = line
            if deadline is not None and time.monotonic() > deadline:
                raise FederationError(f"No round was run: {line}.")
            time.sleep(_POLL_SECONDS)

    def _tell_results(
        self, told: int, say: Callable[[str], None], *, finished: bool = False
    ) -> int:
        for result in self.results()[told:]:
            if not (result.complete or finished):
                break
            say(result.summary)
            told += 1
        return told
