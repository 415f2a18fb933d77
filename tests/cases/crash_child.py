"""Child processes of the crash tests.

crash_child.py accept STORE COUNT NAME      accept COUNT cases, print each id once it is kept
crash_child.py steps FOLDER ACTION          for k = 1, 2, ...: do ACTION on the store FOLDER/k in
                                            a process killed at its k-th file operation, until
                                            one gets through
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.store import CaseStore

FILE_OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod"}


def small_case(scan: str) -> NewCase:
    mask = np.zeros((40, 40), np.bool_)
    mask[10:20, 10:20] = True
    return NewCase(
        image=np.random.default_rng().integers(0, 4000, (40, 40)).astype(np.int16),
        mask=mask,
        structure=Structure(value=1, name="spleen", color="#ff0000"),
        window=(0.0, 4000.0),
        scan_key=scan,
    )


def accept(folder: Path, count: int, name: str) -> None:
    store = CaseStore(folder)
    for index in range(count):
        record = store.accept(small_case(f"{name} {index // 2}"))
        sys.stdout.write(record.id + "\n")
        sys.stdout.flush()


def die_at_operation(number: int) -> None:
    left = number

    def count(event: str, _arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in FILE_OPERATIONS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def act_and_die(folder: Path, action: str, number: int) -> None:
    store = CaseStore(folder / str(number))
    first, second = store.accept(small_case("a")), store.accept(small_case("b"))
    ids = [first.id, second.id]
    (folder / f"{number}.json").write_text(json.dumps(ids))
    if action == "set aside":
        (store.case_folder(first.id) / "mask.nrrd").write_bytes(b"")
    die_at_operation(number)
    if action == "accept":
        ids.append(store.accept(small_case("c")).id)
    elif action == "delete":
        store.delete(first.id)
    elif action == "forget":
        store.delete_patient(first.patient)
    elif action == "set aside":
        store.verify()
    elif action == "open":
        CaseStore(store.folder)
    (folder / f"{number}.json").write_text(json.dumps(ids))


def steps(folder: Path, action: str) -> None:
    number = 0
    killed = True
    while killed:
        number += 1
        child = os.fork()
        if child == 0:
            act_and_die(folder, action, number)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and status != 0:
            sys.exit(f"{action} failed before operation {number}")
    sys.stdout.write(f"{number}\n")


if __name__ == "__main__":
    if sys.argv[1] == "accept":
        accept(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        steps(Path(sys.argv[2]), sys.argv[3])
