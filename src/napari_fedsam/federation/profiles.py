"""The federations that a machine takes part in: a profile each, one of them in use."""

import contextlib
import datetime
import hashlib
import json
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.node_processes import NODE
from napari_fedsam.federation.processes import ProcessTable
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.files import atomic_path, make_private_folder
from napari_fedsam.training.profile_folder import FIRST, PROFILES, active_key, set_active

_REMOVED = ".removed-"


@dataclass(frozen=True)
class Profile:
    """One federation of this machine.

    Attributes
    ----------
    name : str
        The federation's name; "" for a machine that takes part in none.
    files : SiteFiles
        Where everything of it lies.
    """

    name: str
    files: SiteFiles

    @property
    def key(self) -> str:
        """The profile's key, see `training.profile_folder`."""
        return self.files.profile

    @property
    def takes_part(self) -> bool:
        """Whether its node runs, started by any program."""
        return ProcessTable(self.files.folder).running(NODE)


class Profiles:
    """The profiles below a site's folder.

    What belongs to one federation lies in its profile's folder, so that nothing done with one
    touches another: keys, invitation, settings, audit log, model versions with their local
    parameters, sessions and worklists. Cases belong to the site; a recipe's structures choose
    which of them train.

    Parameters
    ----------
    site : Path
        The site's folder.
    """

    def __init__(self, site: Path) -> None:
        self.site = Path(site)
        self._folder = self.site / PROFILES
        self._names: dict[Path, tuple[int, str]] = {}

    def all(self) -> list[Profile]:
        """Return the federations, the first one first, the others by name.

        Without any invitation that is one profile without a name.
        """
        first, *others = [self._profile(key) for key in self._keys()]
        others.sort(key=lambda profile: profile.name.casefold())
        return [first, *others] if first.name or not others else others

    @property
    def active(self) -> Profile:
        """The profile in use.

        Raises
        ------
        TrainingError
            When the choice cannot be read.
        """
        key, known = active_key(self.site), self.all()
        return next((profile for profile in known if profile.key == key), known[0])

    def named(self, name: str) -> Profile:
        """Return a federation's profile by its name, in upper or lower case.

        Raises
        ------
        FederationError
            Naming those that there are.
        """
        known = self.all()
        for profile in known:
            if _same(profile.name, name):
                return profile
        names = ", ".join(f"'{profile.name}'" for profile in known if profile.name)
        raise FederationError(
            f"This machine takes part in no federation '{name}'; there is "
            f"{names or 'none yet: import an invitation'}."
        )

    def use(self, name: str) -> Profile:
        """Make a federation the one in use; a node that runs goes on with its own.

        Raises
        ------
        FederationError
            When there is none of this name.
        """
        profile = self.named(name)
        set_active(self.site, profile.key)
        return profile

    def taking_part(self) -> Profile | None:
        """Return the federation whose node runs on this machine, if one does."""
        return next((profile for profile in self.all() if profile.takes_part), None)

    def import_invitation(self, invitation: Invitation, *, use: bool = True) -> Profile:
        """Renew the invitation of a federation that is known, or add the federation.

        The first federation becomes the first profile.

        Parameters
        ----------
        invitation : Invitation
        use : bool
            Make it the one in use, unless another one takes part at the moment.

        Raises
        ------
        FederationError
            When this federation takes part now, or the invitation was changed.
        """
        with self._changing():
            files = self._files_for(invitation.federation)
            install_invitation(files, invitation)
            is_other = files.profile != active_key(self.site)
            if use and is_other and self.taking_part() is None:
                set_active(self.site, files.profile)
        return self._profile(files.profile)

    def known(self, invitation: Invitation) -> Invitation | None:
        """Return the present invitation to the same federation; None without a sound one."""
        with contextlib.suppress(FederationError):
            return Invitation.read(self._files_for(invitation.federation).invitation)
        return None

    def remove(self, name: str) -> Path | None:
        """Remove a federation from this machine; cases and the record of what was sent stay.

        Parameters
        ----------
        name : str
            The federation's name.

        Returns
        -------
        Path or None
            Where its audit log is kept now; None when nothing was ever sent.

        Raises
        ------
        FederationError
            When it takes part now, or there is none of this name.
        """
        with self._changing():
            profile = self.named(name)
            with self._not_joining(profile):
                kept = self._keep_audit(profile.files)
                was_active = self.active.key == profile.key
                grave = Path(tempfile.mkdtemp(prefix=_REMOVED, dir=self._folder))
                for part in _own_parts(profile.files):
                    if part.exists():
                        part.rename(grave / part.name)
                if was_active:
                    set_active(self.site, self.all()[0].key)
            shutil.rmtree(grave, ignore_errors=True)
        return kept

    def _keys(self) -> list[str]:
        # What is being removed has a name with a dot.
        paths = self._folder.glob("[!.]*/federation/invitation.json")
        return [FIRST, *(path.parent.parent.name for path in paths if path.is_file())]

    def _profile(self, key: str) -> Profile:
        files = SiteFiles(self.site, key)
        return Profile(self._name(files), files)

    def _name(self, files: SiteFiles) -> str:
        """Return a federation's name; invitations are read again only when they have changed."""
        path = files.invitation
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return ""
        if path not in self._names or self._names[path][0] != changed:
            # The other federations go on; whoever uses a damaged one says what is wrong.
            self._names[path] = changed, _federation_of(path) or "damaged"
        return self._names[path][1]

    def _files_for(self, federation: str) -> SiteFiles:
        for profile in self.all():
            if not profile.name or _same(profile.name, federation):
                return profile.files
        return SiteFiles(self.site, FIRST if not self._profile(FIRST).name else _key_of(federation))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one program at a time add or remove profiles; finish what was broken off."""
        make_private_folder(self.site)
        make_private_folder(self._folder)
        with FileLock(self._folder / ".lock"):
            for left in self._folder.glob(f"{_REMOVED}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    @contextlib.contextmanager
    def _not_joining(self, profile: Profile) -> Iterator[None]:
        """Hold the site, unless another federation does, so that this one cannot join."""
        lock = FileLock(profile.files.lock, timeout=0, thread_local=False)
        with contextlib.suppress(Timeout):
            lock.acquire()
        try:
            if profile.takes_part:
                raise FederationError(
                    f"'{profile.name}' takes part now; leave it before you remove it."
                )
            yield
        finally:
            lock.release(force=True)

    def _keep_audit(self, files: SiteFiles) -> Path | None:
        if not files.audit.exists():
            return None
        now = datetime.datetime.now(datetime.UTC)
        folder = make_private_folder(self.site / "removed")
        kept = folder / f"{files.profile or 'first'}-{now:%Y%m%d-%H%M%S}.audit.jsonl"
        with atomic_path(kept) as temporary:
            shutil.copyfile(files.audit, temporary)
        return kept


def install_invitation(files: SiteFiles, invitation: Invitation) -> None:
    """Make an invitation a profile's.

    Raises
    ------
    FederationError
        When it was changed, is to another federation, or the profile's node runs.
    """
    invitation.check_signature()
    if ProcessTable(files.folder).records():
        raise FederationError(
            f"'{invitation.federation}' takes part now; leave it before importing its invitation."
        )
    if files.invitation.exists():
        present = _federation_of(files.invitation)
        if present and not _same(present, invitation.federation):
            raise FederationError(
                f"'{invitation.federation}' is another federation than '{present}', to which this "
                "profile belongs; it needs one of its own."
            )
    invitation.install(files)


def _federation_of(path: Path) -> str:
    """Return the name in an invitation, whatever else may be wrong with it; "" without any."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["federation"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _own_parts(files: SiteFiles) -> list[Path]:
    """Return what goes with a federation; in the first profile it lies among what stays."""
    if files.profile != FIRST:
        return [files.profile_folder]
    return [files.folder, files.versions, files.sessions, files.worklists]


def _same(name: str, other: str) -> bool:
    return name.strip().casefold() == other.strip().casefold()


def _key_of(federation: str) -> str:
    """Return the name of the folder for a federation, readable and different for each name."""
    name = federation.strip().casefold()
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-")
    return f"{words or 'federation'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
