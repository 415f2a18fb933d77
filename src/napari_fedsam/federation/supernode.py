"""Entry point of the site's node: Flower's SuperNode, made to obey this site.

Run as `python -m napari_fedsam.federation.supernode`. Everything is Flower's own except that

- a bundle whose hash is not the pinned one is refused before any of it is stored or loaded,
- a failure inside Flower reaches the coordinator as a code, never as `str(exception)`,
- every successful exchange with the coordinator leaves its time in a file for the panel.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from napari_fedsam.federation.node_guard import NodeGuard
from napari_fedsam.federation.parent_watch import end_with
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.training.profile_folder import FIRST

_LOCK_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Start the node; what this parser does not know is handed to Flower's."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--site-folder", type=Path, required=True)
    parser.add_argument("--profile", default=FIRST, help="key of the federation's profile")
    parser.add_argument("--pinned-bundle", required=True, help="SHA-256 of the only bundle to run")
    parser.add_argument("--parent-pid", type=int, help="end when this process has ended")
    parser.add_argument("--hold-lock", action="store_true", help="own the site's folder")
    own, flower_arguments = parser.parse_known_args(arguments)

    if own.parent_pid is not None:
        end_with(own.parent_pid)
    files = SiteFiles(own.site_folder, own.profile)
    lock = FileLock(files.lock, timeout=_LOCK_SECONDS)
    if own.hold_lock:
        lock.acquire()
    guard = NodeGuard(files, own.pinned_bundle)
    guard.install()
    guard.self_test()

    from flwr.supercore.exit import ExitCode, flwr_exit
    from flwr.supernode.cli import flower_supernode

    sys.argv = ["flower-supernode", *flower_arguments]
    flower_supernode()
    # Flower returns here after an unexpected error and would leave its local server running.
    flwr_exit(ExitCode.SUPERNODE_CONNECTION_ERROR, "The connection ended unexpectedly.")


if __name__ == "__main__":
    main()
