"""`napari-fedsam benchmark interactive`: the numbers that are promised, measured for real."""

import json
from pathlib import Path

from typer.testing import CliRunner

from napari_fedsam.app.benchmark.window_speed import stall_excess
from napari_fedsam.app.cli import app


def run(*arguments: str) -> None:
    result = CliRunner().invoke(app, ["benchmark", "interactive", *arguments])
    assert result.exit_code == 0, result.output
    assert "floor reached" in result.output


def test_models_alone(tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    run("--repeats", "2", "--no-vit-b", "--no-window", "--json", str(out))
    report = json.loads(out.read_text())
    assert report["encode_speedup"]["lite_medsam"] > 0
    assert report["encode_speedup"]["vit_b"] is None
    assert report["prompt_speedup"] > 0
    assert 0 < report["encoding"]["lite_medsam"]["floor_fraction"] < 1.5
    assert "gui_stall_ms" not in report


def test_stalls_count_beyond_bare_napari() -> None:
    bare = [1.0] * 99 + [20.0]
    assert stall_excess([value + 5 for value in bare], bare) == {"p99": 5.0, "max": 5.0}
    assert stall_excess([0.0] * 100, bare) == {"p99": 0.0, "max": 0.0}


def test_bad_options_are_refused() -> None:
    assert CliRunner().invoke(app, ["benchmark", "interactive", "--repeats", "0"]).exit_code == 2
