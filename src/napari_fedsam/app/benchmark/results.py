"""Results of a benchmark as tables on disk: one folder per run, one table of all."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from napari_fedsam.app.benchmark.experiment import Run
from napari_fedsam.errors import FedSamError
from napari_fedsam.files import write_text_atomically
from napari_fedsam.training.samples import TrainingSample


class ResultsError(FedSamError):
    """A benchmark's folder holds no results, or broken ones."""


@dataclass(frozen=True)
class Result:
    """One number.

    Parameters
    ----------
    task, protocol, method, site, structure, prompt : str
        Empty where one does not apply.
    seed, round : int
    metric : str
        dice, hd95, surface_dice, noc85, noc90, bytes_up, bytes_down, seconds, loss, ...
    value : float
    """

    task: str
    protocol: str
    method: str
    site: str
    structure: str
    prompt: str
    seed: int
    round: int
    metric: str
    value: float


@dataclass(frozen=True)
class ImageResult:
    """A number of one image under one prompt, after the last round."""

    task: str
    protocol: str
    method: str
    site: str
    structure: str
    prompt: str
    seed: int
    image: str
    group: str
    metric: str
    value: float


class RunTables:
    """The numbers of one run.

    Parameters
    ----------
    run : Run
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.results: list[Result] = []
        self.images: list[ImageResult] = []

    def add(
        self,
        metric: str,
        value: float,
        *,
        number: int,
        site: str = "",
        structure: str = "",
        prompt: str = "",
    ) -> None:
        """Add a number of a round."""
        run = self._run
        self.results.append(
            Result(
                task=run.task,
                protocol=run.protocol,
                method=run.method,
                site=site,
                structure=structure,
                prompt=prompt,
                seed=run.seed,
                round=number,
                metric=metric,
                value=value,
            )
        )

    def add_image(
        self,
        metric: str,
        value: float,
        *,
        sample: TrainingSample,
        site: str,
        structure: str,
        prompt: str,
    ) -> None:
        """Add a number of one image, after the last round."""
        run = self._run
        self.images.append(
            ImageResult(
                task=run.task,
                protocol=run.protocol,
                method=run.method,
                site=site,
                structure=structure,
                prompt=prompt,
                seed=run.seed,
                image=sample.id,
                group=sample.group,
                metric=metric,
                value=value,
            )
        )

    def write(self, folder: Path) -> None:
        """Write both tables."""
        write_table(folder / "results.csv", self.results)
        write_table(folder / "images.csv", self.images)

    def read(self, folder: Path) -> None:
        """Read what was written."""
        self.results = read_results(folder / "results.csv")
        self.images = read_images(folder / "images.csv")


def write_table(path: Path, rows: Sequence[Result] | Sequence[ImageResult]) -> None:
    """Write rows as CSV in one step; values have six digits."""
    if not rows:
        return
    names = [field.name for field in fields(rows[0])]
    lines = [",".join(names)]
    for row in rows:
        values = asdict(row) | {"value": f"{row.value:.6g}"}
        lines.append(",".join(_quoted(str(values[name])) for name in names))
    write_text_atomically(path, "\n".join(lines) + "\n")


def _quoted(text: str) -> str:
    return f'"{text}"' if "," in text else text


def read_results(path: Path) -> list[Result]:
    """Read a table of results; empty when there is none.

    Raises
    ------
    ResultsError
        When the file is no such table.
    """
    return [
        Result(
            **(
                row
                | {
                    "seed": int(row["seed"]),
                    "round": int(row["round"]),
                    "value": float(row["value"]),
                }
            )
        )
        for row in _rows(path)
    ]


def read_images(path: Path) -> list[ImageResult]:
    """Read a table of images; see `read_results`."""
    return [
        ImageResult(**(row | {"seed": int(row["seed"]), "value": float(row["value"])}))
        for row in _rows(path)
    ]


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            return list(csv.DictReader(handle))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(
            f"The results {path} cannot be read: run the benchmark again."
        ) from error


def collect(folder: Path) -> tuple[list[Result], list[ImageResult]]:
    """Return the results of every finished run under a benchmark's folder."""
    results: list[Result] = []
    images: list[ImageResult] = []
    for done in sorted(folder.glob("runs/*/*/done.json")):
        results += read_results(done.parent / "results.csv")
        images += read_images(done.parent / "images.csv")
    return results, images


def finished(folder: Path) -> bool:
    """Whether a run's folder holds complete results."""
    return (folder / "done.json").exists()


def mark_finished(folder: Path, facts: dict[str, Any]) -> None:
    """Say that a run's results are complete."""
    write_text_atomically(folder / "done.json", json.dumps(facts, indent=2) + "\n")
