"""What a coordinator is set to, and how it stands."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

# Tells the ServerApp, a child process, which folder is its coordinator's.
COORDINATOR_VARIABLE = "NAPARI_FEDSAM_COORDINATOR"
RECIPE_NAME = "recipe.json"
PROFILE_NAME = "site-profile.json"


class CoordinatorSettings(BaseModel):
    """What `init` fixed.

    Attributes
    ----------
    federation : str
        Name of the federation.
    host : str
        Host name or IP address under which sites reach the coordinator.
    port : int
        Port of SuperLink, on this machine's loopback.
    """

    model_config = ConfigDict(frozen=True)

    federation: str
    host: str
    port: int

    @property
    def local_address(self) -> str:
        """Return where SuperLink listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """Return the address that sites connect to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class CoordinatorStatus:
    """How a coordinator stands.

    Attributes
    ----------
    federation : str
        Name of the federation.
    running : bool
        Whether SuperLink and the process that runs our ServerApp are up.
    address : str
        Address that sites connect to.
    sites : dict of str to bool
        Approved sites by name, and whether each is connected now.
    minimum_sites : int
        How many must be connected for a round.
    rounds : int
        Rounds recorded so far.
    """

    federation: str
    running: bool
    address: str
    sites: dict[str, bool]
    minimum_sites: int
    rounds: int

    @property
    def waits_for(self) -> str:
        """One line that says what a round would wait for, "" when it could start."""
        connected = sum(self.sites.values())
        if not self.running:
            return "the coordinator is not running"
        if connected >= self.minimum_sites:
            return ""
        missing = [name for name, online in self.sites.items() if not online]
        names = f" (not connected: {', '.join(missing)})" if missing else ""
        return f"waiting for sites: {connected} of at least {self.minimum_sites} connected{names}"
