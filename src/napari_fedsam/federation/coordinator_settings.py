"""What `coordinator init` fixed, and where the parts of a coordinator lie in its folder."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.files import write_text_atomically

# Tells the ServerApp, a child process, which folder is its coordinator's.
COORDINATOR_VARIABLE = "NAPARI_FEDSAM_COORDINATOR"

Proxy = Literal["none", "nginx", "own"]


@dataclass(frozen=True)
class CoordinatorFiles:
    """The files of a coordinator, all below its folder.

    Attributes
    ----------
    folder : Path
        The coordinator's folder.
    """

    folder: Path

    @property
    def settings(self) -> Path:
        """Return the file of the settings; its presence says that the folder is complete."""
        return self.folder / "coordinator.json"

    @property
    def recipe(self) -> Path:
        """Return the recipe of the federation."""
        return self.folder / "recipe.json"

    @property
    def sites(self) -> Path:
        """Return the list of approved sites."""
        return self.folder / "sites.json"

    @property
    def bundle(self) -> Path:
        """Return the app bundle whose hash the invitations pin."""
        return self.folder / "app.fab"

    @property
    def signing_key(self) -> Path:
        """Return the private key that signs invitations."""
        return self.folder / "signing.key"

    @property
    def invitations(self) -> Path:
        """Return the folder of the invitations, one file for each site."""
        return self.folder / "invitations"

    @property
    def paused(self) -> Path:
        """Return the file whose presence keeps rounds from starting."""
        return self.folder / "paused"

    @property
    def asks_again(self) -> Path:
        """Return the file that holds when a round that changed nothing is run again."""
        return self.folder / "asks-again"

    @property
    def serverapp_log(self) -> Path:
        """Return the log of the ServerApp, whose output Flower throws away."""
        return self.folder / "logs" / "serverapp.log"

    @property
    def run_lock(self) -> Path:
        """Return the lock of the program that runs rounds."""
        return self.folder / "run.lock"


class CoordinatorSettings(BaseModel):
    """What `init` fixed.

    Attributes
    ----------
    federation : str
        Name of the federation.
    host : str
        Host name or IP address under which sites reach the coordinator.
    port : int
        Port under which sites reach it.
    superlink_port : int
        Port of SuperLink on this machine's loopback.
    proxy : {"none", "nginx", "own"}
        What stands between the sites and SuperLink: nothing (sites on this machine), nginx that
        is started with the coordinator, or a reverse proxy that somebody else runs.
    listen : str
        Address that nginx listens on.
    contact : str
        Whom sites ask.
    own_certificate : bool
        Whether the proxy's certificate was brought instead of made.
    bundle_sha256 : str
        SHA-256 of the app bundle that sites pin.
    version : str
        Version of napari-fedsam that built the bundle.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation: str = Field(min_length=1, max_length=100)
    host: str = Field(pattern=r"^[^/\s]+$")
    port: int = Field(ge=1, le=65535)
    superlink_port: int = Field(ge=1, le=65535)
    proxy: Proxy = "none"
    listen: str = "0.0.0.0"  # noqa: S104 - what nginx exposes is meant for the outside
    contact: str = ""
    own_certificate: bool = False
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    version: str

    @property
    def local_address(self) -> str:
        """Return where SuperLink listens."""
        return f"127.0.0.1:{self.superlink_port}"

    @property
    def address(self) -> str:
        """Return the address that sites connect to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def read(cls, files: CoordinatorFiles) -> "CoordinatorSettings":
        """Read the settings of a coordinator's folder.

        Raises
        ------
        FederationError
            When the folder holds no coordinator, or its settings are damaged.
        """
        try:
            return cls.model_validate_json(files.settings.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FederationError(
                f"{files.folder} holds no coordinator; make one with 'napari-fedsam coordinator "
                "init'."
            ) from error
        except ValidationError as error:
            raise FederationError(
                f"{files.settings} is damaged or of another version of napari-fedsam; restore it "
                "from a backup."
            ) from error

    def write(self, files: CoordinatorFiles) -> None:
        """Write the settings in one step."""
        write_text_atomically(files.settings, self.model_dump_json(indent=2) + "\n")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
