"""Let the process keep the large buffers that inference and training free and take again.

glibc gives a freed block of more than 32 MB back to the system at once, so that every image pays
for hundreds of thousands of page faults. On one 2-core machine keeping them made encoding 1.3
times and answering a click 1.8 times as fast, in one run.
"""

import ctypes
import platform

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_KEPT_BYTES = 2**31 - 1
_STEP_BYTES = 2**28


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory (at most 2 GB) for this process.

    Returns
    -------
    bool
        False where the C library is another one (Windows, macOS, musl) and nothing was changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_TOP_PAD, _STEP_BYTES),
    )
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(accepted)
