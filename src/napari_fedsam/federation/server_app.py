"""Flower's ServerApp: rounds of one federation, resumed from the newest checkpoint."""

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.coordinator_status import COORDINATOR_VARIABLE, RECIPE_NAME
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.messages import config_record, shared_record
from napari_fedsam.federation.strategy import CheckedFedAvg
from napari_fedsam.personalization.personalised_model import build_personalised_model
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
    run_rounds(grid, Path(folder), int(context.run_config["rounds"]))


def run_rounds(grid: Grid, folder: Path, rounds: int, *, timeout: float = 3600.0) -> None:
    """Run rounds on any engine.

    Parameters
    ----------
    grid : Grid
        Flower's real grid, its simulation's, or `InProcessGrid`.
    folder : Path
        The coordinator's folder with `recipe.json` and `rounds`.
    rounds : int
        How many rounds to run now.
    timeout : float
        Seconds for which replies are awaited in each half of a round.
    """
    recipe = Recipe.read(folder / RECIPE_NAME)
    model = build_personalised_model(recipe)
    store = CheckpointStore(folder)
    store.remove_unfinished()
    shared = store.newest(recipe.hash)
    if shared is None:
        shared = model.shared_state()
    strategy = CheckedFedAvg(recipe.hash, model.shared_spec(), recipe.minimum_sites, store)
    strategy.start(
        grid,
        shared_record(shared),
        num_rounds=rounds,
        timeout=timeout,
        train_config=config_record(recipe.hash),
        evaluate_config=config_record(recipe.hash),
    )
