"""Where training runs."""

import torch

from napari_fedsam.training.errors import TrainingError


def choose_device(name: str = "auto") -> torch.device:
    """Return a device: "cpu", "cuda", "mps", or the best there is for "auto".

    Raises
    ------
    TrainingError
        When this machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name, False):
        here = ", ".join(kind for kind, there in available.items() if there)
        raise TrainingError(f"This machine has no device '{name}': choose one of {here}.")
    return torch.device(name)
