"""Flower's ServerApp: rounds of one federation, resumed from the newest checkpoint."""

import datetime
import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.coordinator_settings import COORDINATOR_VARIABLE, CoordinatorFiles
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.messages import SharedSpec
from napari_fedsam.federation.patience import be_patient
from napari_fedsam.federation.room import lack_of_room
from napari_fedsam.federation.round_runner import RoundRunner
from napari_fedsam.federation.sites import SiteList
from napari_fedsam.personalization.personalised_model import State, build_personalised_model
from napari_fedsam.personalization.recipe import Recipe

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
    be_patient()
    run_rounds(grid, Path(folder), int(context.run_config["rounds"]))


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
    """
    files = CoordinatorFiles(folder)
    recipe = Recipe.read(files.recipe)
    spec, start = _step_zero(recipe)
    store = CheckpointStore(folder)
    store.remove_unfinished()

    def may_start() -> bool:
        now = datetime.datetime.now().astimezone().time()
        if files.paused.exists() or lack_of_room(folder):
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
