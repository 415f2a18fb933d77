"""What an interrupted run of a benchmark goes on from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from napari_fedsam.app.benchmark.results import ResultsError
from napari_fedsam.app.benchmark.run_settings import check_same
from napari_fedsam.files import atomic_path
from napari_fedsam.personalization.personalised_model import State

_FILE = "state.safetensors"

SiteStates = dict[str, dict[str, State]]
"""Tensors by kind (such as "shared"), site and name."""


def save_state(
    folder: Path, number: int, seconds: float, states: SiteStates, settings: Mapping[str, Any]
) -> None:
    """Keep the state after a round, and what the run has taken, in the place of that before."""
    # Sites often hold the very same tensors, which the format refuses.
    tensors = {
        f"{kind}/{site}/{name}": value.clone()
        for kind, of_sites in states.items()
        for site, state in of_sites.items()
        for name, value in state.items()
    }
    facts = {"round": str(number), "seconds": repr(seconds), "settings": json.dumps(settings)}
    with atomic_path(folder / _FILE) as temporary:
        save_file(tensors, temporary, metadata=facts)


def load_state(
    folder: Path, states: SiteStates, settings: Mapping[str, Any], name: str
) -> tuple[int, float]:
    """Put kept tensors in the place of those in `states`.

    Parameters
    ----------
    folder : Path
    states : dict
        Changed in place.
    settings : dict
        Of the run that wants to go on; see `settings_of`.
    name : str
        The run's.

    Returns
    -------
    (int, float)
        The round after which they were kept, and the seconds that the run had taken then; zeros
        when nothing was kept.

    Raises
    ------
    ResultsError
        When the run was begun with other settings, or does not tell.
    """
    path = folder / _FILE
    if not path.exists():
        return 0, 0.0
    with safe_open(path, framework="pt") as kept:
        facts = kept.metadata()
        if not {"settings", "seconds"} <= facts.keys():
            raise ResultsError(
                f"The unfinished run {name} does not tell its settings or its seconds: begin it "
                "anew with --no-resume."
            )
        advice = "take those, begin it anew with --no-resume, or choose another --out"
        check_same(json.loads(facts["settings"]), settings, f"The unfinished run {name}", advice)
        for key in kept.keys():  # noqa: SIM118 - it is no mapping
            kind, site, tensor = key.split("/", 2)
            before = states[kind].get(site, {})
            states[kind][site] = before | {tensor: kept.get_tensor(key)}
    return int(facts["round"]), float(facts["seconds"])
