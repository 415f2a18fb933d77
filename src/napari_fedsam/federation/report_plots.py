"""The plots of a coordinator's report, as SVG."""

import io
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from napari_fedsam.federation.round_result import RoundResult, SiteRound

# Okabe and Ito's colours, which colour-blind people can tell apart.
_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
_MARKERS = "osD^vP*X"
# Not asked, in, left out, no answer.
_PARTS = {"not asked": "#eeeeee", "in": "#009e73", "left out": "#d55e00", "no answer": "#999999"}


def names_of(results: Sequence[RoundResult]) -> list[str]:
    """Return the names of all sites that ever were asked."""
    return sorted({site.name for result in results for site in result.sites})


def dice_plot(results: Sequence[RoundResult]) -> str:
    """Plot each site's mean held-out Dice against the round, and the mean of all."""

    def draw(axes: Axes) -> None:
        _site_lines(axes, results, lambda site: site.mean_dice)
        judged = [(r.round, r.mean_dice) for r in results if r.mean_dice is not None]
        if judged:
            axes.plot(*zip(*judged, strict=True), color="black", linewidth=2.5, label="all sites")
        axes.set_ylim(0, 1)
        axes.set_ylabel("Dice on held-out cases")

    return _figure(draw)


def norm_plot(results: Sequence[RoundResult]) -> str:
    """Plot the norm of each site's update against the round; crosses were left out."""

    def draw(axes: Axes) -> None:
        _site_lines(axes, results, lambda site: site.norm if site.accepted else None)
        left_out = [
            (result.round, site.norm)
            for result in results
            for site in result.refused
            if site.norm is not None
        ]
        if left_out:
            axes.scatter(*zip(*left_out, strict=True), marker="x", color="black", label="left out")
        axes.set_yscale("log")
        axes.set_ylabel("norm of the update")

    return _figure(draw)


def bytes_plot(results: Sequence[RoundResult]) -> str:
    """Plot the megabytes exchanged in each round."""

    def draw(axes: Axes) -> None:
        rounds = [result.round for result in results]
        sent = [sum(site.bytes_sent for site in result.sites) / 1e6 for result in results]
        received = [sum(site.bytes_received for site in result.sites) / 1e6 for result in results]
        axes.bar(rounds, sent, color=_COLORS[4], label="to the sites")
        axes.bar(rounds, received, bottom=sent, color=_COLORS[0], label="from the sites")
        axes.set_ylabel("MB of parameters")

    return _figure(draw)


def participation_plot(results: Sequence[RoundResult]) -> str:
    """Show which site's update was in which round."""
    names = names_of(results)
    states = list(_PARTS)

    def draw(axes: Axes) -> None:
        grid = [[states.index(_part_of(name, result)) for result in results] for name in names]
        first, last = results[0].round, results[-1].round
        axes.imshow(
            grid,
            cmap=ListedColormap(list(_PARTS.values())),
            vmin=-0.5,
            vmax=len(states) - 0.5,
            aspect="auto",
            extent=(first - 0.5, last + 0.5, len(names) - 0.5, -0.5),
        )
        axes.set_yticks(range(len(names)), names)
        axes.legend(
            handles=[Patch(color=color, label=name) for name, color in _PARTS.items()],
            loc="upper left",
            bbox_to_anchor=(1, 1),
            frameon=False,
        )

    return _figure(draw, height=1.2 + 0.28 * len(names), legend=False)


def privacy_plot(rounds: Sequence[int], epsilons: Sequence[float]) -> str:
    """Plot the privacy that was spent against the round."""

    def draw(axes: Axes) -> None:
        axes.plot(rounds, epsilons, color=_COLORS[5], marker="o")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("epsilon spent")

    return _figure(draw, legend=False)


def _part_of(name: str, result: RoundResult) -> str:
    for site in result.sites:
        if site.name == name and site.train_asked:
            if site.code == "no-answer":
                return "no answer"
            return "left out" if site.code else "in"
    return "not asked"


def _site_lines(
    axes: Axes, results: Sequence[RoundResult], value: Callable[[SiteRound], float | None]
) -> None:
    for number, name in enumerate(names_of(results)):
        points = [
            (result.round, known)
            for result in results
            for site in result.sites
            if site.name == name and (known := value(site)) is not None
        ]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color=_COLORS[number % len(_COLORS)],
                marker=_MARKERS[number // len(_COLORS) % len(_MARKERS)],
                markersize=4,
                linewidth=1,
                label=name,
            )


def _figure(draw: Callable[[Axes], None], *, height: float = 3.0, legend: bool = True) -> str:
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]
