"""Waiting for another process, bounded."""

import time
from collections.abc import Callable

_POLL_SECONDS = 0.2


def wait_for(
    condition: Callable[[], bool], *, seconds: float, while_true: Callable[[], bool]
) -> bool:
    """Wait until a condition holds; return whether it did in time.

    Parameters
    ----------
    condition : callable
        What is awaited.
    seconds : float
        For how long at most.
    while_true : callable
        What must go on holding, such as that a process runs: another program may be what answers
        on a port, so it is asked once more in the end.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and while_true():
        if condition():
            return while_true()
        time.sleep(_POLL_SECONDS)
    return False
