"""The coordinator's report: one HTML file that needs nothing else."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.errors import FederationError, ReplyCode
from napari_fedsam.federation.privacy import epsilon_spent, privacy_in_words
from napari_fedsam.federation.round_result import RoundResult
from napari_fedsam.files import write_text_atomically
from napari_fedsam.personalization.federation_options import PrivacyOptions
from napari_fedsam.personalization.recipe import Recipe

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; }}
table {{ border-collapse: collapse; margin: .5rem 0 1.5rem; }}
th, td {{ text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #ddd; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
svg {{ max-width: 100%; height: auto; }}
h2 {{ margin-top: 2rem; }}
</style>
<h1>{title}</h1>
<p>{lead}</p>
{body}
<p>Research use only. Dice is each site's own mean over its held-out cases, without a prompt,
with a box and with one click; sites with few of them vary by chance.</p>
</html>
"""


def write_report(coordinator: Coordinator, path: Path) -> Path:
    """Write the report of all rounds so far.

    Raises
    ------
    FederationError
        When there is no round yet.
    """
    results = coordinator.results()
    if not results:
        raise FederationError(
            "There is nothing to report: no round was run yet; run one with 'napari-fedsam "
            "coordinator run'."
        )
    recipe, settings = coordinator.recipe, coordinator.settings
    title = f"{settings.federation}: {len(results)} rounds"
    page = _PAGE.format(
        title=escape(title), lead=escape(_lead(results, recipe)), body=_body(results, recipe)
    )
    write_text_atomically(path, page)
    return path


def _lead(results: Sequence[RoundResult], recipe: Recipe) -> str:
    structures = ", ".join(structure.name for structure in recipe.structures)
    judged = [result for result in results if result.mean_dice is not None]
    best = max(judged, key=lambda result: result.mean_dice or 0.0, default=None)
    words = f"{structures}; {recipe.method} on {recipe.base_model}."
    if best is not None and best.mean_dice is not None:
        words += f" Best round: {best.round}, mean Dice {best.mean_dice:.3f}."
    return words


def _body(results: Sequence[RoundResult], recipe: Recipe) -> str:
    # Matplotlib takes a second to import, and most commands of a coordinator draw nothing.
    from napari_fedsam.federation.report_plots import (
        bytes_plot,
        dice_plot,
        norm_plot,
        participation_plot,
    )

    parts = [
        _section("Dice", dice_plot(results)),
        _section("Participation", participation_plot(results)),
        _section("Updates", norm_plot(results)),
        _section("Left out", _left_out(results)),
        _section("Exchange", bytes_plot(results)),
        _section("Privacy", _privacy(results, recipe)),
        _section("Rounds", _rounds(results)),
    ]
    return "\n".join(parts)


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>\n{content}"


def _left_out(results: Sequence[RoundResult]) -> str:
    rows = [
        (str(result.round), site.name, _reason(site.code))
        for result in results
        for site in result.refused
    ]
    if not rows:
        return "<p>No update was left out.</p>"
    return _table(("round", "site", "why"), rows)


def _reason(code: str) -> str:
    return f"{code}: {ReplyCode(code).explanation}" if code in set(ReplyCode) else code


def _privacy(results: Sequence[RoundResult], recipe: Recipe) -> str:
    words = f"<p>{escape(privacy_in_words(recipe.federation.privacy, recipe.rounds))}</p>"
    privacy = recipe.federation.privacy
    if privacy is None:
        return words
    from napari_fedsam.federation.report_plots import privacy_plot

    spent = [
        epsilon_spent(privacy, released_rounds(results[: n + 1], privacy))
        for n in range(len(results))
    ]
    plot = privacy_plot([result.round for result in results], spent)
    return f"{words}<p>Spent so far: epsilon {spent[-1]:.3g}.</p>{plot}"


def released_rounds(results: Iterable[RoundResult], privacy: PrivacyOptions) -> int:
    """Return in how many rounds something about the sites' cases was released.

    The coordinator's noise is on averages, and without one nothing is released. A site's own
    noise is on its answers, whether they were used or not.
    """
    if privacy.noise == "central":
        return sum(result.aggregated for result in results)
    return sum(result.releases for result in results)


def _rounds(results: Sequence[RoundResult]) -> str:
    rows = [
        (
            str(result.round),
            str(result.updates) if result.aggregated else "too few",
            str(result.cases),
            "" if result.loss is None else f"{result.loss:.3f}",
            "" if result.mean_dice is None else f"{result.mean_dice:.3f}",
            str(result.activated),
            f"{result.seconds:.0f}",
        )
        for result in results
    ]
    headings = ("round", "updates", "cases", "loss", "mean Dice", "in use at", "seconds")
    return _table(headings, rows, numbers=True)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    kind = ' class="number"' if numbers else ""
    head = "".join(f"<th{kind}>{escape(heading)}</th>" for heading in headings)
    lines = [
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    ]
    return f"<table><tr>{head}</tr>\n" + "\n".join(lines) + "\n</table>"
