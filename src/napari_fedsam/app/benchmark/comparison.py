"""What a benchmark's results say: means per method, and differences with their uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_fedsam.app.benchmark.results import ImageResult, Result
from napari_fedsam.personalization.methods import METHODS
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


BySeed = dict[int, float]
"""A number of each seed."""


def is_pooled(method: str) -> bool:
    """Whether a method needs all sites' images in one place."""
    return method in METHODS and METHODS[method].pooled


def site_means(
    results: Sequence[Result], *, metric: str = "dice", prompt: str = "none"
) -> dict[tuple[str, str, str], BySeed]:
    """Return values after the last round by (task, method, site) and seed, over structures.

    Parameters
    ----------
    results : sequence of Result
        Of one protocol.
    metric, prompt : str
    """
    rounds: dict[tuple[str, str], int] = {}
    for row in results:
        key = (row.task, row.method)
        rounds[key] = max(rounds.get(key, 0), row.round)
    values: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for row in results:
        last = row.round == rounds.get((row.task, row.method))
        if last and (row.metric, row.prompt) == (metric, prompt):
            seeds = values.setdefault((row.task, row.method, row.site), {})
            seeds.setdefault(row.seed, []).append(row.value)
    return {
        key: {seed: float(np.mean(found)) for seed, found in sorted(seeds.items())}
        for key, seeds in sorted(values.items())
    }


def task_means(
    results: Sequence[Result], *, metric: str = "dice", prompt: str = "none"
) -> dict[tuple[str, str], BySeed]:
    """Return the mean over sites by (task, method) and seed; see `site_means`."""
    tables: dict[tuple[str, str], list[BySeed]] = {}
    for (task, method, _), seeds in site_means(results, metric=metric, prompt=prompt).items():
        tables.setdefault((task, method), []).append(seeds)
    return {
        key: {
            seed: float(np.mean([site[seed] for site in sites]))
            for seed in sites[0]
            if all(seed in site for site in sites)
        }
        for key, sites in tables.items()
    }


def of_both(
    means: Mapping[tuple[str, str], BySeed], task: str, method: str, other: str
) -> tuple[float, float] | None:
    """Return two methods' means on a task over the seeds that both have; None without one.

    Parameters
    ----------
    means : mapping
        See `task_means`.
    task, method, other : str
    """
    one, two = means.get((task, method), {}), means.get((task, other), {})
    seeds = [seed for seed in one if seed in two]
    if not seeds:
        return None
    return float(np.mean([one[s] for s in seeds])), float(np.mean([two[s] for s in seeds]))


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
    values: dict[tuple[str, str, str], dict[str, BySeed]] = {}
    groups: dict[tuple[str, str, str], str] = {}
    for row in images:
        if row.task != task or row.metric != "dice" or row.prompt != "none":
            continue
        if row.method in (method, other):
            key = (row.site, row.image, row.structure)
            values.setdefault(key, {}).setdefault(row.method, {})[row.seed] = row.value
            groups[key] = row.group
    apart = {key: _apart(by, method, other) for key, by in values.items()}
    differences = []
    for site in sorted({key[0] for key in values}):
        known = {key: d for key, d in apart.items() if key[0] == site and d is not None}
        if not known:
            continue
        names = [groups[key] for key in known]
        points = list(known.values())
        low, high = bootstrap_interval(points, names)
        differences.append(Difference(site, float(np.mean(points)), low, high, len(set(names))))
    return differences


def _apart(by_method: Mapping[str, BySeed], method: str, other: str) -> float | None:
    one, two = by_method.get(method, {}), by_method.get(other, {})
    found = [one[seed] - two[seed] for seed in one if seed in two]
    return float(np.mean(found)) if found else None
