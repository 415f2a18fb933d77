"""Options of the exchange: how updates are combined and checked, privacy, and when rounds run."""

import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from napari_fedsam.personalization.method_options import Options

Precision = Literal["float32", "float16", "int8"]
Aggregation = Literal["fedavg", "fedadam", "median", "trimmed_mean", "krum"]

_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
HOURS = rf"^({_CLOCK}-{_CLOCK})?$"
"""What hours of the day look like, such as `22:00-06:00`; "" for all."""

# What withstands hostile sites.
_ROBUST: tuple[Aggregation, ...] = ("median", "trimmed_mean", "krum")

# Options that only some ways to aggregate use.
_USED_BY: dict[str, tuple[Aggregation, ...]] = {
    "weights": ("fedavg", "fedadam"),
    "case_cap": ("fedavg", "fedadam"),
    "extrapolation": ("fedavg",),
    "server_learning_rate": ("fedadam",),
    "trimmed_share": ("trimmed_mean",),
    "malicious_sites": ("krum",),
}


class PrivacyOptions(Options):
    """Differential privacy of whole sites (Gaussian mechanism on clipped updates).

    Attributes
    ----------
    noise : {"central", "local"}
        Who adds it: the coordinator to the average, which protects a site from whoever sees the
        models but not from the coordinator, or each site to its own update, which protects it
        from the coordinator, too, and costs much more accuracy.
    clipping_norm : float
        Longer updates are scaled down to this L2 norm.
    noise_multiplier : float
        Standard deviation of the noise on a sum (central) or update (local), in clipping norms.
    delta : float in 0..1
        The delta at which epsilon is stated.
    """

    noise: Literal["central", "local"]
    clipping_norm: float = Field(gt=0)
    noise_multiplier: float = Field(gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)


class FederationOptions(Options):
    """How the coordinator runs rounds and combines the sites' updates.

    Attributes
    ----------
    aggregation : {"fedavg", "fedadam", "median", "trimmed_mean", "krum"}
        Average (McMahan et al. 2017), the same as a gradient for Adam (Reddi et al. 2021),
        median and trimmed mean of each parameter (Yin et al. 2018), or the one update that is
        nearest to the others (Blanchard et al. 2017).
    weights : {"cases", "equal"}
        What a site weighs in an average: its training cases, or one.
    case_cap : int, optional
        No site weighs more than one with this many cases.
    extrapolation : float
        How many times an average of several updates is taken: averaging updates that differ
        shortens them (Jhunjhunwala et al. 2023, arXiv 2301.09604, who choose it anew each round).
    server_learning_rate : float
        Step of FedAdam.
    trimmed_share : float
        Share of the values cut off at each end by the trimmed mean.
    malicious_sites : int
        How many bad sites Krum withstands: so many updates, the least like others, are left out.
    norm_limit : float, optional
        An update longer than this many times the median of the round, or of the site's own past,
        is left out; None switches this off.
    privacy : PrivacyOptions, optional
    precision : {"float32", "float16", "int8"}
        Of the values that a site sends. Below float32 it sends what it changed, and adds what
        rounding has lost to its next update.
    hours : str
        Local hours of the coordinator in which rounds start, such as `22:00-06:00`; "" for all.
    deadline_minutes : float
        How long a round waits for answers; it goes on with those that came.
    """

    aggregation: Aggregation = "fedavg"
    weights: Literal["cases", "equal"] = "cases"
    case_cap: int | None = Field(default=None, ge=1)
    extrapolation: float = Field(default=1.0, ge=1, le=2)
    server_learning_rate: float = Field(default=0.01, gt=0)
    trimmed_share: float = Field(default=0.2, gt=0, lt=0.5)
    malicious_sites: int = Field(default=1, ge=1)
    norm_limit: float | None = Field(default=10.0, gt=1)
    privacy: PrivacyOptions | None = None
    precision: Precision = "float32"
    hours: str = Field(default="", pattern=HOURS)
    deadline_minutes: float = Field(default=60.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _explain_secure_aggregation(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("secure_aggregation"):
            raise ValueError(
                "secure_aggregation is not available: it would hide the single updates, so that "
                "none could be checked; use privacy with local noise to protect sites from the "
                "coordinator"
            )
        return values

    @model_validator(mode="after")
    def _check_use(self) -> Self:
        for name, users in _USED_BY.items():
            unused = self.aggregation not in users
            if unused and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{self.aggregation} has no use for {name}: leave it out")
        if self.weights == "equal" and self.case_cap is not None:
            raise ValueError("case_cap has no use where weights are equal: leave one of them out")
        return self

    @model_validator(mode="after")
    def _check_privacy(self) -> Self:
        if self.privacy is None:
            return self
        if self.aggregation != "fedavg":
            raise ValueError(
                f"privacy holds for averages alone, and not for {self.aggregation}: choose fedavg "
                "or leave privacy out"
            )
        if self.extrapolation != 1:
            raise ValueError(
                "extrapolation would enlarge the noise of privacy, too: leave one of them out"
            )
        if self.privacy.noise == "central" and self.weights != "equal":
            raise ValueError(
                "with central noise every site must weigh the same, or a site with many cases "
                "would stand out from the noise: set weights to equal"
            )
        return self

    def times(self, updates: int) -> float:
        """Return how many times the average of a number of updates is taken."""
        return self.extrapolation if updates > 1 else 1.0

    def check_sites(self, minimum_sites: int) -> None:
        """Refuse a minimum of sites with which the aggregation could not do its work.

        Raises
        ------
        ValueError
            Saying how many it needs.
        """
        needed = {
            "median": 3,
            "trimmed_mean": -int(-1 // self.trimmed_share),
            "krum": 2 * self.malicious_sites + 3,
        }.get(self.aggregation, 1)
        if minimum_sites < needed:
            raise ValueError(
                f"{self.aggregation} needs at least {needed} sites in every round, but "
                f"minimum_sites is {minimum_sites}: raise it"
            )

    def caution(self, minimum_sites: int) -> str:
        """Tell what is allowed but may keep every round from changing anything, "" when nothing is.

        Parameters
        ----------
        minimum_sites : int
            Good updates that a round needs.
        """
        if self.norm_limit is None or self.aggregation not in _ROBUST:
            return ""
        return (
            f"{self.aggregation} needs {minimum_sites} good updates in every round and "
            "federation.norm_limit leaves out unusual ones before they are counted, so with "
            f"exactly {minimum_sites} sites a single hostile one stops every round: invite at "
            f"least {minimum_sites + 1} sites, or set federation.norm_limit to null in the recipe."
        )

    def may_start(self, now: datetime.time) -> bool:
        """Tell whether a round may start at this local time of day."""
        return within_hours(self.hours, now)


def within_hours(hours: str, now: datetime.time) -> bool:
    """Tell whether a time of day lies in hours such as `22:00-06:00`, always in ""."""
    if not hours:
        return True
    first, last = (datetime.time.fromisoformat(part) for part in hours.split("-"))
    clock = now.replace(tzinfo=None)
    return first <= clock < last if first < last else clock >= first or clock < last
