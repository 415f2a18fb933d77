"""How a coordinator stands."""

import datetime
from dataclasses import dataclass


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
        Approved sites by name, and whether each is connected now; those that SuperLink alone
        knows, by the fingerprints of their keys.
    minimum_sites : int
        How many must be connected for a round.
    rounds : int
        Rounds so far that changed the shared parameters.
    best_round : int
        Round with the highest mean held-out Dice, 0 for none.
    paused : bool
        Whether no further round starts.
    problem : str
        What keeps a coordinator that was started from working, "" when nothing does.
    asks_again : datetime or None
        When the sites are asked again, after a round with too few updates.
    """

    federation: str
    running: bool
    address: str
    sites: dict[str, bool]
    minimum_sites: int
    rounds: int
    best_round: int = 0
    paused: bool = False
    problem: str = ""
    asks_again: datetime.datetime | None = None

    @property
    def waits_for(self) -> str:
        """One line that says what a round would wait for, "" when it could start."""
        connected = sum(self.sites.values())
        if self.problem:
            return self.problem
        if not self.running:
            return "the coordinator is not running"
        if connected < self.minimum_sites:
            missing = [name for name, online in self.sites.items() if not online]
            names = f" (not connected: {', '.join(missing)})" if missing else ""
            least = self.minimum_sites
            return f"waiting for sites: {connected} of at least {least} connected{names}"
        if self.asks_again is not None:
            return f"waiting until {self.asks_again:%H:%M} to ask the sites again (too few updates)"
        return ""
