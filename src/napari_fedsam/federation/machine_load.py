"""How busy this computer is, on every operating system."""

import psutil

# Long enough that a click in a window does not count as being busy.
_SECONDS = 3.0


def machine_load() -> float:
    """Return the share of the processors' time that is in use, 0 to 1; looks for three seconds.

    Who asks uses none meanwhile.
    """
    return float(psutil.cpu_percent(interval=_SECONDS)) / 100
