"""Tensors that a site keeps from one message of a federation to the next."""

import logging
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_fedsam.files import atomic_path

_log = logging.getLogger(__name__)


def keep_tensors(
    path: Path, tensors: Mapping[str, Tensor], round_number: int, recipe_hash: str
) -> None:
    """Keep tensors with the round and the recipe that they are of, in one step."""
    with atomic_path(path) as temporary:
        about = {"round": str(round_number), "recipe": recipe_hash}
        save_file(dict(tensors), temporary, metadata=about)


def kept_tensors(path: Path, recipe_hash: str) -> tuple[int, dict[str, Tensor]] | None:
    """Return the round and the tensors that were kept under a recipe.

    Returns
    -------
    (int, dict of str to Tensor) or None
        None where nothing is kept, or where the file is damaged: a round goes on without.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            about = stored.metadata() or {}
            if about.get("recipe") != recipe_hash:
                return None
            names = stored.keys()
            return int(about["round"]), {name: stored.get_tensor(name) for name in names}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        _log.warning("%s is damaged and not used: %s", path, error)
        return None
