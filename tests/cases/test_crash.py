"""Real processes, killed while they change the store."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napari_fedsam.cases.store import CaseStore

CHILD = Path(__file__).with_name("crash_child.py")


@contextmanager
def child(*arguments: object) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".*") if path.name != ".lock"]


def test_kept_cases_survive_kill_9_at_any_moment(tmp_path) -> None:
    chance = random.Random(5)  # noqa: S311 - not for secrets
    folder = tmp_path / "cases"
    promised: set[str] = set()
    for number in range(6):
        with child("accept", folder, 10_000, number) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 8)):
                promised.add(process.stdout.readline().strip())
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=chance.uniform(0.001, 0.04))
            process.kill()
            promised.update(line.strip() for line in process.stdout)
        names = {path.name for path in folder.iterdir() if len(path.name) == 16}
        store = CaseStore(folder)
        assert leftovers(folder) == []
        assert store.verify() == []
        assert store.set_aside() == []
        assert {record.id for record in store.records()} == names >= promised
    assert len(promised) >= 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to be quick")
@pytest.mark.parametrize("action", ["accept", "delete", "forget", "set aside", "open"])
def test_a_crash_before_any_file_operation_is_harmless(tmp_path, action) -> None:
    with child("steps", tmp_path, action) as process:
        assert process.stdout is not None
        last = int(process.stdout.read())
        assert process.wait() == 0
    assert last > 3
    outcomes = set()
    for number in range(1, last + 1):
        first, *others = json.loads((tmp_path / f"{number}.json").read_text())
        store = CaseStore(tmp_path / str(number))
        assert leftovers(store.folder) == []
        broken = [case.id for case in store.verify()]
        kept = {record.id for record in store.records()}
        assert set(others) <= kept
        assert broken in ([], [first])
        assert not broken or action == "set aside"
        aside = [case.id for case in store.set_aside()]
        outcomes.add((len(kept), first in kept))
        if action in ("delete", "forget"):
            log = store.folder / "deletions.jsonl"
            logged = log.read_text() if log.exists() else ""
            assert (first in logged) == (first not in kept)
        elif action == "set aside":
            assert aside == [first]
            assert "mask.nrrd" in store.set_aside()[0].reason
        else:
            assert first in kept
            assert aside == []
    assert (
        outcomes
        == {
            "accept": {(2, True), (3, True)},
            "delete": {(2, True), (1, False)},
            "forget": {(2, True), (1, False)},
            "set aside": {(1, False)},
            "open": {(2, True)},
        }[action]
    )


def test_processes_do_not_disturb_each_other(tmp_path) -> None:
    folder = tmp_path / "cases"
    count = 12
    with child("accept", folder, count, "x") as one, child("accept", folder, count, "y") as two:
        while one.poll() is None or two.poll() is None:
            if (folder / "secret.key").exists():
                CaseStore(folder).verify()
        assert one.stdout is not None
        assert two.stdout is not None
        promised = {*one.stdout.read().split(), *two.stdout.read().split()}
        assert (one.returncode, two.returncode) == (0, 0)
    store = CaseStore(folder)
    records = store.records()
    assert {record.id for record in records} == promised
    assert len(promised) == 2 * count
    assert store.set_aside() == []
    assert len({(record.scan, record.split) for record in records}) == count
