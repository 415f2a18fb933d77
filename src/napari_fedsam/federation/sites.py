"""The sites that a coordinator has approved."""

import re
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import public_key_pem
from napari_fedsam.files import write_text_atomically

SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"


class ApprovedSite(BaseModel):
    """A site whose key the coordinator accepts.

    Attributes
    ----------
    name : str
        The coordinator's name for it.
    public_key : str
        Its public key, OpenSSH text.
    node_id : str
        Flower's number of it, "" before its first registration.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    public_key: str
    node_id: str = ""

    @property
    def pem(self) -> bytes:
        """The public key as SuperLink knows it."""
        return public_key_pem(self.public_key)


class _SiteFile(BaseModel):
    sites: tuple[ApprovedSite, ...] = ()
    revoked: tuple[ApprovedSite, ...] = ()


class SiteList:
    """The approved sites, kept in one JSON file.

    Parameters
    ----------
    path : Path
        The file; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Several programs may change the file: what one wrote, another must not undo.
        self._lock = FileLock(path.with_suffix(".lock"))

    def sites(self) -> tuple[ApprovedSite, ...]:
        """Return the approved sites in the order of approval."""
        return self._read().sites

    def revoked(self) -> tuple[ApprovedSite, ...]:
        """Return the sites that were shut out."""
        return self._read().revoked

    def name_of(self, node_id: str) -> str:
        """Return the name of a site by Flower's number; the number itself when it is unknown."""
        content = self._read()
        names = {site.node_id: site.name for site in (*content.revoked, *content.sites)}
        return names.get(node_id, node_id)

    def _read(self) -> _SiteFile:
        try:
            return _SiteFile.model_validate_json(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return _SiteFile()
        except ValidationError as error:
            raise FederationError(
                f"{self._path} is damaged; restore it from a backup. Without one, remove it and "
                "approve the sites again, each with the same key, except those that were shut out."
            ) from error

    def add(self, name: str, public_key: str) -> ApprovedSite:
        """Approve a site; approving the same name and key again changes nothing.

        Raises
        ------
        FederationError
            When the name or the key cannot be used or belongs to another site.
        """
        check_site_name(name)
        pem = public_key_pem(public_key)
        with self._lock:
            return self._add(name, public_key, pem)

    def _add(self, name: str, public_key: str, pem: bytes) -> ApprovedSite:
        content = self._read()
        if any(site.pem == pem for site in content.revoked):
            raise FederationError(
                f"The key of '{name}' was shut out of this federation for good; ask the site for a "
                "new key."
            )
        for site in content.sites:
            same_key = site.pem == pem
            if site.name == name and same_key:
                return site
            if site.name == name or same_key:
                raise FederationError(
                    f"The site '{site.name}' is approved already with this name or key; "
                    "choose another name, or ask the site for a new key."
                )
        added = ApprovedSite(name=name, public_key=" ".join(public_key.split()[:2]))
        self._write(content.model_copy(update={"sites": (*content.sites, added)}))
        return added

    def remove(self, name: str) -> ApprovedSite:
        """Shut a site out and return it; its key is remembered.

        Of a site that is shut out already, nothing changes.

        Raises
        ------
        FederationError
            When no site of this name was ever approved.
        """
        with self._lock:
            return self._remove(name)

    def _remove(self, name: str) -> ApprovedSite:
        content = self._read()
        for site in content.sites:
            if site.name == name:
                others = tuple(other for other in content.sites if other.name != name)
                self._write(_SiteFile(sites=others, revoked=(*content.revoked, site)))
                return site
        for site in content.revoked:
            if site.name == name:
                return site
        raise FederationError(f"No site named '{name}' is approved here.")

    def set_node_id(self, site: ApprovedSite, node_id: int) -> None:
        """Remember Flower's number of a site."""
        numbered = site.model_copy(update={"node_id": str(node_id)})
        with self._lock:
            content = self._read()
            sites = tuple(numbered if other == site else other for other in content.sites)
            self._write(content.model_copy(update={"sites": sites}))

    def _write(self, content: _SiteFile) -> None:
        write_text_atomically(self._path, content.model_dump_json(indent=2) + "\n")


def check_site_name(name: str) -> None:
    """Refuse a name that cannot be a file's.

    Raises
    ------
    FederationError
        Saying what a name looks like.
    """
    if not re.fullmatch(SITE_NAME, name):
        raise FederationError(
            "A site's name begins with a letter or digit and has at most 64 letters, digits, "
            f"spaces or '._-'; '{name}' does not."
        )
