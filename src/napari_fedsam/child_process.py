"""A child process does not outlive the program that started it."""

import os
import sys
import threading


def end_with_standard_input() -> None:
    """End this process at once when its standard input is closed.

    The system closes it when the program at its other end is gone, however that ended.
    """
    threading.Thread(target=_end_once_closed, daemon=True).start()


def _end_once_closed() -> None:
    sys.stdin.read()
    os._exit(1)
