"""The commands, with their configurations, that a benchmark's runs can be had with again."""

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from napari_fedsam.app.benchmark.base_model import BASE
from napari_fedsam.personalization.federation_options import FederationOptions
from napari_fedsam.personalization.method_options import MethodOptions
from napari_fedsam.personalization.recipe import TrainingOptions

_DEFAULTS = {
    "options": MethodOptions().model_dump(mode="json"),
    "training": TrainingOptions().model_dump(mode="json"),
    "federation": FederationOptions().model_dump(mode="json"),
}

Facts = Mapping[str, Any]


Measured = tuple[str, str, str, int]
"""A run's task, protocol, method and seed."""


def commands(runs: Mapping[str, Facts], clicked: Collection[Measured], folder: str) -> str:
    """Return a section of Markdown with one command for all runs that differ in nothing else.

    Parameters
    ----------
    runs : mapping of str to facts
        See `ResultsFolder.runs`. Options are compared with today's defaults.
    clicked : collection of (task, protocol, method, seed)
        The runs for which clicks were counted.
    folder : str
        The results folder's name.
    """
    alike: dict[tuple[bool, str, str], list[Facts]] = {}
    for facts in runs.values():
        if "recipe" in facts["run"]:
            key = (_measured(facts) in clicked, _likeness(facts), facts["run"]["method"])
            alike.setdefault(key, []).append(facts)
    # A command runs all its methods with all its seeds.
    groups: dict[tuple[bool, str, tuple[int, ...]], list[Facts]] = {}
    for (has_clicks, likeness, _), found in alike.items():
        groups.setdefault((has_clicks, likeness, _seeds(found)), []).extend(found)
    measured = {facts["run"]["task"] for facts in runs.values() if facts["run"]["method"] == BASE}
    with_base = set()
    for task in measured:
        of_task = [key for key, group in groups.items() if group[0]["run"]["task"] == task]
        # The untrained model goes with those that clicks were counted for if its own were, too.
        base_clicked = (task, "in_federation", BASE, 0) in clicked
        with_base.update(sorted(of_task, key=lambda key: key[0] is not base_clicked)[:1])
    blocks = [
        _block(group, folder, with_base=key in with_base, clicks=key[0])
        for key, group in groups.items()
    ]
    return "## Commands\n\n" + "\n\n".join(blocks) if blocks else ""


def _measured(facts: Facts) -> Measured:
    run = facts["run"]
    return run["task"], run["protocol"], run["method"], run["seed"]


def _likeness(facts: Facts) -> str:
    """Return what runs of one command have in common."""
    run = facts["run"]
    alike = [run[key] for key in ("task", "protocol", "train_images")]
    return json.dumps([*alike, run["recipe"]["rounds"], facts["split"], _changed(run, "training")])


def _changed(run: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return what a recipe's section has else than by default."""
    defaults = _DEFAULTS[section]
    return {
        key: value
        for key, value in run["recipe"].get(section, {}).items()
        if key not in defaults or defaults[key] != value
    }


def _block(group: Sequence[Facts], folder: str, *, with_base: bool, clicks: bool) -> str:
    run = group[0]["run"]
    methods = dict.fromkeys(facts["run"]["method"] for facts in group)
    words = ["napari-fedsam", "benchmark", "federated", "--data", "manifest.csv"]
    words += ["--task", run["task"], "--methods", ",".join([*methods, *([BASE] * with_base)])]
    words += ["--rounds", str(run["recipe"]["rounds"])]
    words += ["--seeds", ",".join(str(seed) for seed in _seeds(group))]
    if run["train_images"] is not None:
        words += ["--train-images", str(run["train_images"])]
    if run["protocol"] != "in_federation":
        words += ["--protocol", run["protocol"]]
    if group[0]["split"] != "test":
        words += ["--split", group[0]["split"]]
    config = _config(group)
    words += ["--config", "config.json"] if config else []
    words += ["--clicks"] if clicks else []
    command = shlex.join([*words, "--out", folder])
    block = f"```sh\n{command}\n```"
    if config:
        block += f"\n\nwith `config.json`\n\n```json\n{json.dumps(config)}\n```"
    return block


def _seeds(group: Sequence[Facts]) -> tuple[int, ...]:
    return tuple(sorted({facts["run"]["seed"] for facts in group}))


def _config(group: Sequence[Facts]) -> dict[str, Any]:
    """Return the configuration file's content, empty where none is needed."""
    config: dict[str, Any] = {}
    training = _changed(group[0]["run"], "training")
    if training:
        config["training"] = training
    for facts in group:
        run = facts["run"]
        method = run["recipe"]["method"]
        changed = {section: _changed(run, section) for section in ("options", "federation")}
        if any(changed.values()) or method != run["method"]:
            config.setdefault("methods", {})[run["method"]] = {
                "method": method,
                **{section: values for section, values in changed.items() if values},
            }
    return config
