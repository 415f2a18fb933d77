import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.processes import (
    OWNER_VARIABLE,
    ProcessTable,
    child_environment,
    flower_command,
)

CHILD = "import time; print('ready', flush=True); time.sleep(600)"
FAMILY = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
print("child", child.pid, flush=True)
time.sleep(600)
"""
ORPHAN_MAKER = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
print("child", child.pid, flush=True)
"""


@pytest.fixture
def table(tmp_path):
    table = ProcessTable(tmp_path)
    yield table
    table.end_all()


def start(table, code):
    return table.start("worker", [sys.executable, "-c", code], dict(os.environ))


def child_of(table, wait_until):
    wait_until(lambda: "child" in table.log_text("worker"), what="the child started")
    words = table.log_text("worker").split()
    return psutil.Process(int(words[words.index("child") + 1]))


def test_end_all_ends_the_whole_tree(table, wait_until):
    record = start(table, FAMILY)
    child = child_of(table, wait_until)
    assert table.running("worker")
    assert table.end_all() == 2
    assert not psutil.pid_exists(record.pid)
    assert not child.is_running()
    assert table.records() == {}


def test_an_orphan_is_found_and_ended(table, wait_until):
    start(table, ORPHAN_MAKER)
    child = child_of(table, wait_until)
    wait_until(lambda: not table.running("worker"), what="the parent ended")
    assert child.is_running()
    table.end_all()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_another_table_of_the_same_folder_ends_what_was_left(table, tmp_path, wait_until):
    record = start(table, CHILD)
    again = ProcessTable(tmp_path)
    wait_until(lambda: "ready" in again.log_text("worker"), what="the process is ready")
    assert again.running("worker")
    assert again.end_all() == 1
    wait_until(lambda: not table.running("worker"), what="the process ended")
    assert again.records() == {}
    assert record.pid != os.getpid()


def test_a_process_that_took_over_an_old_id_is_never_touched(tmp_path):
    entry = {"pid": os.getpid(), "created": psutil.Process().create_time() - 1000, "log": "x"}
    (tmp_path / "processes.json").write_text(json.dumps({"worker": entry}))
    table = ProcessTable(tmp_path)
    assert not table.running("worker")
    assert table.end_all() == 0


def test_processes_of_another_folder_are_not_touched(table, tmp_path, wait_until):
    start(table, CHILD)
    wait_until(lambda: "ready" in table.log_text("worker"), what="the process is ready")
    (tmp_path / "other").mkdir()
    assert ProcessTable(tmp_path / "other").end_all() == 0
    assert table.running("worker")


def test_a_polite_end_lets_the_process_say_goodbye(table, wait_until):
    if sys.platform == "win32":
        pytest.skip("Windows has no polite end for processes without a window")
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('goodbye', flush=True), sys.exit()))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    record = start(table, code)
    wait_until(lambda: "ready" in table.log_text("worker"), what="the process is ready")
    table.end_all(gently=["worker"])
    assert "goodbye" in Path(record.log).read_text()


def test_the_priority_is_lowered_and_the_log_rotates(table, tmp_path):
    for text in ("first", "second"):
        command = [sys.executable, "-c", f"print('{text}'); import time; time.sleep(600)"]
        record = table.start("worker", command, dict(os.environ), low_priority=True)
    priority = psutil.Process(record.pid).nice()
    assert priority == getattr(psutil, "IDLE_PRIORITY_CLASS", 19)
    assert (tmp_path / "logs" / "worker.log").exists()
    assert (tmp_path / "logs" / "worker.1.log").exists()


def test_the_environment_is_private_quiet_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    environment = child_environment(tmp_path / "flower", threads=3)
    assert environment["FLWR_HOME"] == str(tmp_path / "flower")
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"
    scripts = environment["PATH"].split(os.pathsep)[0]
    assert flower_command("flower-superexec").startswith(scripts)
    assert OWNER_VARIABLE not in environment


def test_a_missing_command_is_told_in_words():
    with pytest.raises(FederationError, match="reinstall"):
        flower_command("flower-no-such-command")
