"""Background processes give way to the window."""

import contextlib
import sys

import psutil

# On POSIX the least there is: at niceness 10 training still doubled the longest waits for a click.
_LOW = psutil.IDLE_PRIORITY_CLASS if sys.platform == "win32" else 19


def give_way(process: psutil.Process) -> None:
    """Let a process, with all that it starts from now on, work only with what others leave.

    Parameters
    ----------
    process : psutil.Process
        One that has ended, or that may not be changed, is left alone.
    """
    with contextlib.suppress(psutil.Error):
        process.nice(_LOW)
