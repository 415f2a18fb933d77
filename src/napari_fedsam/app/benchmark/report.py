"""`napari-fedsam benchmark report`: a page of tables and figures from a benchmark's results."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_fedsam.app.benchmark.base_model import BASE
from napari_fedsam.app.benchmark.comparison import (
    LEAST_GROUPS,
    BySeed,
    is_pooled,
    of_both,
    site_differences,
    site_means,
    task_means,
)
from napari_fedsam.app.benchmark.figures import draw_figures
from napari_fedsam.app.benchmark.report_commands import commands
from napari_fedsam.app.benchmark.results import (
    FURTHER_DATA,
    ImageResult,
    Result,
    ResultsError,
    ResultsFolder,
)
from napari_fedsam.files import write_text_atomically

_ONE_SEED = "¹"
_GLOBAL = ("fedsam", "fedmsa", "lora_fedavg")
_OURS = "pfedsam"
# At 256 pixels even a perfect mask of vessels stays below the clicks' target.
_WITHOUT_CLICKS = ("vessel",)


def write_report(folder: Path, page: Path) -> None:
    """Write a page of Markdown, with figures in `folder`/figures.

    Parameters
    ----------
    folder : Path
        A benchmark's results.
    page : Path
        The file to write.

    Raises
    ------
    ResultsError
        When the folder holds no finished run.
    """
    kept = ResultsFolder(folder)
    results, images = kept.tables()
    runs = kept.runs
    if not results:
        raise ResultsError(f"{folder} holds no finished run: run 'benchmark federated' first.")
    inside = [row for row in results if row.protocol == "in_federation"]
    inside_images = [row for row in images if row.protocol == "in_federation"]
    unseen = [row for row in results if row.protocol == "unseen_site"]
    parts = [_head(runs, folder.name)]
    if inside:
        parts += [
            _task_table("Dice without a prompt, mean over sites", inside, prompt="none"),
            _task_table("Dice with the bounding box", inside, prompt="box"),
            _task_table("Dice with one click", inside, prompt="point"),
            _claims(inside, inside_images),
            _site_table("Dice without a prompt at each site", inside),
            _surface_table(inside),
            _cost_table(inside),
            _click_table(inside),
            _figures(draw_figures(inside, folder / "figures"), page),
        ]
    further = [row for row in results if row.protocol == FURTHER_DATA]
    if further:
        parts.append(_task_table("Further data: Dice without a prompt", further, prompt="none"))
    if unseen:
        title = "A site that took no part: Dice without a prompt"
        parts += [
            _task_table(f"{title}, mean over sites", unseen, prompt="none"),
            _site_table(f"{title}, each site", unseen),
        ]
    clicked = {
        (row.task, row.protocol, row.method, row.seed) for row in results if row.prompt == "clicks"
    }
    parts.append(commands(runs, clicked, folder.name))
    write_text_atomically(page, "\n\n".join(part for part in parts if part) + "\n")


def _head(runs: dict[str, dict[str, Any]], folder: str) -> str:
    first = next(iter(runs.values()))
    trained = sorted({n for facts in runs.values() for n in facts["train_images"].values()})
    recipes = [facts["run"]["recipe"] for facts in runs.values() if "recipe" in facts["run"]]
    rounds = sorted({recipe["rounds"] for recipe in recipes})
    splits = sorted({facts["split"] for facts in runs.values()})
    machine = ", ".join(f"{key} {value}" for key, value in first["environment"].items())
    hours = sum(facts["seconds"] for facts in runs.values()) / 3600
    return (
        "# Benchmarks\n\n"
        f"Made by `napari-fedsam benchmark report` from the tables in `{folder}/`; research use "
        "only.\n\n"
        f"{len(runs)} runs, {hours:.1f} hours; {_listed(rounds)} rounds, {_listed(trained)} "
        f"training images a site, measured on: {_listed(splits)}. {_passes(runs)}\n\n"
        f"Machine of the first run: {machine}. The recipe of every run is in "
        f"`{folder}/runs.json`.\n\n"
        "Dice is taken at probability 0.5 at the image's own resolution, per image, and averaged "
        "over images, structures and sites; over seeds where there are several, and methods are "
        "compared over the seeds that both have. An empty prediction of a structure that is there "
        f"scores 0; images without the structure are left out. {_units(runs)}"
    )


def _units(runs: dict[str, dict[str, Any]]) -> str:
    tasks: dict[str, set[str]] = {"mm": set(), "pixels": set()}
    for facts in runs.values():
        # The base model proposes nothing; earlier runs had pixels alone.
        if "recipe" in facts["run"]:
            tasks[facts.get("distances", "pixels")].add(facts["run"]["task"])
    if not tasks["mm"]:
        return "Distances are in pixels."
    if not tasks["pixels"]:
        return "Distances are in millimetres."
    return f"Distances are in pixels, but in millimetres for {_listed(sorted(tasks['mm']))}."


def _passes(runs: dict[str, dict[str, Any]]) -> str:
    """Say how often the methods go over a site's images in a round."""
    by_task: dict[str, set[float]] = {}
    for facts in runs.values():
        if "recipe" in facts["run"]:
            passes = facts["run"]["recipe"]["training"]["epochs"]
            by_task.setdefault(facts["run"]["task"], set()).add(passes)
    text = ", ".join(
        f"{task} {_listed([f'{n:g}' for n in sorted(found)])}"
        for task, found in sorted(by_task.items())
    )
    if not text:
        return ""
    return (
        f"Passes over a site's images in a round, by task: {text}. Methods of the same number of "
        "passes take the same number of optimiser steps for each site, but for the rounding up of "
        "their phases (centralised ones take those of all sites one after the other)."
    )


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _mean(by_seed: BySeed) -> float:
    return float(np.mean(list(by_seed.values())))


def _mean_and_spread(by_seed: BySeed | None, most: int) -> str:
    """Return a table's cell, marked where it has one seed and others have several."""
    if not by_seed:
        return "-"
    values = list(by_seed.values())
    if len(values) == 1:
        return f"{values[0]:.3f}{_ONE_SEED if most > 1 else ''}"
    return f"{_mean(by_seed):.3f} ± {float(np.std(values, ddof=1)):.3f}"


def _with_note(table: str) -> str:
    return f"{table}\n\n{_ONE_SEED} One seed." if _ONE_SEED in table else table


def _methods(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(row.method for row in results))


def _tasks(results: Sequence[Result]) -> list[str]:
    return sorted({row.task for row in results})


def _task_table(title: str, results: Sequence[Result], *, prompt: str) -> str:
    means = task_means(results, prompt=prompt)
    tasks = _tasks(results)
    most = max(map(len, means.values()), default=0)
    rows = []
    for method in _methods(results):
        found = [means.get((task, method)) for task in tasks]
        known = [_mean(values) for values in found if values]
        overall = f"{float(np.mean(known)):.3f}" if len(known) == len(tasks) else "-"
        # Without training there is nothing that a seed would change.
        alone = 1 if method == BASE else most
        rows.append([method, *(_mean_and_spread(values, alone) for values in found), overall])
    return _with_note(f"## {title}\n\n" + _markdown(["method", *tasks, "all tasks"], rows))


def _claims(results: Sequence[Result], images: Sequence[ImageResult]) -> str:
    means = task_means(results)
    pairs = [
        *((_OURS, other) for other in (*_GLOBAL, "lora_fedavg_ft", "local")),
        ("fedmsa", "centralised_fedmsa"),
    ]
    lines = []
    for method, other in pairs:
        both = {t: of_both(means, t, method, other) for t in _tasks(results)}
        apart = {task: two[0] - two[1] for task, two in both.items() if two is not None}
        if apart:
            points = 100 * float(np.mean(list(apart.values())))
            lines.append(f"- {method} minus {other}: {points:+.1f} points over {_listed([*apart])}")
    lines += _click_claims(results)
    tables = (_difference_table(images, other) for other in ("local", "lora_fedavg"))
    return "\n\n".join(["## What they show", "\n".join(lines), *filter(None, tables)])


def _difference_table(images: Sequence[ImageResult], other: str) -> str:
    rows = [
        [
            task,
            apart.site,
            str(apart.groups),
            f"{100 * apart.mean:+.1f}",
            f"{100 * apart.low:+.1f} to {100 * apart.high:+.1f}",
            "below" if apart.is_worse else "not below" if apart.judged else "not judged",
        ]
        for task in sorted({row.task for row in images})
        for apart in site_differences(images, task, _OURS, other)
    ]
    if not rows:
        return ""
    head = ["task", "site", "groups", "points", "95 % interval", f"{_OURS} is"]
    return (
        f"{_OURS} minus {other}, at each site (percentile intervals resampled by group, which say "
        "nothing of what another seed would change, and are too narrow where groups are few: of 4 "
        f"they hold the truth four times out of five; sites with fewer than {LEAST_GROUPS} groups "
        "are not judged):\n\n" + _markdown(head, rows)
    )


def _click_claims(results: Sequence[Result]) -> list[str]:
    counts = task_means(results, metric="noc90", prompt="clicks")
    tasks = [task for task in _tasks(results) if task not in _WITHOUT_CLICKS]
    lines = []
    for other in (BASE, "lora_fedavg", "lora_fedavg_ft", "local"):
        both = {task: of_both(counts, task, _OURS, other) for task in tasks}
        known = {task: two for task, two in both.items() if two is not None}
        if known:
            ours, theirs = (sum(two[i] for two in known.values()) for i in (0, 1))
            each = [f"{task} {_percent(*two)}" for task, two in known.items()]
            lines.append(
                f"- clicks to Dice 0.90, {_OURS} against {other}: {_percent(ours, theirs)} in all "
                f"({_listed(each)})"
            )
    return lines


def _percent(ours: float, theirs: float) -> str:
    return f"{100 * (ours / theirs - 1):+.0f} %"


def _site_table(title: str, results: Sequence[Result]) -> str:
    means = site_means(results)
    places = sorted({(task, site) for task, _, site in means})
    methods = _methods(results)
    most = max(map(len, means.values()), default=0)
    rows = [
        [task, site, *(_mean_and_spread(means.get((task, m, site)), most) for m in methods)]
        for task, site in places
    ]
    return _with_note(f"## {title}\n\n" + _markdown(["task", "site", *methods], rows))


def _surface_table(results: Sequence[Result]) -> str:
    distances = task_means(results, metric="hd95")
    surfaces = task_means(results, metric="surface_dice")
    tasks = _tasks(results)
    rows = []
    for method in _methods(results):
        cells = []
        for task in tasks:
            apart, agreeing = distances.get((task, method)), surfaces.get((task, method))
            if apart is None or agreeing is None:
                cells.append("-")
            else:
                cells.append(f"{_mean(apart):.1f} / {_mean(agreeing):.3f}")
        rows.append([method, *cells])
    return (
        "## Outlines\n\n95th percentile of the Hausdorff distance, and surface Dice at 2 pixels "
        "or mm, without a prompt.\n\n" + _markdown(["method", *tasks], rows)
    )


def _cost_table(results: Sequence[Result]) -> str:
    rows = []
    for method in _methods(results):
        own = [row for row in results if row.method == method]
        up = [row.value for row in own if row.metric == "bytes_up"]
        down = [row.value for row in own if row.metric == "bytes_down"]
        seconds = [row.value for row in own if row.metric == "seconds"]
        nothing = "all images" if is_pooled(method) else "0"
        rows.append(
            [
                method,
                f"{float(np.mean(up)) / 1e6:.2f}" if up else nothing,
                f"{float(np.mean(down)) / 1e6:.2f}" if down else nothing,
                f"{float(np.median(seconds)):.0f}" if seconds else "0",
            ]
        )
    head = ["method", "MB sent", "MB received", "seconds of training, all sites"]
    about = (
        "Of one site, as serialised messages; of the seconds, the median over rounds, seeds and "
        "the tasks that a method was measured on."
    )
    return f"## Cost of a round\n\n{about}\n\n" + _markdown(head, rows)


def _click_table(results: Sequence[Result]) -> str:
    tables = {
        target: task_means(results, metric=target, prompt="clicks") for target in ("noc85", "noc90")
    }
    if not tables["noc90"]:
        return ""
    tasks = _tasks(results)
    rows = [
        [
            method,
            *(
                " / ".join(
                    f"{_mean(tables[target][task, method]):.2f}"
                    if (task, method) in tables[target]
                    else "-"
                    for target in tables
                )
                for task in tasks
            ),
        ]
        for method in _methods(results)
    ]
    about = (
        "Simulated corrective clicks, starting from the proposal where the model makes one; 10 for "
        "an image that does not get there with 10."
    )
    return f"## Clicks to Dice 0.85 / 0.90\n\n{about}\n\n" + _markdown(["method", *tasks], rows)


def _figures(pictures: Sequence[Path], page: Path) -> str:
    links = []
    for picture in pictures:
        place = Path(os.path.relpath(picture, page.parent)).as_posix()
        links.append(f"![{picture.stem.replace('_', ' ')}]({place})")
    return "## Figures\n\n" + "\n\n".join(links)
