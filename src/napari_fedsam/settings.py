"""Where napari-fedsam keeps what belongs to this user on this machine, and who that is."""

import getpass
import os
from pathlib import Path

import platformdirs

HOME_VARIABLE = "NAPARI_FEDSAM_HOME"


def home() -> Path:
    """Return the folder of this user's site (cases, model versions, federation keys).

    The environment variable `NAPARI_FEDSAM_HOME` overrides the platform's data folder. The folder
    is not created here.
    """
    override = os.environ.get(HOME_VARIABLE)
    if override:
        return Path(override).expanduser().resolve()
    return Path(platformdirs.user_data_dir("napari-fedsam", appauthor=False))


def cache_folder() -> Path:
    """Return the folder for what can be fetched or computed again (model checkpoints)."""
    return Path(platformdirs.user_cache_dir("napari-fedsam", appauthor=False))


def user_name() -> str:
    """Return the login name of whoever runs this; "" where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
