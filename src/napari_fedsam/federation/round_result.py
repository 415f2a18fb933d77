"""What a round was: for the federation, and for each of its sites."""

import math
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class SiteRound(BaseModel):
    """One site's part in a round.

    Attributes
    ----------
    node_id : str
        Flower's number of the site.
    name : str
        The coordinator's name for it.
    train_asked, evaluate_asked : bool
        Whether it was asked for an update and for a judgement.
    cases : int
        Training cases behind its update, 0 without one.
    loss : float or None
        Its mean training loss.
    training_seconds : float
    norm : float or None
        L2 norm of its update.
    code : str
        Why its update was left out (see `ReplyCode`), "" when it entered the aggregate.
    held_out : int
        Cases on which it judged the round's model, 0 without a judgement.
    dice : dict of str to float
        Mean Dice on them by kind of prompt (`none`, `box`).
    activated : bool
        Whether it took the round's model into use.
    judgement_code : str
        Why its judgement is missing.
    bytes_sent, bytes_received : int
        Parameters sent to it and received from it.
    """

    model_config = ConfigDict(frozen=True)

    node_id: str
    name: str
    train_asked: bool = False
    evaluate_asked: bool = False
    cases: int = 0
    loss: float | None = None
    training_seconds: float = 0.0
    norm: float | None = None
    code: str = ""
    held_out: int = 0
    dice: dict[str, float] = {}
    activated: bool = False
    judgement_code: str = ""
    bytes_sent: int = 0
    bytes_received: int = 0

    @property
    def accepted(self) -> bool:
        """Whether its update entered the aggregate, or would have with enough others."""
        return self.train_asked and not self.code

    @property
    def judged(self) -> bool:
        """Whether it has judged the round's model."""
        return self.evaluate_asked and not self.judgement_code

    @property
    def mean_dice(self) -> float | None:
        """Mean over the kinds of prompt, None without held-out cases."""
        return math.fsum(self.dice.values()) / len(self.dice) if self.held_out else None

    def refused(self, kind: str, code: str) -> "SiteRound":
        """Return the same with a reason why the update or the judgement is missing."""
        field = "code" if kind == "train" else "judgement_code"
        return self.model_copy(update={field: code})


class RoundResult(BaseModel):
    """What a round was.

    Attributes
    ----------
    round : int
        Its number, counted over all runs of the federation.
    recipe_hash : str
        Recipe under which it was trained.
    aggregated : bool
        Whether enough updates came; otherwise the shared parameters stayed as they were.
    sites : tuple of SiteRound
        Every site that was asked.
    complete : bool
        Whether the round is over: the sites have judged its model, or there was none to judge.
    seconds : float
        Duration of the round.
    sha256 : str
        Checksum of the parameters file, "" when the round was not aggregated.
    earlier_releases : int
        Earlier attempts at this round, with too few updates, in which a site had sent one.
    """

    model_config = ConfigDict(frozen=True)

    round: int
    recipe_hash: str
    aggregated: bool = False
    sites: tuple[SiteRound, ...] = ()
    complete: bool = False
    seconds: float = 0.0
    sha256: str = ""
    earlier_releases: int = 0

    @property
    def accepted(self) -> tuple[SiteRound, ...]:
        """The sites whose updates passed."""
        return tuple(site for site in self.sites if site.accepted)

    @property
    def refused(self) -> tuple[SiteRound, ...]:
        """The sites whose updates were left out or did not come."""
        return tuple(site for site in self.sites if site.train_asked and site.code)

    @property
    def releases(self) -> int:
        """How often a site sent an update in this round, in vain or not."""
        return self.earlier_releases + any(site.norm is not None for site in self.sites)

    @property
    def updates(self) -> int:
        """Updates that entered the aggregate."""
        return len(self.accepted) if self.aggregated else 0

    @property
    def cases(self) -> int:
        """Training cases behind them."""
        return sum(site.cases for site in self.accepted) if self.aggregated else 0

    @property
    def loss(self) -> float | None:
        """Their mean training loss, weighted by cases."""
        known = [(site.loss, site.cases) for site in self.accepted if site.loss is not None]
        return _weighted_mean(known)

    @property
    def dice(self) -> dict[str, float]:
        """Mean held-out Dice by kind of prompt, weighted by held-out cases."""
        kinds = dict.fromkeys(kind for site in self.sites for kind in site.dice)
        means = {
            kind: _weighted_mean(
                [(site.dice[kind], site.held_out) for site in self.sites if kind in site.dice]
            )
            for kind in kinds
        }
        return {kind: value for kind, value in means.items() if value is not None}

    @property
    def mean_dice(self) -> float | None:
        """Mean of `dice` over the kinds of prompt, None without a judgement."""
        return math.fsum(self.dice.values()) / len(self.dice) if self.dice else None

    @property
    def evaluations(self) -> int:
        """Sites that judged the round's model on held-out cases."""
        return sum(site.held_out > 0 for site in self.sites)

    @property
    def activated(self) -> int:
        """Sites that took the round's model into use."""
        return sum(site.activated for site in self.sites)

    @property
    def summary(self) -> str:
        """The round in one line."""
        reasons = ", ".join(f"{site.name}: {site.code}" for site in self.refused)
        left_out = f", left out {reasons}" if reasons else ""
        if not self.aggregated:
            return f"round {self.round}: too few updates{left_out}; nothing changed"
        dice = "".join(f", Dice {kind} {value:.3f}" for kind, value in self.dice.items())
        return (
            f"round {self.round}: {self.updates} updates from {self.cases} cases{left_out}"
            f"{dice}, in use at {self.activated} sites"
        )

    def finished(
        self, sites: Iterable[SiteRound], seconds: float, *, complete: bool
    ) -> "RoundResult":
        """Return the same with what the sites did, sorted by name."""
        by_name = tuple(sorted(sites, key=lambda site: (site.name, site.node_id)))
        return self.model_copy(update={"sites": by_name, "seconds": seconds, "complete": complete})


def _weighted_mean(values: list[tuple[float, int]]) -> float | None:
    total = sum(weight for _, weight in values)
    return math.fsum(value * weight for value, weight in values) / total if total else None
