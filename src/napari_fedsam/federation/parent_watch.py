"""Ending a background process when the program that it serves has ended.

Flower's own monitor raises SIGINT in its thread, which a main thread that waits on a lock never
notices; such a process would stay behind.
"""

import contextlib
import os
import signal
import threading
import time

import psutil

_INTERVAL = 0.2
_GRACE_SECONDS = 10.0


def end_with(pid: int) -> None:
    """End this process and all below it when another has ended.

    Itself it ends politely at first, then at once; what runs below it, at once.

    Parameters
    ----------
    pid : int
        The other process; one that has ended already ends this one, too.
    """
    try:
        watched: psutil.Process | None = psutil.Process(pid)
    except psutil.NoSuchProcess:
        watched = None
    threading.Thread(target=_watch, args=(watched,), daemon=True).start()


def _watch(watched: psutil.Process | None) -> None:
    while watched is not None and _runs(watched):
        time.sleep(_INTERVAL)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    # To the process, so that the main thread hears it whatever it waits for.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
