"""Runs of the federated benchmark: their numbers, and every engine alike."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from napari_fedsam.app.benchmark import runs
from napari_fedsam.app.benchmark.experiment import ExperimentConfig, Run
from napari_fedsam.app.benchmark.federated import FederatedRun
from napari_fedsam.app.benchmark.results import ResultsFolder, RunTables
from napari_fedsam.app.cli import app
from napari_fedsam.errors import FedSamError
from napari_fedsam.training.errors import ManifestError


def test_every_site_round_and_prompt_is_measured(values, done) -> None:
    proposals = values(done, "dice", prompt="none", protocol="in_federation")
    assert set(proposals) == {
        (method, site, number)
        for method in ("lora_fedavg", "local")
        for site in ("north", "south")
        for number in (1, 2)
    }
    assert all(0 <= value <= 1 for value in proposals.values())
    boxes = values(done, "dice", prompt="box", protocol="in_federation")
    assert {number for _, _, number in boxes} == {2}
    assert min(boxes.values()) > 0.5
    assert set(values(done, "hd95")) == set(boxes) == set(values(done, "surface_dice"))


def test_only_what_is_exchanged_costs_bytes(values, done) -> None:
    sent = values(done, "bytes_up")
    assert {method for method, _, _ in sent} == {"lora_fedavg"}
    # The decoder and the rest in float32, hardly compressible.
    assert all(14e6 < size < 18e6 for size in sent.values())
    # To be trained on and judged; later, what was judged is trained on.
    received = values(done, "bytes_down")
    expected = {1: 2.0, 2: 1.0}
    assert {number for _, _, number in sent} == set(expected)
    for (method, site, number), size in sent.items():
        assert received[method, site, number] / size == pytest.approx(expected[number], rel=0.01)


def test_clicks_are_counted_per_image(values, done) -> None:
    counts = values(done, "noc90", prompt="clicks")
    assert counts
    assert all(0 <= count <= 10 for count in counts.values())
    images = [row for row in done.tables()[1] if row.metric == "noc90"]
    assert len({row.image for row in images}) == 4


def test_final_models_are_tried_on_further_data_and_kept(values, done, manifest, tmp_path) -> None:
    own = values(done, "dice", prompt="none", protocol="in_federation")
    further = values(done, "dice", prompt="none", protocol="further_data")
    assert {site for _, site, _ in further} == {
        f"{data} by {site}" for data in ("north", "south") for site in ("north", "south")
    }
    # Here the further data are the sites' own.
    assert further["local", "south by south", 2] == own["local", "south", 2]
    kept = done._folder / "models" / "disc-local-seed0" / "south"
    report = tmp_path / "eval.json"
    boxes = values(done, "dice", prompt="box", protocol="in_federation")
    # What a model of few steps proposes hangs on bfloat16's rounding, which boxes do not.
    for prompt, expected, bound in (("none", own, 2e-2), ("box", boxes, 1e-3)):
        arguments = ["--task", "disc", "--site", "south", "--prompt", prompt, "--model", str(kept)]
        ran = CliRunner().invoke(
            app, ["evaluate", "--data", str(manifest), *arguments, "--out", str(report)]
        )
        assert ran.exit_code == 0, ran.output
        mean = json.loads(report.read_text())["sites"]["south"]["mean_dice"]
        assert mean == pytest.approx(expected["local", "south", 2], abs=bound)


def test_the_facts_of_a_run_are_kept(done) -> None:
    facts = done.runs["disc-lora_fedavg-seed0"]
    assert facts["run"]["recipe"]["rounds"] == 2
    assert facts["train_images"] == {"north": 1, "south": 1}
    assert facts["environment"]["torch"]


def test_the_base_model_is_measured_without_training(run, values, manifest, tmp_path) -> None:
    folder = run(manifest, tmp_path, ("base",), clicks=True)
    rows, images = folder.tables()
    assert {(row.metric, row.prompt) for row in rows} == {
        *(("dice", "box"), ("dice", "point")),
        *(("noc85", "clicks"), ("noc90", "clicks")),
    }
    assert {row.site for row in rows} == {"north", "south"}
    assert min(values(folder, "dice", prompt="box").values()) > 0.5
    assert len({row.image for row in images}) == 4


def test_the_line_of_a_round_has_the_mean_of_all_structures() -> None:
    run = Run(task="disc", method="local", seed=3)
    tables = RunTables(run)
    for structure, (before, now) in {"disc": (0.1, 0.9), "cup": (0.2, 0.5)}.items():
        for number, value in enumerate((before, now), start=1):
            kind = {"site": "north", "structure": structure, "prompt": "none"}
            tables.add("dice", value, number=number, **kind)
    line = FederatedRun._line(SimpleNamespace(tables=tables, run=run), 2, 60.4)
    assert line == "disc-local-seed3 round 2: north 0.700  (60 s)"


def test_an_unseen_site_is_measured_and_not_trained_on(run, values, manifest, tmp_path) -> None:
    folder = run(manifest, tmp_path, ("pfedsam",), protocol="unseen_site", rounds=1)
    assert set(folder.runs) == {
        "disc-pfedsam-without-north-seed0",
        "disc-pfedsam-without-south-seed0",
    }
    for name, facts in folder.runs.items():
        assert list(facts["train_images"]) != list(facts["measured_images"])
        assert facts["run"]["unseen"] in name
    assert {site for _, site, _ in values(folder, "dice", prompt="none")} == {"north", "south"}
    # What belongs to a run has its site, so that runs do not take each other's rows.
    assert {row.site for row in folder.tables()[0]} == {"north", "south"}
    assert len(values(folder, "seconds")) == 2


def test_a_variant_is_a_method_with_other_options(quick, run, manifest, tmp_path) -> None:
    config = quick.model_copy(
        update={
            "methods": ExperimentConfig.model_validate(
                {
                    "methods": {
                        "frozen_decoder": {"method": "pfedsam", "options": {"decoder": "frozen"}}
                    }
                }
            ).methods
        }
    )
    folder = run(manifest, tmp_path, ("frozen_decoder",), config=config, rounds=1)
    recipe = folder.runs["disc-frozen_decoder-seed0"]["run"]["recipe"]
    assert (recipe["method"], recipe["options"]["decoder"]) == ("pfedsam", "frozen")


@pytest.mark.parametrize("method", ["pfedsam", "fedsca"])
def test_the_apps_give_the_same_numbers_as_the_plain_loop(
    run, values, manifest, tmp_path, method
) -> None:
    # In the second round sites go on from what they have judged in the first.
    direct = run(manifest, tmp_path / "direct", (method,), rounds=2)
    through = run(manifest, tmp_path / "apps", (method,), rounds=2, engine="inprocess")
    assert values(through, "dice") == pytest.approx(values(direct, "dice"), abs=2e-3)


def test_ray_gives_the_same_numbers_as_the_plain_loop(
    quick, run, values, manifest, tmp_path
) -> None:
    pytest.importorskip("ray", reason="Flower's simulation is not installed")
    config = tmp_path / "config.json"
    config.write_text(quick.model_dump_json(), encoding="utf-8")
    # A program of its own: Ray and Flower leave threads behind.
    command = [
        *(sys.executable, "-m", "napari_fedsam.app", "benchmark", "federated"),
        *("--data", str(manifest), "--task", "disc", "--methods", "pfedsam", "--rounds", "1"),
        *("--config", str(config), "--engine", "simulation", "--out", str(tmp_path / "ray")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    direct = run(manifest, tmp_path / "direct", ("pfedsam",), rounds=1)
    simulated = ResultsFolder(tmp_path / "ray")
    assert values(simulated, "dice") == pytest.approx(values(direct, "dice"), abs=2e-3)


@pytest.mark.parametrize("method", ["ditto", "pfedsam"])
def test_at_an_unseen_site_the_global_model_answers(run, manifest, tmp_path, method: str) -> None:
    """What sites have of their own begins untrained there; `run` trains for a single round."""
    seen = []

    class Watched(FederatedRun):
        def _measurement(self, model, *parts):
            seen.append((model, model.local_copies.in_place, model.detail_branch))
            return super()._measurement(model, *parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "FederatedRun", Watched)
        run(manifest, tmp_path, (method,), protocol="unseen_site", rounds=1)
    assert len(seen) == 2
    for model, own_copies, details in seen:
        assert not own_copies
        assert details is None
        # Afterwards the site's own model answers again, for the next round.
        assert model.local_copies.in_place
        assert (model.detail_branch is None) is (model.detail is None)


def test_all_recipes_are_made_before_the_first_is_run(run, manifest, tmp_path) -> None:
    with pytest.raises(FedSamError, match="no method named 'magic'"):
        run(manifest, tmp_path, ("local", "magic"))
    assert not list(tmp_path.iterdir())


def test_seeds_that_are_no_numbers_are_told(manifest, tmp_path) -> None:
    arguments = ["--data", str(manifest), "--task", "disc", "--methods", "local", "--seeds", "0,x"]
    result = CliRunner().invoke(app, ["benchmark", "federated", *arguments, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "no list of whole numbers" in result.output


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": ("magic",)}, "no method named 'magic'"),
        ({"seeds": [-1]}, "wrong at seed"),
        ({"methods": ("fedsca",), "protocol": "unseen_site"}, "none for others"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"config": ExperimentConfig(training={"epochs": -1})}, "wrong at training.epochs"),
        ({"engine": "inprocess", "methods": ("local",)}, "exchanges nothing"),
    ],
)
def test_what_cannot_be_run_is_told(run, manifest, tmp_path, changes, sentence) -> None:
    methods = changes.pop("methods", ("pfedsam",))
    with pytest.raises(FedSamError, match=sentence):
        run(manifest, tmp_path, methods, **changes)


def test_an_unknown_task_is_told(run, manifest, tmp_path) -> None:
    with pytest.raises(ManifestError, match="has no rows for liver"):
        run(manifest, tmp_path, task="liver")


def test_a_broken_configuration_is_told(tmp_path) -> None:
    (tmp_path / "c.json").write_text('{"training": 3}', encoding="utf-8")
    with pytest.raises(FedSamError, match=r"c\.json is wrong at training"):
        ExperimentConfig.read(tmp_path / "c.json")
    with pytest.raises(FedSamError, match="cannot be read"):
        ExperimentConfig.read(tmp_path / "gone.json")


def test_the_report_is_made_from_the_tables(values, done, tmp_path) -> None:
    folder = done._folder
    page = tmp_path / "page.md"
    result = CliRunner().invoke(app, ["benchmark", "report", str(folder), "--out", str(page)])
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    for heading in ("Dice without a prompt", "Cost of a round", "Clicks to Dice", "Figures"):
        assert heading in text
    own = values(done, "dice", prompt="none", protocol="in_federation", method="local", round=2)
    assert f"| local | {sum(own.values()) / 2:.3f} |" in text
    assert (folder / "figures" / "dice_per_round.png").stat().st_size > 5000


def test_an_empty_folder_has_no_report(tmp_path) -> None:
    from napari_fedsam.app.benchmark.report import write_report
    from napari_fedsam.app.benchmark.results import ResultsError

    with pytest.raises(ResultsError, match="no finished run"):
        write_report(tmp_path, tmp_path / "page.md")


def test_methods_are_listed() -> None:
    result = CliRunner().invoke(app, ["methods", "--model", "vit_b", "--json"])
    listed = {method["name"]: method for method in json.loads(result.output)}
    # FedFMS: adapters and decoder; every parameter. One structure token comes on top.
    assert listed["fedmsa"]["shared"] == 7_100_928 + 4_058_340 + 256
    assert listed["fedsam"]["shared"] == 93_735_472 + 256
    assert listed["local"]["bytes_per_round"] == 0


def test_methods_are_listed_with_another_owner_of_the_decoder() -> None:
    listed = {}
    for owner in ("shared", "lora", "local"):
        result = CliRunner().invoke(app, ["methods", "--decoder", owner, "--json"])
        listed[owner] = {method["name"]: method for method in json.loads(result.stdout)}
    # Those with a decoder of their own have no such choice.
    assert not {"fedmsa", "fedper"} & listed["lora"].keys()
    sent = [listed[owner]["pfedsam"]["bytes_per_round"] for owner in ("shared", "lora", "local")]
    assert sent[0] > 5 * sent[1] > 6 * sent[2] > 0
