"""Rounds of the ClientApp and ServerApp on this machine: in this process, or under Flower's Ray.

No network, keys or certificates: this is for experiments and tests.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from napari_fedsam.errors import FedSamError
from napari_fedsam.federation import client_app
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.server_app import run_rounds
from napari_fedsam.federation.site_files import SITE_FOLDER_KEY

Engine = Literal["inprocess", "simulation"]

_FIRST_NODE = 2
_PARTITION_KEY = "partition-id"
# Enough to keep a worker busy. Flower's simulation keeps all messages that are under way in the
# ServerApp's process, and looks through all of them for each site, ten times a second.
_ASKED_PER_WORKER = 2


def run_local_rounds(engine: Engine, coordinator: Path, sites: Sequence[Path], rounds: int) -> None:
    """Run rounds over sites whose folders are on this machine.

    Parameters
    ----------
    engine : {"inprocess", "simulation"}
    coordinator : Path
        A folder with a recipe; rounds are kept there.
    sites : sequence of Path
        The sites' folders, each with the recipe and cases.
    rounds : int
        How many to run now.

    Raises
    ------
    FedSamError
        When Flower's simulation is not installed.
    """
    if engine == "inprocess":
        nodes = {_FIRST_NODE + index: site for index, site in enumerate(sites)}
        run_rounds(InProcessGrid(client_app.app, nodes), coordinator, rounds)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: F401
    except ImportError:
        raise FedSamError(
            "Flower's simulation is not installed: pip install 'napari-fedsam[simulation]', or "
            "use another engine."
        ) from None
    from flwr.simulation import run_simulation

    run_simulation(
        _server_app(coordinator, rounds),
        _client_app([str(site) for site in sites]),
        num_supernodes=len(sites),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


def _server_app(coordinator: Path, rounds: int) -> ServerApp:
    app = ServerApp()

    @app.main()  # type: ignore[untyped-decorator]
    def main(grid: Grid, _context: Context) -> None:
        run_rounds(grid, coordinator, rounds, at_once=_ASKED_PER_WORKER * (os.cpu_count() or 1))

    return app


def _client_app(folders: list[str]) -> ClientApp:
    """Return the ClientApp, told by a simulated node's number which folder it has."""
    app = ClientApp()

    @app.train()  # type: ignore[untyped-decorator]
    def train(message: Message, context: Context) -> Message:
        return client_app.train(message, _at(context, folders))

    @app.evaluate()  # type: ignore[untyped-decorator]
    def evaluate(message: Message, context: Context) -> Message:
        return client_app.evaluate(message, _at(context, folders))

    return app


def _at(context: Context, folders: list[str]) -> Context:
    context.node_config[SITE_FOLDER_KEY] = folders[int(context.node_config[_PARTITION_KEY])]
    return context
