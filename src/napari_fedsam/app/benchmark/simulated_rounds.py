"""Rounds under Flower's simulation in a process of their own, whose memory is the coordinator's.

Run as `python -m napari_fedsam.app.benchmark.simulated_rounds COORDINATOR SITES ROUNDS`; every
folder below SITES is a site.
"""

import sys
from pathlib import Path

from napari_fedsam.federation.simulation import run_local_rounds


def main(coordinator: str, sites: str, rounds: str) -> None:
    """Run the rounds."""
    folders = sorted(Path(sites).iterdir())
    run_local_rounds("simulation", Path(coordinator), folders, int(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
