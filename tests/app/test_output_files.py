"""Where a command writes is made ready before it works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_fedsam.app.cli import app
from napari_fedsam.app.output_files import ready_file, ready_folder
from napari_fedsam.errors import FedSamError


def test_the_folder_is_created_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "new" / "newer" / "x.json"
    assert ready_file(file) == file
    assert list(file.parent.iterdir()) == []
    assert ready_folder(file) == file
    assert list(file.iterdir()) == []


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("kept")
    ready_file(file)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("name", [".", "a file/x.json", "x" * 300])
@pytest.mark.parametrize("ready", [ready_file, ready_folder])
def test_what_cannot_be_written_is_told_in_one_sentence(tmp_path: Path, ready, name: str) -> None:
    (tmp_path / "a file").write_text("in the way")
    place = tmp_path / name
    if name == ".":
        place = tmp_path if ready is ready_file else tmp_path / "a file"
    with pytest.raises(FedSamError, match="give"):
        ready(place)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to this user"
)
def test_what_is_closed_to_writing_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("")
    file.chmod(0o400)
    with pytest.raises(FedSamError, match="may not be written"):
        ready_file(file)
    tmp_path.chmod(0o500)
    for ready, place in ((ready_file, tmp_path / "y.json"), (ready_folder, tmp_path)):
        with pytest.raises(FedSamError, match="cannot be written"):
            ready(place)
    tmp_path.chmod(0o700)


COMMANDS = {
    "evaluate": "evaluate --data missing.csv --task disc --prompt box --out",
    "benchmark training": "benchmark training --method none --json",
    "benchmark propagation": "benchmark propagation --scan missing.nii --mask missing.nii --json",
    "benchmark interactive": "benchmark interactive --json",
    "benchmark scale": "benchmark scale --json",
    "benchmark report": "benchmark report missing --out",
    "coordinator report": "coordinator report missing --out",
    "site key": "site key --out",
    "site audit": "site audit --export",
    "site audit --open": "site audit --open 1 --out",
}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_looks_where_it_writes_before_it_works(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(app, [*COMMANDS[command].split(), str(tmp_path)])
    assert isinstance(result.exception, FedSamError), result.output
    assert "is a folder: give the name of a file to write" in str(result.exception)
    assert result.exit_code != 0
    assert result.output == ""


@pytest.mark.parametrize(
    "command",
    [
        "coordinator recipe --name n --structure s",
        "demo --headless --out",
        "benchmark federated --data missing.csv --task t --methods base --out",
        "benchmark poisoning --train-images 1 --held-out 1 --out",
    ],
)
def test_a_file_in_the_way_of_a_folder_is_told_of(tmp_path: Path, command: str) -> None:
    (tmp_path / "a file").write_text("")
    place = tmp_path / "a file" / "inner"
    result = CliRunner().invoke(app, [*command.split(), str(place)])
    assert isinstance(result.exception, FedSamError), result.output
    assert "cannot be written" in str(result.exception)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no limit for files")
def test_where_there_is_no_room_one_sentence_is_said_and_nothing_left(tmp_path) -> None:
    file = tmp_path / "recipe.json"
    words = ["coordinator", "recipe", str(file), "--name", "x", "--structure", "polyp"]
    command = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
        f"sys.argv = ['napari-fedsam', *{words!r}]; "
        "from napari_fedsam.app.cli import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-B", "-c", command], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert " ".join(ran.stderr.split()).startswith("napari-fedsam: There is no room")
    assert list(tmp_path.iterdir()) == []
