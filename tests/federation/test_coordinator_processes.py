"""The coordinator's processes: they end with their program, or come back, as they should."""

import contextlib
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.processes import OWNER_VARIABLE, ProcessTable

pytestmark = [pytest.mark.federation, pytest.mark.faults]

START = """
import sys
from pathlib import Path
from napari_fedsam.federation.coordinator import Coordinator
Coordinator(Path(sys.argv[1])).start()
print("started", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def coordinator(tmp_path, recipe):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe, Reach(port=port))
    yield coordinator
    coordinator.stop()


def processes_of(folder):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(OWNER_VARIABLE) == str(folder.resolve()):
                found.append(process)
    return found


def test_a_killed_program_leaves_none_of_them_behind(coordinator, wait_until):
    program = subprocess.Popen(
        [sys.executable, "-c", START, str(coordinator.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with program:
        assert program.stdout.readline() == b"started\n"
        assert coordinator.running
        assert len(processes_of(coordinator.folder)) >= 2
        program.kill()
    wait_until(lambda: processes_of(coordinator.folder) == [], 30, "they noticed")
    assert not coordinator.running


def test_what_is_killed_comes_back_while_a_program_waits_and_a_stop_is_a_stop(
    coordinator, wait_until
):
    coordinator.start(detached=True)
    lines = []
    waiting = threading.Thread(target=coordinator.wait, kwargs={"tell": lines.append})
    waiting.start()
    superlink = ProcessTable(coordinator.folder).records()["superlink"].pid
    psutil.Process(superlink).kill()
    wait_until(lambda: bool(lines), 90, "it was started again")
    assert lines == ["superlink had ended unexpectedly and was started again"]
    wait_until(lambda: coordinator.running, 30, "it runs again")
    # From another program's point of view.
    Coordinator(coordinator.folder).stop()
    waiting.join(30)
    assert not waiting.is_alive()
    assert processes_of(coordinator.folder) == []
