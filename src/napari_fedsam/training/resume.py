"""A local update's state on disk, so that an interrupted one goes on exactly where it was."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_fedsam.files import atomic_path


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Everything that the next step depends on.

    Parameters
    ----------
    fingerprint : str
        What the update was started with; a state with another one is not used.
    tensors : dict of str to tensor
        Parameters and the optimiser's moments.
    progress : dict
        Phase, step, sampler and losses, fit for JSON.
    """

    fingerprint: str
    tensors: dict[str, torch.Tensor]
    progress: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the state in one step."""
        metadata = {"fingerprint": self.fingerprint, "progress": json.dumps(self.progress)}
        with atomic_path(path) as temporary:
            save_file(self.tensors, temporary, metadata=metadata)

    @classmethod
    def read(cls, path: Path, fingerprint: str) -> "TrainingState | None":
        """Read a state; None when there is none, it is damaged, or of another update."""
        try:
            with safe_open(path, framework="pt") as stored:
                metadata: Mapping[str, str] = stored.metadata() or {}
                if metadata.get("fingerprint") != fingerprint:
                    return None
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
            return cls(fingerprint, tensors, json.loads(metadata["progress"]))
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
