"""Figures of a benchmark: Dice per round, per site, and against bytes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from napari_fedsam.app.benchmark.comparison import site_means, task_means
from napari_fedsam.app.benchmark.results import Result

_WIDTH, _HEIGHT = 4.2, 3.4


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
    methods = list(dict.fromkeys(row.method for row in results))
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
            draw(axis, [row for row in results if row.task == task], methods)
            axis.set_title(task.replace("_", " "))
            axis.grid(alpha=0.3)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=7, fontsize="small")
        figure.savefig(folder / name, dpi=110)
        paths.append(folder / name)
    return paths


def _per_round(axis: Axes, results: Sequence[Result], methods: Sequence[str]) -> None:
    for method in methods:
        rows = [
            row
            for row in results
            if row.method == method and row.metric == "dice" and row.prompt == "none"
        ]
        rounds = sorted({row.round for row in rows})
        means = [float(np.mean([r.value for r in rows if r.round == n])) for n in rounds]
        axis.plot(rounds, means, marker="o", markersize=3, label=method)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("round")
    axis.set_ylabel("Dice without a prompt")


def _per_site(axis: Axes, results: Sequence[Result], methods: Sequence[str]) -> None:
    means = site_means(results)
    sites = sorted({site for _, _, site in means})
    width = 0.8 / len(methods)
    task = results[0].task
    for index, method in enumerate(methods):
        by_site = [means.get((task, method, site), {0: 0.0}) for site in sites]
        heights = [float(np.mean(list(seeds.values()))) for seeds in by_site]
        places = np.arange(len(sites)) + (index - len(methods) / 2 + 0.5) * width
        axis.bar(places, heights, width, label=method)
    axis.set_xticks(range(len(sites)), sites, rotation=20, fontsize="small")
    axis.set_ylabel("Dice without a prompt")


def _against_bytes(axis: Axes, results: Sequence[Result], methods: Sequence[str]) -> None:
    means = task_means(results)
    task = results[0].task
    for method in methods:
        sent = [r.value for r in results if r.method == method and r.metric == "bytes_up"]
        if (task, method) in means:
            size = float(np.mean(sent)) / 1e6 if sent else 0.0
            dice = float(np.mean(list(means[task, method].values())))
            axis.plot([max(size, 0.01)], [dice], "o", label=method)
    axis.set_xscale("log")
    axis.set_xlabel("MB sent by a site in a round (0.01: none)")
    axis.set_ylabel("Dice without a prompt")
