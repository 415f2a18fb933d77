"""The sites that a coordinator has approved."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import public_key_pem
from napari_fedsam.files import write_text_atomically

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


class ApprovedSite(BaseModel):
    """A site whose key the coordinator accepts.

    Attributes
    ----------
    name : str
        The coordinator's name for it.
    public_key : str
        Its public key, OpenSSH text.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    public_key: str


class _SiteFile(BaseModel):
    sites: tuple[ApprovedSite, ...] = ()


class SiteList:
    """The approved sites, kept in one JSON file.

    Parameters
    ----------
    path : Path
        The file; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def sites(self) -> tuple[ApprovedSite, ...]:
        """Return the approved sites in the order of approval."""
        try:
            return _SiteFile.model_validate_json(self._path.read_text(encoding="utf-8")).sites
        except FileNotFoundError:
            return ()
        except ValidationError as error:
            raise FederationError(
                f"{self._path} is damaged; restore it from a backup or approve the sites again."
            ) from error

    def add(self, name: str, public_key: str) -> ApprovedSite:
        """Approve a site; approving the same name and key again changes nothing.

        Raises
        ------
        FederationError
            When the name or the key cannot be used or belongs to another site.
        """
        if not _NAME.fullmatch(name):
            raise FederationError(
                f"A site's name has 1 to 64 letters, digits, spaces or '._-'; '{name}' does not."
            )
        pem = public_key_pem(public_key)
        for site in self.sites():
            same_key = public_key_pem(site.public_key) == pem
            if site.name == name and same_key:
                return site
            if site.name == name or same_key:
                raise FederationError(
                    f"The site '{site.name}' is approved already with this name or key; "
                    "choose another name, or ask the site for a new key."
                )
        added = ApprovedSite(name=name, public_key=" ".join(public_key.split()[:2]))
        self._write((*self.sites(), added))
        return added

    def remove(self, name: str) -> ApprovedSite:
        """Take a site off the list and return it."""
        for site in self.sites():
            if site.name == name:
                self._write(tuple(other for other in self.sites() if other.name != name))
                return site
        raise FederationError(f"No site named '{name}' is approved here.")

    def _write(self, sites: tuple[ApprovedSite, ...]) -> None:
        write_text_atomically(self._path, _SiteFile(sites=sites).model_dump_json(indent=2))
