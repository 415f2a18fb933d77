"""How a coordinator stands."""

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
        Approved sites by name, and whether each is connected now.
    minimum_sites : int
        How many must be connected for a round.
    rounds : int
        Rounds recorded so far.
    best_round : int
        Round with the highest mean held-out Dice, 0 for none.
    paused : bool
        Whether no further round starts.
    problem : str
        What keeps a coordinator that was started from working, "" when nothing does.
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

    @property
    def waits_for(self) -> str:
        """One line that says what a round would wait for, "" when it could start."""
        connected = sum(self.sites.values())
        if self.problem:
            return self.problem
        if not self.running:
            return "the coordinator is not running"
        if connected >= self.minimum_sites:
            return ""
        missing = [name for name, online in self.sites.items() if not online]
        names = f" (not connected: {', '.join(missing)})" if missing else ""
        return f"waiting for sites: {connected} of at least {self.minimum_sites} connected{names}"
