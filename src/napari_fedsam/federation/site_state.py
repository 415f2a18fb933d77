"""What a site shows of its federation, as evented state without Qt."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from psygnal import SignalGroupDescriptor


class Phase(StrEnum):
    """Where a site stands; the values are the words that a person reads."""

    OFFLINE = "offline"
    CONNECTING = "connecting"
    WAITING = "waiting for a round"
    TRAINING = "training"
    SENDING = "sending"
    UP_TO_DATE = "up to date"
    ERROR = "error"


@dataclass
class SiteState:
    """The federation state of one site; every field emits `state.events.<field>` on change.

    Attributes
    ----------
    phase : Phase
        Where the site stands.
    progress : float
        Share of the running phase that is done, 0 to 1 (meaningful while training).
    message : str
        One sentence that explains the phase; the reason and the remedy when it is an error.
    federation : str
        Name of the federation, "" without an invitation.
    address : str
        Address of the coordinator as `host:port`, "" without an invitation.
    round : int
        Newest round that this site took part in, 0 for none.
    rounds_joined : int
        Number of rounds to which this site contributed an update.
    bytes_sent : int
        Bytes of all messages that left this site, as recorded by the audit log.
    dice_history : tuple of (int, float)
        Round and mean Dice of that round's model on this site's held-out cases.
    active_version : int
        Number of the model version in use, 0 for the base model.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    phase: Phase = Phase.OFFLINE
    progress: float = 0.0
    message: str = ""
    federation: str = ""
    address: str = ""
    round: int = 0
    rounds_joined: int = 0
    bytes_sent: int = 0
    dice_history: tuple[tuple[int, float], ...] = ()
    active_version: int = 0

    @property
    def words(self) -> str:
        """The phase as shown to a person, such as `training 40 %` or `error: why`."""
        if self.phase is Phase.TRAINING:
            return f"{self.phase.value} {round(100 * self.progress)} %"
        if self.phase is Phase.ERROR and self.message:
            return f"{self.phase.value}: {self.message}"
        return self.phase.value
