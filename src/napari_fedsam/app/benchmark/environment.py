"""What the numbers of a benchmark depend on beside its data."""

import platform

import torch


def environment() -> dict[str, str]:
    """Return what the numbers depend on."""
    import monai

    from napari_fedsam import __version__

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    return {
        "napari-fedsam": __version__,
        "torch": torch.__version__,
        "monai": monai.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": device,
        "threads": str(torch.get_num_threads()),
    }
