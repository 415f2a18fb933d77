"""A child ends with the program that started it, whatever it is busy with."""

import subprocess
import sys

CHILD = """
import threading
from napari_fedsam.child_process import end_with_standard_input
end_with_standard_input()
print("busy", flush=True)
threading.Event().wait()
"""


def test_a_child_ends_when_its_standard_input_is_closed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "busy\n"
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(timeout=300) == 1
