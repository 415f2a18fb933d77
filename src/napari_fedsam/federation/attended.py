"""Running a command of Flower's, or another program, that must end with the one it serves.

Run as `python -m napari_fedsam.federation.attended [--end-with PID] COMMAND ...`, COMMAND being
`flower-superlink` or `flower-superexec` (which run in this process) or the path of a program
(which runs below it).
"""

import argparse
import importlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from napari_fedsam.federation.parent_watch import end_with
from napari_fedsam.federation.patience import be_patient

_FLOWER_COMMANDS = {
    "flower-superlink": ("flwr.superlink.cli", "flower_superlink"),
    "flower-superexec": ("flwr.supercore.cli", "flower_superexec"),
}


def attended_command(command: Sequence[str], *, end_with: int | None) -> list[str]:
    """Return the command line that runs `command` until the process `end_with` has ended."""
    watch = [] if end_with is None else ["--end-with", str(end_with)]
    return [sys.executable, "-m", "napari_fedsam.federation.attended", *watch, *command]


def main(arguments: Sequence[str] | None = None) -> None:
    """Start; everything after the own options is the command."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--end-with", type=int, help="end when this process has ended")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    own = parser.parse_args(arguments)
    if own.end_with is not None:
        end_with(own.end_with)
    name = own.command[0]
    if name in _FLOWER_COMMANDS:
        be_patient()
        module, function = _FLOWER_COMMANDS[name]
        sys.argv = own.command
        getattr(importlib.import_module(module), function)()
    else:
        sys.exit(_run_below(own.command))


def _run_below(command: Sequence[str]) -> int:
    program = subprocess.Popen(list(command))
    # Whoever asks this process to end means the program.
    signal.signal(signal.SIGTERM, lambda *_: program.terminate())
    return program.wait()


if __name__ == "__main__":
    main()
