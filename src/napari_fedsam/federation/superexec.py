"""Entry point of the process that starts a ClientApp for each message: Flower's SuperExec.

Run as `python -m napari_fedsam.federation.superexec`; it ends with the node that it serves.
"""

import argparse
import sys
from collections.abc import Sequence

from napari_fedsam.federation.parent_watch import end_with


def main(arguments: Sequence[str] | None = None) -> None:
    """Start; what this parser does not know is handed to Flower's."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--node-pid", type=int, required=True, help="end when this one has ended")
    own, flower_arguments = parser.parse_known_args(arguments)
    end_with(own.node_pid)

    from flwr.supercore.cli import flower_superexec

    sys.argv = ["flower-superexec", *flower_arguments]
    flower_superexec()


if __name__ == "__main__":
    main()
