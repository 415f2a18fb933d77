"""`napari-fedsam benchmark scale`: real rounds of tiny sites, and the memory of a process."""

import json
import subprocess
import sys
import tempfile

import psutil
import pytest
from typer.testing import CliRunner

from napari_fedsam.app.benchmark.memory_watch import MemoryWatch
from napari_fedsam.app.cli import app


@pytest.fixture(autouse=True)
def temporary(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def figures_of(tmp_path, *arguments):
    file = tmp_path / "scale.json"
    ran = CliRunner().invoke(app, ["benchmark", "scale", *arguments, "--json", str(file)])
    assert ran.exit_code == 0, ran.output
    (result,) = json.loads(file.read_text(encoding="utf-8"))["results"]
    # What was written meanwhile is gone.
    assert not list(tmp_path.glob("napari-fedsam-scale-*"))
    return result


def test_the_coordinator_alone_is_measured(tmp_path) -> None:
    result = figures_of(tmp_path, "--sites", "", "--nodes", "0", "--answers", "3", "--rounds", "2")
    assert (result["engine"], result["sites"], result["rounds"]) == ("coordinator", 3, 2)
    assert 3 * 14e6 < result["bytes_up"] < 3 * 18e6
    assert result["overhead_seconds"] == result["seconds"] > 0
    assert min(result["first_round_mib"], result["last_round_mib"]) > 100


@pytest.mark.slow
def test_a_simulation_is_measured(tmp_path) -> None:
    pytest.importorskip("ray", reason="Flower's simulation is not installed")
    result = figures_of(tmp_path, "--sites", "2", "--nodes", "0", "--answers", "", "--rounds", "2")
    assert (result["engine"], result["sites"], result["rounds"]) == ("simulation", 2, 2)
    # The decoder in float32, and back.
    assert 2 * 14e6 < result["bytes_up"] < 2 * 18e6
    assert result["bytes_down"] == pytest.approx(result["bytes_up"], rel=0.01)
    assert 0 < result["overhead_seconds"] < result["seconds"]
    assert result["peak_mib"] >= max(result["first_round_mib"], result["last_round_mib"])
    assert min(result["first_round_mib"], result["last_round_mib"]) > 100
    assert 0 < result["dice"] <= 1


@pytest.mark.slow
@pytest.mark.federation
def test_a_deployment_is_measured(tmp_path) -> None:
    result = figures_of(tmp_path, "--sites", "", "--nodes", "2", "--answers", "", "--rounds", "1")
    assert (result["engine"], result["sites"], result["rounds"]) == ("deployment", 2, 1)
    assert 2 * 14e6 < result["bytes_up"] < 2 * 18e6
    assert 0 < result["overhead_seconds"] < result["seconds"]
    assert min(result["peak_mib"], result["superlink_mib"]) > 100


@pytest.fixture
def growing():
    """A process that takes 200 MiB when it is told to."""
    program = "input(); kept = bytearray(b'x') * (200 << 20); print(len(kept), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_the_highest_memory_is_kept_for_each_stage(growing) -> None:
    process = psutil.Process(growing.pid)
    stage = 0
    found = [None, process]

    def find():
        return found.pop(0) if len(found) > 1 else found[0]

    with MemoryWatch(find, lambda: stage) as watch:
        while 0 not in watch.peaks:
            assert growing.poll() is None
        stage = 1
        growing.stdin.write("\n")
        growing.stdin.flush()
        while watch.peaks.get(1, 0.0) < watch.peaks[0] + 190:
            assert growing.poll() is None
    assert watch.peak == watch.peaks[1]
