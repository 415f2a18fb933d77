"""Runs of the federated benchmark: their numbers, their resume, and every engine alike."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from napari_fedsam.app.benchmark import federated
from napari_fedsam.app.benchmark.experiment import ExperimentConfig
from napari_fedsam.app.benchmark.results import ResultsError, ResultsFolder
from napari_fedsam.app.benchmark.run_settings import check_same
from napari_fedsam.app.benchmark.run_state import load_state
from napari_fedsam.app.benchmark.runs import run_benchmark
from napari_fedsam.app.cli import app
from napari_fedsam.errors import FedSamError
from napari_fedsam.training.errors import ManifestError

QUICK = ExperimentConfig(training={"epochs": 1, "augmentations": 0, "batch_size": 1})


def run(manifest, out, methods=("lora_fedavg",), **changes):
    options = {
        "rounds": 2,
        "seeds": [0],
        "protocol": "in_federation",
        "config": QUICK,
        "train_images": None,
        "split": "test",
        "clicks": False,
        "engine": "direct",
        "device": "cpu",
        "tell": lambda _line: None,
    }
    run_benchmark(manifest, ["disc"], methods, out, **(options | changes))
    return ResultsFolder(out)


def values(folder, metric, **which):
    return {
        (row.method, row.site, row.round): row.value
        for row in folder.tables()[0]
        if row.metric == metric and all(getattr(row, k) == v for k, v in which.items())
    }


@pytest.fixture(scope="module")
def done(manifest, tmp_path_factory):
    return run(
        manifest,
        tmp_path_factory.mktemp("bench"),
        ("lora_fedavg", "local"),
        clicks=True,
        further_data=manifest,
        save_models=True,
    )


def test_every_site_round_and_prompt_is_measured(done) -> None:
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


def test_only_what_is_exchanged_costs_bytes(done) -> None:
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


def test_clicks_are_counted_per_image(done) -> None:
    counts = values(done, "noc90", prompt="clicks")
    assert counts
    assert all(0 <= count <= 10 for count in counts.values())
    images = [row for row in done.tables()[1] if row.metric == "noc90"]
    assert len({row.image for row in images}) == 4


def test_final_models_are_tried_on_further_data_and_kept(done, manifest, tmp_path) -> None:
    own = values(done, "dice", prompt="none", protocol="in_federation")
    further = values(done, "dice", prompt="none", protocol="further_data")
    assert {site for _, site, _ in further} == {
        f"{data} by {site}" for data in ("north", "south") for site in ("north", "south")
    }
    # Here the further data are the sites' own.
    assert further["local", "south by south", 2] == own["local", "south", 2]
    kept = done._folder / "models" / "disc-local-seed0" / "south"
    report = tmp_path / "eval.json"
    arguments = ["--task", "disc", "--site", "south", "--prompt", "none", "--model", str(kept)]
    ran = CliRunner().invoke(
        app, ["evaluate", "--data", str(manifest), *arguments, "--out", str(report)]
    )
    assert ran.exit_code == 0, ran.output
    mean = json.loads(report.read_text())["sites"]["south"]["mean_dice"]
    assert mean == pytest.approx(own["local", "south", 2], abs=5e-3)


def test_the_facts_of_a_run_are_kept(done) -> None:
    facts = done.runs["disc-lora_fedavg-seed0"]
    assert facts["run"]["recipe"]["rounds"] == 2
    assert facts["train_images"] == {"north": 1, "south": 1}
    assert facts["environment"]["torch"]


def test_a_finished_run_is_not_run_again(done, manifest, tmp_path, monkeypatch) -> None:
    folder = done._folder

    def never(*_args, **_kwargs):
        raise AssertionError("run again")

    monkeypatch.setattr(federated.FederatedRun, "execute", never)
    run(manifest, folder, ("lora_fedavg", "local"))


def test_an_interrupted_run_goes_on_with_the_same_numbers(manifest, tmp_path, done) -> None:
    told = []

    def interrupt(line):
        told.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(manifest, tmp_path, tell=interrupt)
    assert len(told) == 1
    assert "round 1" in told[0]
    resumed = run(manifest, tmp_path, tell=told.append)
    assert len(told) == 2
    assert "round 2" in told[1]
    measured = values(done, "dice", prompt="none", protocol="in_federation")
    expected = {key: value for key, value in measured.items() if key[0] != "local"}
    assert values(resumed, "dice", prompt="none") == expected
    assert not (tmp_path / "unfinished" / "disc-lora_fedavg-seed0").exists()


def test_other_images_are_other_settings(done, manifest) -> None:
    text = manifest.read_text()
    other = manifest.with_name("other.csv")
    other.write_text(text.replace(",south-test-1\n", ",south-test-0\n"))
    with pytest.raises(FedSamError, match="other settings .data is "):
        run(other, done._folder, ("local",))


def test_a_run_that_does_not_tell_its_settings_is_begun_anew(tmp_path) -> None:
    save_file({"shared/a/w": torch.zeros(1)}, tmp_path / "state.safetensors", {"round": "1"})
    with pytest.raises(ResultsError, match="--no-resume"):
        load_state(tmp_path, {"shared": {}}, {}, "disc")


def test_what_is_missing_in_a_kept_recipe_is_another_setting() -> None:
    kept, given = {"run": {"a": 1}}, {"run": {"a": 1, "b": None}, "data": "x"}
    with pytest.raises(ResultsError, match=r"run\.b is missing there and null here"):
        check_same(kept, given, "It", "leave it")
    check_same({"run": given["run"]}, given, "It", "leave it")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"split": "val"}, '"test" there and "val" here'),
        ({"rounds": 3}, "recipe.rounds is 2 there and 3 here"),
        (
            {"config": QUICK.model_copy(update={"training": {"epochs": 2}})},
            "training.augmentations",
        ),
    ],
)
def test_runs_of_other_settings_are_not_taken_for_the_same(
    done, manifest, changes, difference
) -> None:
    before = done._folder.joinpath("results.csv").read_bytes()
    for method in ("local", "lora_fedavg"):
        with pytest.raises(FedSamError, match=f"finished run disc-{method}-seed0") as caught:
            run(manifest, done._folder, (method,), **changes)
        assert difference in str(caught.value)
    assert done._folder.joinpath("results.csv").read_bytes() == before


def test_an_interrupted_run_is_not_gone_on_with_under_other_settings(manifest, tmp_path) -> None:
    def interrupt(_line):
        raise KeyboardInterrupt

    for precision in ("int8", "float16"):
        config = ExperimentConfig.model_validate(
            QUICK.model_dump()
            | {"methods": {"lora_fedavg": {"federation": {"precision": precision}}}}
        )
        expected = KeyboardInterrupt if precision == "int8" else FedSamError
        with pytest.raises(expected) as caught:
            run(manifest, tmp_path, config=config, tell=interrupt)
    assert "federation.precision" in str(caught.value)
    assert "--no-resume" in str(caught.value)


def test_what_rounding_lost_outlives_an_interruption(manifest, tmp_path) -> None:
    config = ExperimentConfig.model_validate(
        QUICK.model_dump() | {"methods": {"lora_fedavg": {"federation": {"precision": "int8"}}}}
    )

    def interrupt(_line):
        raise KeyboardInterrupt

    whole = run(manifest, tmp_path / "whole", config=config, save_models=True)
    with pytest.raises(KeyboardInterrupt):
        run(manifest, tmp_path / "parts", config=config, tell=interrupt, save_models=True)
    parts = run(manifest, tmp_path / "parts", config=config, save_models=True)
    kept = [
        next((folder._folder / "models" / "disc-lora_fedavg-seed0").rglob("shared*.safetensors"))
        for folder in (whole, parts)
    ]
    first, second = (load_file(path) for path in kept)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("engine", ["direct", "inprocess"])
def test_an_interrupted_run_begins_anew_when_told(manifest, tmp_path, engine) -> None:
    told = []

    def interrupt(line):
        told.append(line)
        raise KeyboardInterrupt

    for resume in (True, False):
        with pytest.raises(KeyboardInterrupt):
            run(manifest, tmp_path, tell=interrupt, resume=resume, engine=engine)
    assert ["round 1" in line for line in told] == [True, True]


def test_the_base_model_is_measured_without_training(manifest, tmp_path) -> None:
    folder = run(manifest, tmp_path, ("base",), clicks=True)
    rows, images = folder.tables()
    assert {(row.metric, row.prompt) for row in rows} == {
        *(("dice", "box"), ("dice", "point")),
        *(("noc85", "clicks"), ("noc90", "clicks")),
    }
    assert {row.site for row in rows} == {"north", "south"}
    assert min(values(folder, "dice", prompt="box").values()) > 0.5
    assert len({row.image for row in images}) == 4


def test_measuring_the_base_model_again_keeps_the_clicks(manifest, tmp_path) -> None:
    folder = run(manifest, tmp_path, ("base",), clicks=True)
    before = [sorted(map(repr, table)) for table in folder.tables()]
    run(manifest, tmp_path, ("base",), again=True)
    assert [sorted(map(repr, table)) for table in folder.tables()] == before


def test_an_unseen_site_is_measured_and_not_trained_on(manifest, tmp_path) -> None:
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


def test_a_variant_is_a_method_with_other_options(manifest, tmp_path) -> None:
    config = QUICK.model_copy(
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
def test_the_apps_give_the_same_numbers_as_the_plain_loop(manifest, tmp_path, method) -> None:
    # In the second round sites go on from what they have judged in the first.
    direct = run(manifest, tmp_path / "direct", (method,), rounds=2)
    through = run(manifest, tmp_path / "apps", (method,), rounds=2, engine="inprocess")
    assert same_dice(direct, through)


def test_a_round_that_the_apps_had_averaged_is_not_repeated(manifest, tmp_path) -> None:
    def interrupt(*_args):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federated.FederatedRun, "_measure_prompts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(manifest, tmp_path, engine="inprocess")
    with pytest.raises(FedSamError, match="Round 1 was interrupted.*--no-resume"):
        run(manifest, tmp_path, engine="inprocess")


def test_ray_gives_the_same_numbers_as_the_plain_loop(manifest, tmp_path) -> None:
    pytest.importorskip("ray", reason="Flower's simulation is not installed")
    config = tmp_path / "config.json"
    config.write_text(QUICK.model_dump_json(), encoding="utf-8")
    # A program of its own: Ray and Flower leave threads behind.
    command = [
        *(sys.executable, "-m", "napari_fedsam.app", "benchmark", "federated"),
        *("--data", str(manifest), "--task", "disc", "--methods", "pfedsam", "--rounds", "1"),
        *("--config", str(config), "--engine", "simulation", "--out", str(tmp_path / "ray")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    direct = run(manifest, tmp_path / "direct", ("pfedsam",), rounds=1)
    assert same_dice(direct, ResultsFolder(tmp_path / "ray"))


def same_dice(one: ResultsFolder, other: ResultsFolder) -> bool:
    first, second = (values(folder, "dice") for folder in (one, other))
    assert first.keys() == second.keys()
    return all(second[key] == pytest.approx(value, abs=2e-3) for key, value in first.items())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": ("magic",)}, "no method named 'magic'"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"config": ExperimentConfig(training={"epochs": -1})}, "wrong at training.epochs"),
        ({"engine": "inprocess", "methods": ("local",)}, "exchanges nothing"),
    ],
)
def test_what_cannot_be_run_is_told(manifest, tmp_path, changes, sentence) -> None:
    methods = changes.pop("methods", ("pfedsam",))
    with pytest.raises(FedSamError, match=sentence):
        run(manifest, tmp_path, methods, **changes)


def test_an_unknown_task_is_told(manifest, tmp_path) -> None:
    with pytest.raises(ManifestError, match="has no rows for liver"):
        run_benchmark(
            manifest, ["liver"], ["local"], tmp_path, rounds=1, seeds=[0],
            protocol="in_federation", config=QUICK, train_images=None, split="test",
            clicks=False, engine="direct", device="cpu", tell=print,
        )  # fmt: skip


def test_a_broken_configuration_is_told(tmp_path) -> None:
    (tmp_path / "c.json").write_text('{"training": 3}', encoding="utf-8")
    with pytest.raises(FedSamError, match=r"c\.json is wrong at training"):
        ExperimentConfig.read(tmp_path / "c.json")
    with pytest.raises(FedSamError, match="cannot be read"):
        ExperimentConfig.read(tmp_path / "gone.json")


def test_the_report_is_made_from_the_tables(done, tmp_path) -> None:
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
    assert sent[0] > 6 * sent[1] > 6 * sent[2] > 0


def test_kept_models_are_measured_again_without_training(done, manifest, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done._folder, folder)
    before = ResultsFolder(folder)
    rows = before.tables()
    # As if boxes had been answered worse when it was measured first.
    table = (folder / "results.csv").read_text()
    changed = re.sub(r"(,local,.*,box,0,2,dice,)[0-9.]+", r"\g<1>0.1", table)
    assert changed != table
    (folder / "results.csv").write_text(changed)
    told = []
    run(
        manifest,
        folder,
        ("local",),
        clicks=True,
        further_data=manifest,
        again=True,
        tell=told.append,
    )
    assert told == ["disc-local-seed0 measured again"]
    after = ResultsFolder(folder)
    assert sorted(map(repr, after.tables()[0])) == sorted(map(repr, rows[0]))
    assert sorted(map(repr, after.tables()[1])) == sorted(map(repr, rows[1]))
    run(manifest, folder, ("local",), again=True)
    # What is not measured now stays as it was.
    assert sorted(map(repr, after.tables()[0])) == sorted(map(repr, rows[0]))
    assert sorted(map(repr, after.tables()[1])) == sorted(map(repr, rows[1]))
    assert after.runs["disc-local-seed0"]["seconds"] == before.runs["disc-local-seed0"]["seconds"]


def test_models_that_were_not_kept_cannot_be_measured_again(done, manifest, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done._folder, folder, ignore=shutil.ignore_patterns("models"))
    with pytest.raises(FedSamError, match="--save-models"):
        run(manifest, folder, ("lora_fedavg",), again=True)
