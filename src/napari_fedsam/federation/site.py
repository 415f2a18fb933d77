"""One site of a federation: join, leave, and tell the truth about where it stands."""

import atexit
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from napari_fedsam.federation.audit import AuditLine, bytes_sent, read_audit
from napari_fedsam.federation.connection_test import Check, ConnectionTest
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.keys import ensure_key_pair
from napari_fedsam.federation.node_processes import NODE, SUPEREXEC, start_node
from napari_fedsam.federation.node_report import connection_report, reason_of_end
from napari_fedsam.federation.processes import ProcessTable
from napari_fedsam.federation.profiles import Profiles, install_invitation
from napari_fedsam.federation.room import lack_of_room
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.federation.site_settings import SiteSettings
from napari_fedsam.federation.site_state import Phase, SiteState
from napari_fedsam.federation.site_status import SiteStatus
from napari_fedsam.training.profile_folder import active_key
from napari_fedsam.training.versions import VersionStore

_FOLLOW_SECONDS = 0.5


class Site:
    """A site in one of its federations.

    Every program that makes one of the same profile sees the same site; one program at a time can
    join, with one federation. Methods may be called from any thread; `state` emits in the thread
    that called.

    Parameters
    ----------
    folder : Path
        The site's folder, which also holds its cases and model versions.
    profile : str, optional
        Key of the federation's profile; by default of the one in use now.

    Attributes
    ----------
    files : SiteFiles
        Where everything lies.
    state : SiteState
        Evented state for a panel; brought up to date by `refresh`.
    """

    def __init__(self, folder: Path, profile: str | None = None) -> None:
        folder = Path(folder)
        self.files = SiteFiles(folder, active_key(folder) if profile is None else profile)
        self.files.create()
        self.state = SiteState()
        self._table = ProcessTable(self.files.folder)
        self._lock = FileLock(self.files.lock, timeout=0, thread_local=False)
        self._changing = threading.RLock()
        self._audit_size = -1
        self.refresh()

    @property
    def invitation(self) -> Invitation | None:
        """The invitation that was imported, or None."""
        path = self.files.invitation
        return Invitation.read(path) if path.exists() else None

    @property
    def public_key(self) -> str:
        """The site's public key (OpenSSH text) to be approved by the coordinator."""
        return ensure_key_pair(self.files.folder).read_text(encoding="ascii").strip()

    @property
    def joined(self) -> bool:
        """Whether the coordinator has accepted this site's node, which still runs."""
        return self._table.running(NODE) and self.files.node.exists()

    @property
    def holds_node(self) -> bool:
        """Whether the node was started here and ends with this program."""
        return self._lock.is_locked

    @property
    def settings(self) -> SiteSettings:
        """What the user has set about taking part."""
        return SiteSettings.read(self.files.settings)

    def change_settings(self, **changes: Any) -> SiteSettings:
        """Change settings; a pause takes effect with the next round.

        Raises
        ------
        FederationError
            When a value cannot be used.
        """
        try:
            changed = SiteSettings.model_validate({**self.settings.model_dump(), **changes})
        except ValidationError as error:
            first = error.errors()[0]
            raise FederationError(
                f"The setting {first['loc'][0]} cannot be {first['input']!r}: {first['msg']}."
            ) from error
        changed.write(self.files.settings)
        return changed

    def test_connection(self) -> Iterator[Check]:
        """Test what joining needs, step by step; takes seconds and talks to the network."""
        return ConnectionTest(self.files, joined=self._table.running(NODE)).steps()

    def audit(self) -> list[AuditLine]:
        """Return a line for every message that left this site, oldest first."""
        return read_audit(self.files.audit)

    def import_invitation(self, invitation: Invitation) -> None:
        """Make this the profile's invitation; compare its fingerprint before.

        Raises
        ------
        FederationError
            When the site takes part in the federation now, the invitation is to another one, or it
            was changed.
        """
        install_invitation(self.files, invitation)
        self.refresh()

    def join(self, *, detached: bool = False, threads: int | None = None) -> None:
        """Start the background processes and return at once; `refresh` follows what they do.

        Parameters
        ----------
        detached : bool
            Whether they outlive this program; otherwise they end with it, however it ends.
        threads : int, optional
            Threads for training; by default the site's setting.

        Raises
        ------
        FederationError
            When there is no invitation, the federation runs another version of the app, or another
            program or federation has joined with this folder.
        """
        with self._changing:
            if self._lock.is_locked and self._table.running(NODE):
                return
            self._join(detached=detached, threads=threads)
            self.refresh()

    def _join(self, *, detached: bool, threads: int | None) -> None:
        invitation = Invitation.read(self.files.invitation)
        invitation.check_runs_here()
        self._check_alone()
        self._take_lock()
        try:
            # Left over from a program that was killed.
            self._table.end_all()
            self.files.end_node()
            ensure_key_pair(self.files.folder)
            if detached:
                # The node takes the lock over and holds it as long as it lives.
                self._let_go()
            if threads is None:
                threads = self.settings.threads
            start_node(self._table, self.files, invitation, detached=detached, threads=threads)
        except BaseException:
            self._table.end_all()
            self._let_go()
            raise
        if not detached:
            atexit.register(self._leave_own)

    def leave(self) -> None:
        """End every process that a join started, from any program; takes up to a few seconds."""
        with self._changing:
            self._table.end_all(gently=[NODE])
            self.files.end_node()
            self._let_go()
            self.refresh()

    def follow(
        self, tell: Callable[[str], None], *, cancelled: Callable[[], bool] | None = None
    ) -> None:
        """Tell each change in words until the site has left or its connection has ended.

        Parameters
        ----------
        tell : callable
            Receives a line.
        cancelled : callable, optional
            Asked twice a second; returns early once it is True.
        """
        told = ""
        while not (cancelled and cancelled()):
            # Asked first: what ends after this is told the next time round.
            ended = not self._table.running(NODE)
            self.refresh()
            state = self.state
            explained = (
                state.words if state.phase is Phase.ERROR else f"{state.words}. {state.message}"
            )
            if explained != told:
                tell(explained.rstrip(". "))
                told = explained
            if ended:
                return
            time.sleep(_FOLLOW_SECONDS)

    def refresh(self) -> None:
        """Bring `state` up to date from the files and processes; call it from a timer.

        Costs a few file reads; never talks to the network, never waits. While `join` or `leave`
        is at work in another thread it does nothing.
        """
        if not self._changing.acquire(blocking=False):
            return
        try:
            self._refresh()
        finally:
            self._changing.release()

    def _refresh(self) -> None:
        status = SiteStatus.read(self.files.status)
        phase, message = self._phase(status)
        problem = self._refresh_federation()
        self._refresh_bytes()
        self.state.round = status.round
        self.state.rounds_joined = status.rounds_joined
        self.state.dice_history = status.dice_history
        self.state.active_version = self._active_version()
        self.state.progress = status.progress if phase is status.phase else 0.0
        if phase is Phase.OFFLINE:
            message = problem
        # The message first: who listens to the phase reads the message that belongs to it.
        self.state.message = message
        self.state.phase = phase

    def _phase(self, status: SiteStatus) -> tuple[Phase, str]:
        if not self._table.records():
            # Another program may have ended what this one had started.
            self._let_go()
            return Phase.OFFLINE, ""
        log = self._table.log_text(NODE)
        if not self._table.running(NODE):
            log_file = self._table.records()[NODE].log
            was_connected = self.files.node.exists()
            return Phase.ERROR, reason_of_end(log, was_connected=was_connected, log_file=log_file)
        if not self._table.running(SUPEREXEC):
            return Phase.ERROR, (
                "The process that runs the training ended; leave and join again, and read its log "
                f"in {self.files.folder / 'logs'} if it happens again."
            )
        report = connection_report(self.files.node, log, self.state.address, status.phase)
        if report is not None:
            return Phase.CONNECTING, report
        if lack := lack_of_room(self.files.site):
            return Phase.ERROR, lack
        return status.phase, status.message

    def _refresh_federation(self) -> str:
        """Return what is wrong with the invitation, "" for nothing."""
        problem, invitation = "", None
        try:
            invitation = self.invitation
        except FederationError as error:
            # As after an update of this program; another one can be imported.
            problem = str(error)
        self.state.federation = invitation.federation if invitation else ""
        self.state.address = invitation.address if invitation else ""
        return problem

    def _refresh_bytes(self) -> None:
        size = self.files.audit.stat().st_size if self.files.audit.exists() else 0
        if size != self._audit_size:
            self._audit_size = size
            self.state.bytes_sent = bytes_sent(self.files.audit)

    def _active_version(self) -> int:
        if not self.files.versions.exists():
            return 0
        return VersionStore(self.files.versions).active_number or 0

    def _check_alone(self) -> None:
        other = Profiles(self.files.site).taking_part()
        if other is not None and other.key != self.files.profile:
            raise FederationError(
                f"'{other.name}' takes part on this machine now, and one federation at a time can; "
                "leave it first."
            )

    def _leave_own(self) -> None:
        # Without the lock, what runs in this folder was started by another program.
        if self.holds_node:
            self.leave()

    def _let_go(self) -> None:
        self._lock.release(force=True)
        atexit.unregister(self._leave_own)

    def _take_lock(self) -> None:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise FederationError(
                f"Another program has joined with the site folder {self.files.site}; leave there "
                "first."
            ) from error
