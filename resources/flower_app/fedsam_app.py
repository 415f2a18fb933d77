"""The Flower apps of the installed napari-fedsam package, and nothing else."""

from napari_fedsam.federation.client_app import app as client_app
from napari_fedsam.federation.server_app import app as server_app

__all__ = ["client_app", "server_app"]
