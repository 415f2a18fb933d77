"""Results of a benchmark as tables on disk."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from napari_fedsam.app.benchmark.experiment import Run
from napari_fedsam.app.output_files import ready_folder
from napari_fedsam.errors import FedSamError
from napari_fedsam.files import write_text_atomically
from napari_fedsam.training.samples import TrainingSample

_RESULTS = "results.csv"
_IMAGES = "images.csv"
_RUNS = "runs.json"

FURTHER_DATA = "further_data"
"""Protocol of what the final models of a run did on data of none of its sites."""


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


_Row = TypeVar("_Row", Result, ImageResult)


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
        protocol: str = "",
    ) -> None:
        """Add a number of a round, by default under the run's own protocol."""
        run = self._run
        self.results.append(
            Result(
                task=run.task,
                protocol=protocol or run.protocol,
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
        write_table(folder / _RESULTS, self.results)
        write_table(folder / _IMAGES, self.images)

    def read(self, folder: Path, *, rounds: int) -> None:
        """Read what was written of the first `rounds` rounds."""
        rows = read_table(folder / _RESULTS, Result)
        self.results = [row for row in rows if row.round <= rounds]
        self.images = read_table(folder / _IMAGES, ImageResult)


class ResultsFolder:
    """The finished runs of a benchmark, in three files that belong into version control.

    Parameters
    ----------
    folder : Path
        Created when missing. What is being computed lies beside the results, ignored by git.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ready_folder(folder)
        write_text_atomically(folder / ".gitignore", "/cache/\n/models/\n/unfinished/\n/.lock\n")
        self._lock = FileLock(folder / ".lock")

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """What is known of each finished run, by its name."""
        try:
            known: dict[str, dict[str, Any]] = json.loads(
                (self._folder / _RUNS).read_text(encoding="utf-8")
            )
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ResultsError(
                f"{self._folder / _RUNS} is damaged: restore it, or start a new folder."
            ) from error
        return known

    def tables(self) -> tuple[list[Result], list[ImageResult]]:
        """Return the numbers of all finished runs."""
        return (
            read_table(self._folder / _RESULTS, Result),
            read_table(self._folder / _IMAGES, ImageResult),
        )

    def of(self, run: Run) -> tuple[list[Result], list[ImageResult]]:
        """Return the numbers of one finished run."""
        results, images = self.tables()
        return [r for r in results if _is_of(r, run)], [r for r in images if _is_of(r, run)]

    def add(self, run: Run, tables: RunTables, facts: dict[str, Any]) -> None:
        """Keep a finished run; an earlier one of that name is replaced."""
        with self._lock:
            results, images = self.tables()
            results = [row for row in results if not _is_of(row, run)] + tables.results
            images = [row for row in images if not _is_of(row, run)] + tables.images
            write_table(self._folder / _RESULTS, results)
            write_table(self._folder / _IMAGES, images)
            runs = self.runs | {run.name: facts}
            text = json.dumps(dict(sorted(runs.items())), indent=1)
            write_text_atomically(self._folder / _RUNS, text + "\n")


def _is_of(row: Result | ImageResult, run: Run) -> bool:
    own = {run.protocol} | ({FURTHER_DATA} if run.protocol == "in_federation" else set())
    same = (row.task, row.method, row.seed) == (run.task, run.method, run.seed)
    same = same and row.protocol in own
    # Runs that leave a site out have rows of that site alone.
    return same and (not run.unseen or row.site == run.unseen)


def write_table(path: Path, rows: Sequence[Result] | Sequence[ImageResult]) -> None:
    """Write rows as CSV in one step; values have six digits."""
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(rows[0])], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(asdict(row) | {"value": f"{row.value:.6g}"})
    write_text_atomically(path, text.getvalue())


def read_table(path: Path, kind: type[_Row]) -> list[_Row]:
    """Read a table; empty when there is none.

    Raises
    ------
    ResultsError
        When the file is no such table.
    """
    numbers = {"seed": int, "round": int, "value": float}
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            return [
                kind(**{name: numbers.get(name, str)(value) for name, value in row.items()})
                for row in csv.DictReader(handle)
            ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ResultsError(
            f"The results {path} cannot be read: restore the file, or start a new folder."
        ) from error
