"""A virtual display for windows on a machine without one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from napari_fedsam.errors import FedSamError

SCREEN = "1600x1280x24"


class DisplayError(FedSamError):
    """There is no display and none can be made."""


def has_display() -> bool:
    """Whether windows can be shown."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def display_or_xvfb() -> Iterator[None]:
    """Use the display there is, or run Xvfb while the block lasts.

    Raises
    ------
    DisplayError
        When Xvfb is needed and not installed, or does not start.
    """
    if has_display():
        yield
        return
    program = shutil.which("Xvfb")
    if program is None:
        raise DisplayError(
            "There is no display and no Xvfb: install the package 'xvfb', or set DISPLAY."
        )
    process = subprocess.Popen(
        [program, "-displayfd", "1", "-screen", "0", SCREEN, "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        # Xvfb chooses a free number and prints it once it is ready.
        number = process.stdout.readline().strip() if process.stdout else ""
        if not number:
            raise DisplayError("Xvfb did not start: run it by hand to see why, or set DISPLAY.")
        os.environ["DISPLAY"] = f":{number}"
        yield
    finally:
        os.environ.pop("DISPLAY", None)
        process.terminate()
        process.wait()
