"""Flower's ServerApp: rounds of one federation, resumed from the newest checkpoint."""

import contextlib
import datetime
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.logger import FLOWER_LOGGER

from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.coordinator_settings import COORDINATOR_VARIABLE, CoordinatorFiles
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.messages import SharedSpec
from napari_fedsam.federation.patience import be_patient
from napari_fedsam.federation.processes import rotated_log
from napari_fedsam.federation.room import lack_of_room
from napari_fedsam.federation.round_runner import RoundRunner
from napari_fedsam.federation.sites import SiteList
from napari_fedsam.files import make_private_folder
from napari_fedsam.personalization.personalised_model import State, build_personalised_model
from napari_fedsam.personalization.recipe import Recipe

_log = logging.getLogger(__name__)

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Run as many rounds as the run's configuration says.

    The coordinator's folder comes through the environment: the bundle must not depend on it, for
    its hash is the same at every coordinator.
    """
    folder = os.environ.get(COORDINATOR_VARIABLE)
    if not folder:
        raise FederationError(
            "The ServerApp was started without a coordinator's folder; start rounds with "
            "'napari-fedsam coordinator run'."
        )
    with _logged(CoordinatorFiles(Path(folder))):
        be_patient()
        run_rounds(grid, Path(folder), int(context.run_config["rounds"]))


@contextlib.contextmanager
def _logged(files: CoordinatorFiles) -> Iterator[None]:
    """Write what happens into a log of our own: Flower throws away what its apps print."""
    log = files.serverapp_log
    make_private_folder(log.parent)
    # Another ServerApp that is at work still writes into it.
    if not CheckpointStore(files.folder).in_use:
        log = rotated_log(log.parent, log.stem)
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("napari_fedsam")
    ours.setLevel(logging.INFO)
    for logger in (ours, FLOWER_LOGGER):
        logger.addHandler(handler)
    try:
        yield
    except FedSamError as error:
        # Our own errors say in words what the matter is.
        _log.error("%s", error)
        raise
    except Exception:
        _log.exception("The rounds failed.")
        raise
    finally:
        for logger in (ours, FLOWER_LOGGER):
            logger.removeHandler(handler)
        handler.close()


def run_rounds(grid: Grid, folder: Path, rounds: int, *, at_once: int | None = None) -> None:
    """Run rounds on any engine.

    Parameters
    ----------
    grid : Grid
        Flower's real grid, its simulation's, or `InProcessGrid`.
    folder : Path
        The coordinator's folder with `recipe.json` and `rounds`.
    rounds : int
        How many rounds to run now; fewer when the coordinator is paused, the hours end or its disk
        is full.
    at_once : int, optional
        How many sites are asked at a time; all by default.

    Raises
    ------
    FederationError
        When another ServerApp runs rounds in this folder.
    """
    store = CheckpointStore(folder)
    with store.alone():
        store.remove_unfinished()
        _run_rounds(grid, CoordinatorFiles(folder), store, rounds, at_once)


def _run_rounds(
    grid: Grid, files: CoordinatorFiles, store: CheckpointStore, rounds: int, at_once: int | None
) -> None:
    recipe = Recipe.read(files.recipe)
    spec, start = _step_zero(recipe)

    def may_start() -> bool:
        now = datetime.datetime.now().astimezone().time()
        if files.paused.exists() or lack_of_room(files.folder):
            return False
        return recipe.federation.may_start(now)

    runner = RoundRunner(
        grid,
        recipe,
        spec,
        start,
        store,
        name_of=SiteList(files.sites).name_of,
        at_once=at_once,
    )
    runner.run(rounds, may_start=may_start)


def _step_zero(recipe: Recipe) -> tuple[SharedSpec, State]:
    """Return what is shared, and what the first round starts from; the network is let go."""
    model = build_personalised_model(recipe)
    return model.shared_spec(), model.shared_state()
