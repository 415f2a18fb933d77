"""What the report says of hand-made results."""

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_fedsam.app.benchmark.experiment import Run
from napari_fedsam.app.benchmark.figures import _styles, _with_hollow
from napari_fedsam.app.benchmark.measuring import _measured, distance_unit
from napari_fedsam.app.benchmark.report import _units, write_report
from napari_fedsam.app.benchmark.results import ResultsFolder, RunTables
from napari_fedsam.training.samples import TrainingSample

GROUPS = 6


def add(
    folder: ResultsFolder,
    method: str,
    dice: dict[str, float | None],
    clicks: float = 5,
    seed: int = 0,
    unseen: str = "",
) -> None:
    """Add a run with the same Dice for every image of a site; None where it proposes nothing."""
    protocol = "unseen_site" if unseen else "in_federation"
    run = Run(task="polyp", method=method, seed=seed, protocol=protocol, unseen=unseen)
    tables = RunTables(run)
    # A round that was interrupted, and two that were not.
    for number, seconds in enumerate((40, 1000, 42)):
        tables.add("seconds", seconds, number=number, site=unseen)
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
        "- clicks to Dice 0.90, pfedsam against base: -50 % in all (polyp -50 %)",
        "- clicks to Dice 0.90, pfedsam against lora_fedavg: -20 % in all (polyp -20 %)",
        f"| polyp | north | {GROUPS} | +10.0 | +10.0 to +10.0 | not below |",
        f"| polyp | south | {GROUPS} | -10.0 | -10.0 to -10.0 | below |",
    ],
)
def test_what_the_numbers_show_is_said(page: str, line: str) -> None:
    assert line in page


def test_methods_are_compared_over_the_seeds_that_both_have(tmp_path) -> None:
    folder = ResultsFolder(tmp_path / "tables")
    add(folder, "base", {"north": None}, clicks=8)
    for seed, dice in enumerate((0.6, 0.9)):
        add(folder, "pfedsam", {"north": dice}, clicks=4 - 2 * seed, seed=seed)
    add(folder, "local", {"north": 0.7})
    add(folder, "lora_fedavg", {"north": 0.8}, seed=1, clicks=4)
    write_report(tmp_path / "tables", tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    for line in (
        "- pfedsam minus local: -10.0 points over polyp",
        "- pfedsam minus lora_fedavg: +10.0 points over polyp",
        "pfedsam against base: -50 % in all (polyp -50 %)",
        "pfedsam against lora_fedavg: -50 % in all (polyp -50 %)",
        f"| polyp | north | {GROUPS} | -10.0 | -10.0 to -10.0 | below |",
        "| pfedsam | 0.750 ± 0.212 | 0.750 |",
        "| local | 0.700¹ | 0.700 |",
        "| polyp | north | - | 0.750 ± 0.212 | 0.700¹ | 0.800¹ |",
        "¹ One seed.",
    ):
        assert line in text


def test_a_seed_is_not_marked_where_no_method_has_more(page: str) -> None:
    assert "¹" not in page


def test_markers_are_hollow_where_other_methods_have_more_seeds(tmp_path) -> None:
    folder = ResultsFolder(tmp_path / "tables")
    for seed in (0, 1):
        add(folder, "pfedsam", {"north": 0.9}, seed=seed)
    add(folder, "local", {"north": 0.8})
    results = folder.tables()[0]
    drawn = _with_hollow(_styles(results), results)
    assert {method: style["fillstyle"] for method, style in drawn.items()} == {
        "pfedsam": "full",
        "local": "none",
    }


def test_what_pools_the_images_does_not_pass_for_costing_nothing(page: str) -> None:
    assert "| centralised_fedmsa | all images | all images | 42 |" in page
    assert "| local | 0 | 0 | 42 |" in page


def test_a_pause_does_not_count_as_training(page: str) -> None:
    assert "| pfedsam | 0 | 0 | 42 |" in page


def test_every_method_that_proposes_is_drawn_in_its_own_way(tmp_path) -> None:
    folder = ResultsFolder(tmp_path / "tables")
    add(folder, "base", {"north": None})
    for number in range(14):
        add(folder, f"method {number}", {"north": 0.5})
    styles = _styles(folder.tables()[0])
    assert list(styles) == [f"method {number}" for number in range(14)]
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == 14


def test_sites_that_took_no_part_have_tables_of_their_own(tmp_path) -> None:
    folder = ResultsFolder(tmp_path / "tables")
    add(folder, "pfedsam", {"north": 0.9, "south": 0.7})
    add(folder, "pfedsam", {"north": 0.6}, unseen="north")
    add(folder, "pfedsam", {"south": 0.5}, unseen="south")
    write_report(tmp_path / "tables", tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    inside, outside = text.split("## A site that took no part", maxsplit=1)
    assert "| pfedsam | 0.800 | 0.800 |" in inside
    assert "| polyp | north | 0.900 |" in inside
    assert "| pfedsam | 0.550 | 0.550 |" in outside
    assert "| polyp | north | 0.600 |" in outside


@pytest.mark.parametrize(
    ("units", "sentence"),
    [
        (("pixels", "pixels"), "Distances are in pixels."),
        (("mm", "mm"), "Distances are in millimetres."),
        (("pixels", "mm"), "in pixels, but in millimetres for heart."),
        ((None, None), "Distances are in pixels."),
    ],
)
def test_the_unit_of_distances_is_told(units, sentence) -> None:
    runs = {
        task: {"run": {"task": task, "recipe": {}}} | ({"distances": unit} if unit else {})
        for task, unit in zip(("polyp", "heart"), units, strict=True)
    }
    # The base model has no outlines.
    runs["base"] = {"run": {"task": "polyp"}, "distances": "pixels"}
    assert sentence in _units(runs)


def test_outlines_are_compared_in_millimetres_where_all_images_tell() -> None:
    truth, shifted = np.zeros((2, 30, 30), np.bool_)
    truth[5:20, 5:20] = shifted[5:20, 9:24] = True
    picture = TrainingSample("a", "a", None, truth, 1)
    scan = replace(picture, spacing=(1.0, 0.5))
    assert distance_unit([scan, picture]) == "pixels"
    assert distance_unit([scan, scan]) == "mm"
    found = [dict(_measured(shifted, scan, unit)) for unit in ("pixels", "mm", None)]
    assert found[0]["hd95"] == pytest.approx(2 * found[1]["hd95"])
    assert found[2].keys() == {"dice"}
