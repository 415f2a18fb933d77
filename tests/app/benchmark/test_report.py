"""What the report says of hand-made results."""

import json

import pytest

from napari_fedsam.app.benchmark.experiment import Run
from napari_fedsam.app.benchmark.report import write_report
from napari_fedsam.app.benchmark.results import ResultsFolder, RunTables
from napari_fedsam.training.samples import TrainingSample

GROUPS = 6


def add(
    folder: ResultsFolder, method: str, dice: dict[str, float | None], clicks: float = 5
) -> None:
    """Add a run with the same Dice for every image of a site; None where it proposes nothing."""
    run = Run(task="polyp", method=method)
    tables = RunTables(run)
    for site, value in dice.items():
        tables.add("noc90", clicks, number=2, site=site, structure="polyp", prompt="clicks")
        if value is None:
            continue
        tables.add("dice", value, number=2, site=site, structure="polyp", prompt="none")
        for number in range(GROUPS):
            sample = TrainingSample(f"{site} {number}", f"{site} {number}", None, None, 1)
            tables.add_image(
                "dice", value, sample=sample, site=site, structure="polyp", prompt="none"
            )
    facts = {
        "run": json.loads(run.model_dump_json()),
        "split": "test",
        "environment": {"torch": "2"},
        "seconds": 1.0,
        "train_images": {},
    }
    folder.add(run, tables, facts)


@pytest.fixture
def page(tmp_path) -> str:
    folder = ResultsFolder(tmp_path / "tables")
    add(folder, "base", {"north": None, "south": None}, clicks=8)
    add(folder, "pfedsam", {"north": 0.9, "south": 0.7}, clicks=4)
    add(folder, "fedmsa", {"north": 0.8, "south": 0.7}, clicks=4)
    add(folder, "centralised_fedmsa", {"north": 0.81, "south": 0.71})
    add(folder, "lora_fedavg", {"north": 0.85, "south": 0.65}, clicks=5)
    add(folder, "local", {"north": 0.8, "south": 0.8})
    write_report(tmp_path / "tables", tmp_path / "page.md")
    return (tmp_path / "page.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "line",
    [
        "The recipe of every run is in `tables/runs.json`.",
        "- pfedsam minus fedmsa: +5.0 points over polyp",
        "- pfedsam minus local: +0.0 points over polyp",
        "- fedmsa minus centralised_fedmsa: -1.0 points over polyp",
        "- clicks to Dice 0.90, pfedsam against base: -50 % over polyp",
        "- clicks to Dice 0.90, pfedsam against lora_fedavg: -20 % over polyp",
        f"| polyp | north | {GROUPS} | +10.0 | +10.0 to +10.0 | not below |",
        f"| polyp | south | {GROUPS} | -10.0 | -10.0 to -10.0 | below |",
    ],
)
def test_what_the_numbers_show_is_said(page: str, line: str) -> None:
    assert line in page
