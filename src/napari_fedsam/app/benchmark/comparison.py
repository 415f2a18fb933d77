"""What a benchmark's results say: means per method, and differences with their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_fedsam.app.benchmark.results import ImageResult, Result
from napari_fedsam.training.confidence import bootstrap_interval

# Sites with fewer groups of test images are reported, not judged.
LEAST_GROUPS = 4


@dataclass(frozen=True)
class Difference:
    """One method minus another at a site, image by image.

    Parameters
    ----------
    site : str
    mean, low, high : float
        Mean difference of Dice and its 95 % interval, resampled by group.
    groups : int
        Patients or videos that the site's test images come from.
    """

    site: str
    mean: float
    low: float
    high: float
    groups: int

    @property
    def judged(self) -> bool:
        """Whether the site has enough groups."""
        return self.groups >= LEAST_GROUPS

    @property
    def is_worse(self) -> bool:
        """Whether the interval lies below zero."""
        return self.judged and self.high < 0


def site_means(
    results: Sequence[Result], *, metric: str = "dice", prompt: str = "none", last: bool = True
) -> dict[tuple[str, str, str], list[float]]:
    """Return values by (task, method, site), one per seed, averaged over structures.

    Parameters
    ----------
    results : sequence of Result
        Of one protocol.
    metric, prompt : str
    last : bool
        Only the last round of each run.
    """
    rounds: dict[tuple[str, str], int] = {}
    for row in results:
        key = (row.task, row.method)
        rounds[key] = max(rounds.get(key, 0), row.round)
    values: dict[tuple[str, str, str, int], list[float]] = {}
    for row in results:
        if row.metric != metric or row.prompt != prompt:
            continue
        if last and row.round != rounds[row.task, row.method]:
            continue
        values.setdefault((row.task, row.method, row.site, row.seed), []).append(row.value)
    means: dict[tuple[str, str, str], list[float]] = {}
    for (task, method, site, _), found in sorted(values.items()):
        means.setdefault((task, method, site), []).append(float(np.mean(found)))
    return means


def task_means(results: Sequence[Result], **which: str) -> dict[tuple[str, str], list[float]]:
    """Return the mean over sites by (task, method), one value per seed; see `site_means`."""
    by_site = site_means(results, **which)  # type: ignore[arg-type]
    tables: dict[tuple[str, str], list[list[float]]] = {}
    for (task, method, _), values in by_site.items():
        tables.setdefault((task, method), []).append(values)
    return {
        key: [float(np.mean(seed)) for seed in zip(*sites, strict=False)]
        for key, sites in tables.items()
    }


def site_differences(
    images: Sequence[ImageResult], task: str, method: str, other: str
) -> list[Difference]:
    """Compare two methods' Dice without a prompt at every site of a task.

    Parameters
    ----------
    images : sequence of ImageResult
        Of one protocol.
    task : str
    method, other : str

    Returns
    -------
    list of Difference
        Seeds that both have are averaged, image by image.
    """
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    groups: dict[tuple[str, str, str], str] = {}
    for row in images:
        if row.task != task or row.metric != "dice" or row.prompt != "none":
            continue
        if row.method in (method, other):
            key = (row.site, row.image, row.structure)
            values.setdefault(key, {}).setdefault(row.method, []).append(row.value)
            groups[key] = row.group
    differences = []
    for site in sorted({key[0] for key in values}):
        keys = [k for k in values if k[0] == site and {method, other} <= values[k].keys()]
        if not keys:
            continue
        apart = [float(np.mean(values[k][method]) - np.mean(values[k][other])) for k in keys]
        names = [groups[key] for key in keys]
        low, high = bootstrap_interval(apart, names)
        differences.append(Difference(site, float(np.mean(apart)), low, high, len(set(names))))
    return differences
