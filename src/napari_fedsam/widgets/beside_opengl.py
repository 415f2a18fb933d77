"""Lets torch load in a process that draws with Mesa.

torchvision imports triton, a compiler for GPU kernels that brings its own LLVM. Loaded after
Mesa's OpenGL drivers, which use LLVM too (llvmpipe always, so every machine without a GPU), it
crashes the process on import. Nothing here needs triton in the window's process.
"""

import sys


def keep_triton_out() -> None:
    """Make `import triton` fail as if it were not installed, unless it is loaded already."""
    if sys.platform == "linux":
        sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
