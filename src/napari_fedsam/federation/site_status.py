"""The file through which the background ClientApp tells the panel how far it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_fedsam.federation.site_state import Phase
from napari_fedsam.files import write_text_atomically
from napari_fedsam.training.progress import Progress


class SiteStatus(BaseModel):
    """What the ClientApp knows; the panel reads it from `status.json`.

    Attributes
    ----------
    phase : Phase
        Phase of the round as the ClientApp sees it.
    progress : float
        Share of the training that is done, 0 to 1.
    message : str
        One sentence for the user; reasons of failures stay here and never travel.
    round : int
        Newest round seen.
    rounds_joined : int
        Rounds to which this site sent an update.
    trained_cases : int
        Training cases that the last training had.
    trained_round : int
        Round of the last training; it may be asked for again when too few sites answered.
    dice_history : tuple of (int, float)
        Round and mean Dice of its model on this site's held-out cases.
    """

    model_config = ConfigDict(frozen=True)

    phase: Phase = Phase.WAITING
    progress: float = 0.0
    message: str = ""
    round: int = 0
    rounds_joined: int = 0
    trained_cases: int = 0
    trained_round: int = 0
    dice_history: tuple[tuple[int, float], ...] = ()

    @classmethod
    def read(cls, path: Path) -> "SiteStatus":
        """Read the file; a missing or foreign one reads as the initial status."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValidationError):
            return cls()


def update_status(path: Path, **changes: Any) -> SiteStatus:
    """Replace fields of the status file in one atomic step and return the new status.

    One process at a time writes it: Flower runs one ClientApp per site at a time.
    """
    status = SiteStatus.model_validate({**SiteStatus.read(path).model_dump(), **changes})
    write_text_atomically(path, json.dumps(status.model_dump(mode="json")))
    return status


def progress_writer(path: Path, *, step: float = 0.02) -> Callable[[Progress], None]:
    """Return a progress callback that writes the status whenever `step` (0..1) more is done."""
    written = -1.0

    def write(progress: Progress) -> None:
        nonlocal written
        if progress.fraction - written >= step or progress.fraction >= 1.0 > written:
            written = progress.fraction
            update_status(path, progress=min(progress.fraction, 1.0))

    return write
