"""What a site's user has set about taking part."""

import datetime
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.machine_load import machine_load
from napari_fedsam.files import write_text_atomically
from napari_fedsam.personalization.federation_options import HOURS, within_hours
from napari_fedsam.personalization.method_options import Options

_IDLE_BELOW = 0.3


class SiteSettings(Options):
    """When this site trains, and with how much of the machine.

    Attributes
    ----------
    paused : bool
        Stay connected but decline every round.
    hours : str
        Local hours in which to train, such as `22:00-06:00`; "" for all.
    threads : int, optional
        Threads for training; half of the processors by default. Takes effect with the next join.
    new_cases : int
        Training cases that must be new since the last training.
    when_idle : bool
        Decline rounds while other programs use the processors.
    ask_first : bool
        Use a new model that passed the judging only when the person says so.
    """

    paused: bool = False
    hours: str = Field(default="", pattern=HOURS)
    threads: int | None = Field(default=None, ge=1)
    new_cases: int = Field(default=0, ge=0)
    when_idle: bool = False
    ask_first: bool = False

    @classmethod
    def read(cls, path: Path) -> "SiteSettings":
        """Read the settings; a missing file means the defaults.

        Raises
        ------
        FederationError
            When the file is damaged.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except ValidationError as error:
            raise FederationError(
                f"The site's settings {path} are damaged; correct or remove the file."
            ) from error

    def write(self, path: Path) -> None:
        """Write the settings in one step."""
        write_text_atomically(path, self.model_dump_json(indent=2) + "\n")

    def declines(
        self, now: datetime.time, new_cases: int, load: Callable[[], float] = machine_load
    ) -> str:
        """Say why a round is declined now, "" when it is not.

        Parameters
        ----------
        now : time
            Local time of day.
        new_cases : int
            Training cases that came since the last training.
        load : callable
            Returns the share of the processors in use, 0 to 1; asked only when it matters.
        """
        if self.paused:
            return "This site is paused; it takes part again when the pause is ended."
        if not within_hours(self.hours, now):
            return f"This site trains between {self.hours}; the round was declined."
        if new_cases < self.new_cases:
            return (
                f"There are {new_cases} new training cases since the last training, and this site "
                f"waits for {self.new_cases}; the round was declined."
            )
        if self.when_idle and (used := load()) > _IDLE_BELOW:
            return (
                f"Other programs use {used:.0%} of this computer's processors, and this site "
                "trains when they are idle; the round was declined."
            )
        return ""
