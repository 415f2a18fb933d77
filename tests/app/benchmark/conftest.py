"""A tiny task of two sites on disk, and runs of the benchmark on it."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.supercore.logger import FLOWER_LOGGER
from PIL import Image

from napari_fedsam.app.benchmark.experiment import ExperimentConfig
from napari_fedsam.app.benchmark.results import ResultsFolder
from napari_fedsam.app.benchmark.runs import run_benchmark

# Flower logs its mapping-like records as lone arguments, which logging cannot format; elsewhere
# that is a line on standard error, pytest's handler makes it an exception.
FLOWER_LOGGER.setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> Path:
    """Bright discs; the second site's are darker."""
    folder = tmp_path_factory.mktemp("task")
    rows = ["task,site,split,image,mask,group"]
    random = np.random.default_rng(5)
    y, x = np.mgrid[:48, :64]
    for site, level in (("north", 180), ("south", 120)):
        for split, count in (("train", 2), ("test", 2)):
            for number in range(count):
                name = f"{site}-{split}-{number}"
                centre = random.integers(14, 34, 2)
                disc = (x - centre[0] - 8) ** 2 + (y - centre[1]) ** 2 < 110
                pixels = random.integers(0, 60, disc.shape) + level * disc
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
                Image.fromarray((255 * disc).astype(np.uint8)).save(folder / f"{name}-mask.png")
                rows.append(f"disc,{site},{split},{name}.png,{name}-mask.png,{name}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def quick() -> ExperimentConfig:
    return ExperimentConfig(training={"epochs": 1, "augmentations": 0, "batch_size": 1})


@pytest.fixture(scope="session")
def run(quick: ExperimentConfig) -> Callable[..., ResultsFolder]:
    """Run the benchmark without Flower, quickly and silently, or with the options given."""

    def run(
        manifest: Path,
        out: Path,
        methods: tuple[str, ...] = ("lora_fedavg",),
        task: str = "disc",
        **changes: Any,
    ) -> ResultsFolder:
        options: dict[str, Any] = {
            "rounds": 2,
            "seeds": [0],
            "protocol": "in_federation",
            "config": quick,
            "train_images": None,
            "split": "test",
            "clicks": False,
            "engine": "direct",
            "device": "cpu",
            "tell": lambda _line: None,
        }
        run_benchmark(manifest, [task], methods, out, **(options | changes))
        return ResultsFolder(out)

    return run


Values = dict[tuple[str, str, int], float]


@pytest.fixture(scope="session")
def values() -> Callable[..., Values]:
    """Return a metric by method, site and round, of the rows that `which` describes."""

    def values(folder: ResultsFolder, metric: str, **which: Any) -> Values:
        return {
            (row.method, row.site, row.round): row.value
            for row in folder.tables()[0]
            if row.metric == metric and all(getattr(row, k) == v for k, v in which.items())
        }

    return values


@pytest.fixture(scope="session")
def done(
    run: Callable[..., ResultsFolder], manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> ResultsFolder:
    """A finished run of two methods; change copies of it only."""
    return run(
        manifest,
        tmp_path_factory.mktemp("bench"),
        ("lora_fedavg", "local"),
        clicks=True,
        further_data=manifest,
        save_models=True,
    )
