"""What a site must know to join: whom to trust, where to connect, what to train, what may run."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_fedsam.federation.bundle import bundle_hash
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.files import write_text_atomically
from napari_fedsam.personalization.recipe import Recipe


class SiteProfile(BaseModel):
    """One federation as a site sees it; holds no secrets.

    Attributes
    ----------
    federation : str
        Name of the federation.
    address : str
        Coordinator as `host:port`.
    authority : str
        PEM text of the certificate authority that signs the coordinator's certificate.
    bundle_sha256 : str
        SHA-256 of the only app bundle that may run at this site, 64 hex digits.
    recipe : Recipe
        The agreed recipe; messages under any other are refused.
    """

    model_config = ConfigDict(frozen=True)

    federation: str = Field(min_length=1, max_length=100)
    address: str = Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:/\s]+):\d{1,5}$")
    authority: str = Field(pattern=r"^-----BEGIN CERTIFICATE-----")
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    recipe: Recipe

    @classmethod
    def read(cls, path: Path) -> "SiteProfile":
        """Read a profile file.

        Raises
        ------
        FederationError
            When there is none or it is not a profile.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FederationError(
                f"There is no federation profile at {path}; ask the coordinator for its file "
                "site-profile.json."
            ) from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise FederationError(
                f"{path.name} is not a federation profile of this version; ask the coordinator "
                "for a new site-profile.json."
            ) from error

    def write(self, path: Path) -> None:
        """Write the profile as one JSON file."""
        write_text_atomically(path, self.model_dump_json(indent=2))

    def install(self, site_folder: Path) -> None:
        """Make this the profile of a site: profile, CA certificate and recipe in its folder."""
        files = SiteFiles(site_folder)
        files.create()
        self.write(files.profile)
        self.recipe.write(files.recipe)
        write_text_atomically(files.authority, self.authority)

    def check_runs_here(self) -> None:
        """Refuse a federation whose program code is not the installed package's.

        Raises
        ------
        FederationError
            When the pinned bundle differs from what the installed package builds.
        """
        if self.bundle_sha256 != bundle_hash():
            raise FederationError(
                f"The federation '{self.federation}' runs another version of napari-fedsam's app "
                "than the one installed here; install the version that its coordinator uses."
            )
