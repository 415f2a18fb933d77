"""Figures of a benchmark: Dice per round, per site, and against bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from napari_fedsam.app.benchmark.comparison import BySeed, is_pooled, site_means, task_means
from napari_fedsam.app.benchmark.results import Result

_WIDTH, _HEIGHT = 4.2, 3.4
_COLOURS = 10
_MARKERS = "os^"
_KEY = "hollow: fewer seeds than others; upright lines: from the lowest to the highest seed"

_Styles = Mapping[str, Mapping[str, Any]]


def draw_figures(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw the figures as PNG files and return their paths.

    Parameters
    ----------
    results : sequence of Result
        Of the protocol in the federation.
    folder : Path
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = sorted({row.task for row in results})
    styles = _styles(results)
    drawn = [
        (_per_round, "dice_per_round.png"),
        (_per_site, "dice_per_site.png"),
        (_against_bytes, "dice_against_bytes.png"),
    ]
    paths = []
    for draw, name in drawn:
        figure = Figure(figsize=(_WIDTH * len(tasks), _HEIGHT + 0.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axis, task in zip(axes, tasks, strict=True):
            of_task = [row for row in results if row.task == task]
            draw(axis, of_task, _with_hollow(styles, of_task))
            axis.set_title(task.replace("_", " "))
            axis.set_ylabel("Dice without a prompt")
            axis.grid(alpha=0.3)
        handles = [Line2D([], [], label=method, **style) for method, style in styles.items()]
        columns = 2 * len(tasks)
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=columns,
            fontsize="small",
            title=_KEY,
            title_fontsize="small",
        )
        figure.savefig(folder / name, dpi=110)
        paths.append(folder / name)
    return paths


def _styles(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Return a colour and a marker for every method that proposes, the same in all figures."""
    methods = dict.fromkeys(r.method for r in results if (r.metric, r.prompt) == ("dice", "none"))
    return {
        method: {
            "color": f"C{number % _COLOURS}",
            "marker": _MARKERS[number // _COLOURS % len(_MARKERS)],
            "markersize": 4,
        }
        for number, method in enumerate(methods)
    }


def _with_hollow(styles: _Styles, results: Sequence[Result]) -> _Styles:
    """Leave the markers of those methods empty that a task has fewer seeds of than of others."""
    seeds = {
        method: len({row.seed for row in results if row.method == method}) for method in styles
    }
    most = max(seeds.values())
    return {
        method: {**style, "fillstyle": "full" if seeds[method] == most else "none"}
        for method, style in styles.items()
    }


def _per_round(axis: Axes, results: Sequence[Result], styles: _Styles) -> None:
    for method, style in styles.items():
        rows = [
            row
            for row in results
            if row.method == method and row.metric == "dice" and row.prompt == "none"
        ]
        rounds = sorted({row.round for row in rows})
        means = [float(np.mean([r.value for r in rows if r.round == n])) for n in rounds]
        axis.plot(rounds, means, **style)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("round")


def _per_site(axis: Axes, results: Sequence[Result], styles: _Styles) -> None:
    means = site_means(results)
    sites = sorted({site for _, _, site in means})
    task = results[0].task
    measured = [method for method in styles if any(key[1] == method for key in means)]
    for index, method in enumerate(measured):
        shift = (index - (len(measured) - 1) / 2) * 0.7 / len(measured)
        for place, site in enumerate(sites):
            found = means.get((task, method, site))
            if found:
                _with_spread(axis, place + shift, found, styles[method])
    axis.set_xticks(range(len(sites)), sites, rotation=20, fontsize="small")
    axis.set_xlabel("site")


def _with_spread(axis: Axes, place: float, found: BySeed, style: Mapping[str, Any]) -> None:
    values = list(found.values())
    axis.plot([place], [float(np.mean(values))], **style)
    axis.vlines(place, min(values), max(values), color=style["color"], linewidth=1)


def _against_bytes(axis: Axes, results: Sequence[Result], styles: _Styles) -> None:
    means = task_means(results)
    task = results[0].task
    for method, style in styles.items():
        if is_pooled(method):
            continue
        sent = [r.value for r in results if r.method == method and r.metric == "bytes_up"]
        if (task, method) in means:
            size = float(np.mean(sent)) / 1e6 if sent else 0.0
            _with_spread(axis, max(size, 0.01), means[task, method], style)
    axis.set_xscale("log")
    axis.set_xlabel("MB sent by a site in a round (0.01: none)")
