"""What a site has trained in a round and keeps until the round is judged."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from napari_fedsam.files import atomic_path
from napari_fedsam.personalization.personalised_model import PersonalisedModel, State

_PARTS = ("local", "trained")


@dataclass(frozen=True, eq=False)
class PendingUpdate:
    """A site's parameters after training, before the aggregation.

    Parameters
    ----------
    local : dict of str to tensor
        The local parameters.
    trained : dict of str to tensor
        The shared parameters as this site had trained them.
    """

    local: State
    trained: State


def keep_pending(model: PersonalisedModel, file: Path, number: int) -> None:
    """Write what a model has learnt in a round, in one step.

    Parameters
    ----------
    model : PersonalisedModel
    file : Path
    number : int
        The round's.
    """
    parts = zip(_PARTS, (model.local_state(), model.shared_state()), strict=True)
    state = {f"{part}/{name}": value for part, values in parts for name, value in values.items()}
    with atomic_path(file) as temporary:
        save_file(state, temporary, metadata={"round": str(number), "recipe": model.recipe.hash})


def pending_update(file: Path, number: int, recipe_hash: str) -> PendingUpdate | None:
    """Read what was trained in exactly this round under this recipe, None without it."""
    if not file.exists():
        return None
    with safe_open(file, framework="pt") as stored:
        if stored.metadata() != {"round": str(number), "recipe": recipe_hash}:
            return None
        names = [name.partition("/") for name in stored.keys()]  # noqa: SIM118 - it is no mapping
        local, trained = (
            {name: stored.get_tensor(f"{part}/{name}") for kind, _, name in names if kind == part}
            for part in _PARTS
        )
        return PendingUpdate(local, trained)
