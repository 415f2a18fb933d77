"""A report's commands make its runs again."""

import json
import shlex

import pytest

from napari_fedsam.app.benchmark.experiment import ExperimentConfig, Run, TrainedRun, recipe_for
from napari_fedsam.app.benchmark.report_commands import commands

CONFIG = ExperimentConfig.model_validate(
    {
        "training": {"epochs": 2},
        "methods": {
            "narrow": {"method": "pfedsam", "options": {"expert_width": 8}},
            "bytes": {"method": "pfedsam", "federation": {"precision": "int8"}},
        },
    }
)


def facts(method: str, *, task: str = "polyp", seed: int = 0, config=CONFIG):
    recipe = recipe_for(method, task, config, rounds=3, seed=seed)
    run = TrainedRun(task=task, method=method, seed=seed, recipe=recipe, train_images=32)
    return {"run": json.loads(run.model_dump_json()), "split": "test"}


def parsed(text: str) -> list[dict[str, str]]:
    lines = [line for line in text.splitlines() if line.startswith("napari-fedsam")]
    words = [shlex.split(line)[3:] for line in lines]
    return [dict(zip(each[::2], each[1::2], strict=True)) for each in words]


def test_runs_that_differ_in_method_and_seed_are_one_command() -> None:
    base = {"run": json.loads(Run(task="polyp", method="base").model_dump_json()), "split": "test"}
    runs = [
        base,
        *(facts(method, seed=seed) for method in ("pfedsam", "narrow") for seed in (0, 1)),
    ]
    text = commands({str(number): each for number, each in enumerate(runs)}, set(), "tables")
    (command,) = parsed(text)
    assert command["--methods"] == "pfedsam,narrow,base"
    assert (command["--rounds"], command["--seeds"]) == ("3", "0,1")
    assert (command["--task"], command["--train-images"]) == ("polyp", "32")


def test_the_configuration_makes_the_same_recipes() -> None:
    methods = ("pfedsam", "narrow", "bytes")
    text = commands({method: facts(method) for method in methods}, set(), "tables")
    config = ExperimentConfig.model_validate_json(text.split("```json")[1].split("```")[0])
    for method in methods:
        made = facts(method, config=config)["run"]["recipe"]
        assert made == facts(method)["run"]["recipe"]


def test_the_tables_go_where_they_are() -> None:
    text = commands({"a": facts("pfedsam")}, set(), "sixteen rounds")
    assert "--out 'sixteen rounds'" in text


def test_other_tasks_and_schedules_are_other_commands() -> None:
    plain = ExperimentConfig()
    runs = {
        "a": facts("pfedsam"),
        "b": facts("pfedsam", task="vessel"),
        "c": facts("local", config=plain),
    }
    assert len(parsed(commands(runs, set(), "tables"))) == 3


def test_defaults_need_no_configuration() -> None:
    text = commands({"a": facts("pfedsam", config=ExperimentConfig())}, set(), "tables")
    assert "config" not in text


def clicked(method: str, *, task: str = "polyp", seed: int = 0) -> tuple[str, str, str, int]:
    return task, "in_federation", method, seed


def test_methods_of_other_seeds_are_other_commands() -> None:
    runs = {
        "a": facts("pfedsam"),
        "b": facts("pfedsam", seed=1),
        "c": facts("local"),
        "d": facts("lora_fedavg"),
    }
    made = parsed(commands(runs, set(), "tables"))
    assert {command["--methods"]: command["--seeds"] for command in made} == {
        "pfedsam": "0,1",
        "local,lora_fedavg": "0",
    }


def test_clicks_that_were_counted_for_one_seed_are_asked_for_it_alone() -> None:
    runs = {"a": facts("pfedsam"), "b": facts("pfedsam", seed=1)}
    text = commands(runs, {clicked("pfedsam")}, "tables")
    lines = [line for line in text.splitlines() if line.startswith("napari-fedsam")]
    assert {"--seeds 0" in line: "--clicks" in line for line in lines} == {True: True, False: False}


def test_clicks_are_asked_for_where_they_were_counted() -> None:
    runs = {"a": facts("pfedsam"), "b": facts("local")}
    text = commands(runs, {clicked("pfedsam"), clicked("local", task="vessel")}, "tables")
    lines = [line for line in text.splitlines() if line.startswith("napari-fedsam")]
    assert {"pfedsam" in line: "--clicks" in line for line in lines} == {True: True, False: False}


@pytest.mark.parametrize("method", ["pfedsam", "local"])
def test_the_base_model_goes_where_its_clicks_are_counted_too(method: str) -> None:
    base = {"run": json.loads(Run(task="polyp", method="base").model_dump_json()), "split": "test"}
    runs = {"a": facts("pfedsam"), "b": facts("local"), "c": base}
    text = commands(runs, {clicked(method), clicked("base")}, "tables")
    lines = [line for line in text.splitlines() if line.startswith("napari-fedsam")]
    assert {method in line: ",base" in line for line in lines} == {
        True: True,
        False: False,
    }


def test_without_trained_runs_there_is_nothing_to_say() -> None:
    assert commands({}, set(), "tables") == ""
