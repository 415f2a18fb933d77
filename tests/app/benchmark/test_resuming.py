"""What a benchmark keeps: finished runs, interrupted ones, and models to be measured again."""

import re
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from napari_fedsam.app.benchmark import federated
from napari_fedsam.app.benchmark.experiment import ExperimentConfig
from napari_fedsam.app.benchmark.results import ResultsError, ResultsFolder
from napari_fedsam.app.benchmark.run_settings import check_same
from napari_fedsam.app.benchmark.run_state import load_state, save_state
from napari_fedsam.errors import FedSamError


def test_a_finished_run_is_not_run_again(run, done, manifest, tmp_path, monkeypatch) -> None:
    folder = done._folder

    def never(*_args, **_kwargs):
        raise AssertionError("run again")

    monkeypatch.setattr(federated.FederatedRun, "execute", never)
    run(manifest, folder, ("lora_fedavg", "local"))


def test_an_interrupted_run_goes_on_with_the_same_numbers(
    run, values, manifest, tmp_path, done
) -> None:
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


def test_other_images_are_other_settings(run, done, manifest) -> None:
    text = manifest.read_text()
    other = manifest.with_name("other.csv")
    other.write_text(text.replace(",south-test-1\n", ",south-test-0\n"))
    with pytest.raises(FedSamError, match="other settings .data is "):
        run(other, done._folder, ("local",))


def test_the_same_names_with_other_pixels_are_other_settings(run, done, manifest, tmp_path) -> None:
    for path in manifest.parent.iterdir():
        if path.suffix == ".csv":
            shutil.copy(path, tmp_path)
        else:
            picture = Image.open(path)
            picture.resize((picture.width // 2, picture.height // 2)).save(tmp_path / path.name)
    with pytest.raises(FedSamError, match="other settings .data is "):
        run(tmp_path / manifest.name, done._folder, ("local",))


def test_the_base_model_is_not_taken_for_that_of_other_images(run, manifest, tmp_path) -> None:
    run(manifest, tmp_path, ("base",))
    other = manifest.with_name("other_base.csv")
    other.write_text(manifest.read_text().replace(",south-test-1\n", ",south-test-0\n"))
    with pytest.raises(FedSamError, match="disc-base-seed0 has other settings .data is "):
        run(other, tmp_path, ("base",))
    # What others train on is nothing to it.
    run(manifest, tmp_path, ("base",), train_images=1)


def test_a_run_that_does_not_tell_its_settings_is_begun_anew(tmp_path) -> None:
    save_file({"shared/a/w": torch.zeros(1)}, tmp_path / "state.safetensors", {"round": "1"})
    with pytest.raises(ResultsError, match="--no-resume"):
        load_state(tmp_path, {"shared": {}}, {}, "disc")


def test_what_a_run_has_taken_is_kept_with_its_state(tmp_path) -> None:
    states = {"shared": {"a": {"w": torch.ones(1)}}}
    save_state(tmp_path, 2, 12.5, states, {"split": "val"})
    found = {"shared": {}}
    assert load_state(tmp_path, found, {"split": "val"}, "disc") == (2, 12.5)
    assert found == states


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
            {"config": ExperimentConfig(training={"epochs": 2})},
            "training.augmentations",
        ),
    ],
)
def test_runs_of_other_settings_are_not_taken_for_the_same(
    run, done, manifest, changes, difference
) -> None:
    before = done._folder.joinpath("results.csv").read_bytes()
    for method in ("local", "lora_fedavg"):
        with pytest.raises(FedSamError, match=f"finished run disc-{method}-seed0") as caught:
            run(manifest, done._folder, (method,), **changes)
        assert difference in str(caught.value)
    assert done._folder.joinpath("results.csv").read_bytes() == before


def test_an_interrupted_run_is_not_gone_on_with_under_other_settings(
    quick, run, manifest, tmp_path
) -> None:
    def interrupt(_line):
        raise KeyboardInterrupt

    for precision in ("int8", "float16"):
        config = ExperimentConfig.model_validate(
            quick.model_dump()
            | {"methods": {"lora_fedavg": {"federation": {"precision": precision}}}}
        )
        expected = KeyboardInterrupt if precision == "int8" else FedSamError
        with pytest.raises(expected) as caught:
            run(manifest, tmp_path, config=config, tell=interrupt)
    assert "federation.precision" in str(caught.value)
    assert "--no-resume" in str(caught.value)


def test_what_rounding_lost_outlives_an_interruption(quick, run, manifest, tmp_path) -> None:
    config = ExperimentConfig.model_validate(
        quick.model_dump() | {"methods": {"lora_fedavg": {"federation": {"precision": "int8"}}}}
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
def test_an_interrupted_run_begins_anew_when_told(run, manifest, tmp_path, engine) -> None:
    told = []

    def interrupt(line):
        told.append(line)
        raise KeyboardInterrupt

    for resume in (True, False):
        with pytest.raises(KeyboardInterrupt):
            run(manifest, tmp_path, tell=interrupt, resume=resume, engine=engine)
    assert ["round 1" in line for line in told] == [True, True]


def test_measuring_the_base_model_again_keeps_the_clicks(run, manifest, tmp_path) -> None:
    folder = run(manifest, tmp_path, ("base",), clicks=True)
    before = [sorted(map(repr, table)) for table in folder.tables()]
    run(manifest, tmp_path, ("base",), again=True)
    assert [sorted(map(repr, table)) for table in folder.tables()] == before


def test_a_round_that_the_apps_had_averaged_is_not_repeated(run, manifest, tmp_path) -> None:
    def interrupt(*_args):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federated.FederatedRun, "_measure_prompts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(manifest, tmp_path, engine="inprocess")
    with pytest.raises(FedSamError, match="Round 1 was interrupted.*--no-resume"):
        run(manifest, tmp_path, engine="inprocess")


def test_kept_models_are_measured_again_without_training(run, done, manifest, tmp_path) -> None:
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


def test_models_that_were_not_kept_cannot_be_measured_again(run, done, manifest, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done._folder, folder, ignore=shutil.ignore_patterns("models"))
    with pytest.raises(FedSamError, match="--save-models"):
        run(manifest, folder, ("lora_fedavg",), again=True)
