"""The coordinator of a federation: its folder, the sites' keys, its processes, and rounds."""

import atexit
import datetime
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from napari_fedsam.federation.bundle import bundle_hash
from napari_fedsam.federation.certificates import CertificateFiles, OwnCertificate
from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.control import Control, connect
from napari_fedsam.federation.coordinator_processes import CoordinatorProcesses
from napari_fedsam.federation.coordinator_settings import CoordinatorFiles, CoordinatorSettings
from napari_fedsam.federation.coordinator_setup import Reach, set_up
from napari_fedsam.federation.coordinator_status import CoordinatorStatus
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.keys import (
    ensure_signing_key,
    public_key_text,
    short_fingerprint,
)
from napari_fedsam.federation.processes import ProcessTable
from napari_fedsam.federation.proxy import write_proxy_configuration
from napari_fedsam.federation.round_driver import ASK_AGAIN_AFTER, RoundDriver, asks_again
from napari_fedsam.federation.round_result import RoundResult
from napari_fedsam.federation.sites import ApprovedSite, SiteList, check_site_name
from napari_fedsam.personalization.recipe import Recipe

_POLL_SECONDS = 0.5
_LOCAL = Reach()

_log = logging.getLogger(__name__)


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
        self.files = CoordinatorFiles(Path(folder))
        self.sites = SiteList(self.files.sites)
        self._table = ProcessTable(self.files.folder)

    @property
    def folder(self) -> Path:
        """The coordinator's folder."""
        return self.files.folder

    def init(
        self, recipe: Recipe, reach: Reach = _LOCAL, *, name: str = "", contact: str = ""
    ) -> CoordinatorSettings:
        """Set up a new federation: recipe, certificates, keys, empty list of sites, pinned bundle.

        Parameters
        ----------
        recipe : Recipe
            What the federation trains.
        reach : Reach
            How sites reach the coordinator; on this machine alone by default.
        name : str
            Name of the federation; the recipe's name by default.
        contact : str
            Whom sites ask, in words.

        Raises
        ------
        FederationError
            When the folder holds a coordinator already, or something cannot work.
        """
        settings = set_up(self.files, recipe, reach, name=name, contact=contact)
        if settings.proxy != "none":
            write_proxy_configuration(self.folder, settings, self._certificates)
        return settings

    @property
    def settings(self) -> CoordinatorSettings:
        """What `init` fixed."""
        return CoordinatorSettings.read(self.files)

    @property
    def recipe(self) -> Recipe:
        """What the federation trains."""
        return Recipe.read(self.files.recipe)

    @property
    def running(self) -> bool:
        """Whether its processes are up."""
        return self.files.settings.exists() and self._processes.running

    def invite(self, site: str) -> Invitation:
        """Make the invitation of a site, signed, and keep it in `invitations/SITE.json`.

        Raises
        ------
        FederationError
            When the name cannot be used.
        """
        check_site_name(site)
        settings = self.settings
        key = ensure_signing_key(self.files.signing_key)
        invitation = Invitation(
            federation=settings.federation,
            site=site,
            address=settings.address,
            contact=settings.contact,
            issued=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
            authority=self._public_authority.read_text(encoding="ascii"),
            bundle_sha256=settings.bundle_sha256,
            recipe=self.recipe,
            signer=public_key_text(key),
        ).signed(key)
        invitation.write(self.invitation_path(site))
        return invitation

    def invitation_path(self, site: str) -> Path:
        """Return the file of a site's invitation."""
        return self.files.invitations / f"{site}.json"

    def approve(self, site: str, public_key: str) -> ApprovedSite:
        """Let a site in by its public key (OpenSSH text); takes effect at once while running."""
        processes = self._processes
        approved = self.sites.add(site, public_key)
        processes.agree_on_sites()
        return approved

    def revoke(self, site: str) -> None:
        """Shut a site out for good; its key can never be approved again in this federation.

        Takes effect at once while SuperLink runs, otherwise as soon as it has started.
        """
        processes = self._processes
        self.sites.remove(site)
        processes.agree_on_sites()

    def start(self, *, detached: bool = False) -> None:
        """Start SuperLink, the process that runs our ServerApp, and the proxy, if there is one.

        Parameters
        ----------
        detached : bool
            Whether they outlive this program; otherwise they end with it, however it ends.

        Raises
        ------
        FederationError
            When it runs already, or does not come up; the reason is in the message.
        """
        self._check_bundle()
        self._processes.start(detached=detached)
        if not detached:
            atexit.register(self._stop_own)

    def run(
        self,
        rounds: int | None = None,
        *,
        tell: Callable[[str], None] | None = None,
        wait_seconds: float | None = None,
        cancelled: Callable[[], bool] | None = None,
        ask_again_after: datetime.timedelta = ASK_AGAIN_AFTER,
    ) -> list[RoundResult]:
        """Wait for the minimum of sites, run rounds, and return what each was.

        Ends a pause. What has ended unexpectedly is started again, and the rounds go on from the
        newest checkpoint. A round with too few updates is not counted and run again.

        Parameters
        ----------
        rounds : int, optional
            How many rounds that change the model; by default those that are left of the recipe's.
        tell : callable, optional
            Receives a line whenever there is something new: what is awaited, each round's result.
        wait_seconds : float, optional
            Give up when no round can start within this time; wait for ever by default.
        cancelled : callable, optional
            Asked twice a second; the run is stopped once it returns True.
        ask_again_after : timedelta, optional
            How long to wait before a round with too few updates is run again.

        Raises
        ------
        FederationError
            When the coordinator is not running, another program runs rounds, the sites do not
            come, or the run fails.
        """
        settings, recipe = self.settings, self.recipe
        store = CheckpointStore(self.folder)
        with self._one_driver():
            # Not before: a run that is refused must not end a pause.
            self.files.paused.unlink(missing_ok=True)
            before = store.results()
            driver = RoundDriver(
                self.files,
                recipe,
                self._processes,
                self._connected,
                self.status,
                tell=tell or (lambda _line: None),
                cancelled=cancelled or (lambda: False),
                ask_again_after=ask_again_after,
            )
            left = max(0, recipe.rounds - store.aggregated_rounds(recipe.hash))
            wanted = left if rounds is None else rounds
            bundle = self.files.bundle.read_bytes()
            driver.drive(bundle, settings.bundle_sha256, wanted, wait_seconds)
            return [result for result in store.results() if result not in before]

    def pause(self) -> None:
        """Let the present round end and start no other until `run`, from any program."""
        _ = self.settings
        self.files.paused.touch()

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
        if self.files.settings.exists():
            self._processes.stop()
        atexit.unregister(self._stop_own)

    def wait(
        self,
        *,
        tell: Callable[[str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Block until the coordinator is stopped; what ends unexpectedly is started again.

        For a command that runs in the foreground.
        """
        while self._table.records() and not (cancelled and cancelled()):
            for name in self._processes.revive():
                if tell is not None:
                    tell(f"{name} had ended unexpectedly and was started again")
            time.sleep(_POLL_SECONDS)

    def _stop_own(self) -> None:
        # Another program may have stopped them since, and started its own.
        if self.files.settings.exists() and self._processes.end_with_this_program:
            self.stop()

    @property
    def _certificates(self) -> CertificateFiles:
        return CertificateFiles.inside(self.folder)

    @property
    def _public_authority(self) -> Path:
        if self.settings.own_certificate:
            return OwnCertificate.inside(self.folder).authority
        return self._certificates.authority

    @property
    def _processes(self) -> CoordinatorProcesses:
        return CoordinatorProcesses(
            self._table, self.settings, self._certificates, self._agree_on_sites
        )

    def _connected(self) -> AbstractContextManager[Control]:
        return connect(self.settings.local_address, self._certificates.authority)

    def _check_bundle(self) -> None:
        settings = self.settings
        if bundle_hash() != settings.bundle_sha256:
            raise FederationError(
                "The sites pin the app of napari-fedsam "
                f"{settings.version}, but the installed one is another; install that version, or "
                "make a new coordinator and invite the sites to it."
            )

    @contextmanager
    def _one_driver(self) -> Iterator[None]:
        lock = FileLock(self.files.run_lock, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise FederationError(
                f"Another program runs rounds of the coordinator in {self.folder}; wait for it, or "
                "end it with 'napari-fedsam coordinator pause'."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _status(self, control: Control | None) -> CoordinatorStatus:
        settings = self.settings
        online = {node.public_key: node.online for node in control.nodes()} if control else {}
        ended = self._processes.ended
        store = CheckpointStore(self.folder)
        best = store.best()
        return CoordinatorStatus(
            federation=settings.federation,
            running=control is not None and self.running,
            address=settings.address,
            sites=self._sites_online(online),
            minimum_sites=self.recipe.minimum_sites,
            rounds=store.aggregated_rounds(self.recipe.hash),
            best_round=best.round if best else 0,
            paused=self.files.paused.exists(),
            problem=f"{', '.join(ended)} ended unexpectedly: start the coordinator again"
            if ended
            else "",
            asks_again=asks_again(self.files),
        )

    def _sites_online(self, online: Mapping[bytes, bool]) -> dict[str, bool]:
        sites = {site.name: online.get(site.pem, False) for site in self.sites.sites()}
        listed = {site.pem for site in (*self.sites.sites(), *self.sites.revoked())}
        unlisted = {
            f"not in {self.files.sites.name}: {short_fingerprint(key)}": connected
            for key, connected in online.items()
            if key not in listed
        }
        return sites | unlisted

    def _agree_on_sites(self) -> None:
        """Bring SuperLink's list of sites to ours: shut out the revoked, register the new."""
        with self._connected() as control:
            known = {node.public_key: node.node_id for node in control.nodes()}
            for site in self.sites.revoked():
                if site.pem in known:
                    control.unregister(known.pop(site.pem))
            for site in self.sites.sites():
                node_id = known.pop(site.pem, None)
                if node_id is None:
                    node_id = self._register(site, control)
                self.sites.set_node_id(site, node_id)
        # A key that is shut out can never come back, so a lost list must not shut anyone out.
        if known:
            keys = ", ".join(short_fingerprint(key) for key in known)
            _log.warning(
                "%s does not list these keys, which stay approved: %s. Restore it from a backup, "
                "or approve these sites again, each with the same key.",
                self.files.sites,
                keys,
            )

    def _register(self, site: ApprovedSite, control: Control) -> int:
        try:
            return control.register(site.pem)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.PRECONDITION_FAILED:
                raise
            raise FederationError(
                f"SuperLink refuses the key of '{site.name}', which was shut out before; revoke "
                "the site with 'napari-fedsam coordinator revoke', and ask it for a new key."
            ) from error
