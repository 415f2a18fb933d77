"""Where the parts of a federation lie inside a site's folder."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from napari_fedsam.federation.keys import PRIVATE_KEY_NAME, PUBLIC_KEY_NAME
from napari_fedsam.files import make_private_folder
from napari_fedsam.training.profile_folder import FIRST, profile_folder

SITE_FOLDER_KEY = "site-folder"
PROFILE_KEY = "profile"


@dataclass(frozen=True)
class SiteFiles:
    """The files of one site in one federation, all below its folder.

    Attributes
    ----------
    site : Path
        The site's folder, with the cases, which all its federations share.
    profile : str
        Key of the profile, see `training.profile_folder`.
    """

    site: Path
    profile: str = FIRST

    @property
    def profile_folder(self) -> Path:
        """Return the folder of everything that belongs to this federation alone."""
        return profile_folder(self.site, self.profile)

    @property
    def folder(self) -> Path:
        """Return the folder of keys, settings and records of the federation."""
        return self.profile_folder / "federation"

    @property
    def cases(self) -> Path:
        """Return the folder of the local training set."""
        return self.site / "cases"

    @property
    def versions(self) -> Path:
        """Return the folder of the model versions."""
        return self.profile_folder / "versions"

    @property
    def sessions(self) -> Path:
        """Return the folder of autosaved sessions."""
        return self.profile_folder / "sessions"

    @property
    def worklists(self) -> Path:
        """Return the folder of worklists."""
        return self.profile_folder / "worklists"

    @property
    def feature_cache(self) -> Path:
        """Encoder features of the cases, to be computed anew when missing."""
        return self.site / "cache"

    @property
    def invitation(self) -> Path:
        """Return the file of the invitation that was imported."""
        return self.folder / "invitation.json"

    @property
    def recipe(self) -> Path:
        """Return the file of the agreed recipe."""
        return self.folder / "recipe.json"

    @property
    def authority(self) -> Path:
        """Return the coordinator's CA certificate (PEM)."""
        return self.folder / "ca.pem"

    @property
    def private_key(self) -> Path:
        """Return the site's private key."""
        return self.folder / PRIVATE_KEY_NAME

    @property
    def public_key(self) -> Path:
        """Return the site's public key."""
        return self.folder / PUBLIC_KEY_NAME

    @property
    def status(self) -> Path:
        """Return the status file that the ClientApp writes."""
        return self.folder / "status.json"

    @property
    def node(self) -> Path:
        """Return the file that the connected node writes; its time is the last contact."""
        return self.folder / "node.json"

    @property
    def last_node(self) -> Path:
        """Return the same file of the node before, after which one may have to wait."""
        return self.folder / "last-node.json"

    def end_node(self) -> None:
        """Note that no node is connected, and when the last one was."""
        with contextlib.suppress(FileNotFoundError):
            self.node.replace(self.last_node)

    @property
    def audit(self) -> Path:
        """Return the log of every message that left this site."""
        return self.folder / "audit.jsonl"

    @property
    def sent(self) -> Path:
        """Return the folder of the last messages that left this site."""
        return self.folder / "sent"

    @property
    def settings(self) -> Path:
        """Return what the user has set about taking part."""
        return self.folder / "settings.json"

    @property
    def pending(self) -> Path:
        """Return the local parameters of a round that is not judged yet."""
        return self.folder / "pending.safetensors"

    @property
    def left_over(self) -> Path:
        """Return what rounding of the last update has lost, to be sent with the next."""
        return self.folder / "left-over.safetensors"

    @property
    def privacy_ledger(self) -> Path:
        """Return the count of updates with this site's own noise."""
        return self.folder / "privacy-ledger.json"

    @property
    def unfinished_training(self) -> Path:
        """Return the state of a training that was interrupted."""
        return self.folder / "training.safetensors"

    @property
    def lock(self) -> Path:
        """Return the lock held by the program that has joined, with whichever profile."""
        return self.site / "site.lock"

    def create(self) -> None:
        """Create the private folders."""
        make_private_folder(self.site)
        make_private_folder(self.profile_folder)
        make_private_folder(self.folder)
