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
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import ensure_key_pair, fingerprint, public_key_pem
from napari_fedsam.federation.processes import OWNER_VARIABLE, ProcessTable
from napari_fedsam.files import make_private_folder

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


def test_a_start_that_is_refused_leaves_the_running_coordinator_alone(coordinator):
    coordinator.start(detached=True)
    before = processes_of(coordinator.folder)
    command = ["-m", "napari_fedsam.app", "coordinator", "start", str(coordinator.folder)]
    refused = subprocess.run(
        [sys.executable, *command], check=False, capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "is running already" in refused.stderr
    assert processes_of(coordinator.folder) == before


def test_a_program_that_ends_leaves_alone_what_another_has_started_since(coordinator):
    program = subprocess.Popen(
        [sys.executable, "-c", START, str(coordinator.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with program:
        assert program.stdout.readline() == b"started\n"
        coordinator.stop()
        coordinator.start(detached=True)
        program.stdin.close()
    assert program.returncode == 0
    assert coordinator.running


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    made = {}
    for name in "ABC":
        folder = make_private_folder(tmp_path_factory.mktemp("sites") / name)
        made[name] = ensure_key_pair(folder).read_text(encoding="ascii")
    return made


def let_in(coordinator, keys):
    """Whom SuperLink lets in, by name."""
    with coordinator._connected() as control:
        registered = {node.public_key for node in control.nodes()}
    return {name for name, key in keys.items() if public_key_pem(key) in registered}


def kill(coordinator, name):
    psutil.Process(ProcessTable(coordinator.folder).records()[name].pid).kill()


def test_a_site_is_shut_out_whatever_has_ended_meanwhile(coordinator, keys, wait_until):
    coordinator.start(detached=True)
    for name, key in keys.items():
        coordinator.approve(name, key)
    kill(coordinator, "superexec")
    wait_until(lambda: not coordinator.running, 30, "it has ended")
    coordinator.revoke("A")
    assert let_in(coordinator, keys) == {"B", "C"}
    kill(coordinator, "superlink")
    wait_until(lambda: coordinator._processes.ended == ("superlink", "superexec"), 30, "it ended")
    coordinator.revoke("B")
    assert coordinator._processes.revive() == ("superlink", "superexec")
    assert let_in(coordinator, keys) == {"C"}


def test_a_lost_list_of_sites_shuts_nobody_out(coordinator, keys, caplog):
    coordinator.start(detached=True)
    for name, key in keys.items():
        coordinator.approve(name, key)
    coordinator.revoke("C")
    coordinator.files.sites.write_text("{")
    with pytest.raises(FederationError, match="each with the same key"):
        coordinator.approve("A", keys["A"])
    coordinator.files.sites.unlink()
    coordinator.approve("A", keys["A"])
    assert let_in(coordinator, keys) == {"A", "B"}
    assert f"stay approved: {fingerprint(keys['B'])}." in caplog.text
    lost = f"not in sites.json: {fingerprint(keys['B'])}"
    assert coordinator.status().sites == {"A": False, lost: False}
    coordinator.approve("B", keys["B"])
    assert coordinator.status().sites == {"A": False, "B": False}
    with pytest.raises(FederationError, match="which was shut out before"):
        coordinator.approve("C", keys["C"])
    coordinator.revoke("C")
    assert let_in(coordinator, keys) == {"A", "B"}


def test_a_start_that_fails_half_way_leaves_nothing_behind(coordinator):
    coordinator.files.sites.write_text("{")
    with pytest.raises(FederationError, match="is damaged"):
        coordinator.start(detached=True)
    assert processes_of(coordinator.folder) == []
