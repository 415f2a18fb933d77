"""Which folder of a site holds what belongs to the federation in use.

A site may take part in several federations, each with a profile: a folder with that federation's
keys, model versions and settings. The first profile is the site's own folder, further ones lie
below `profiles`. Cases and what can be computed again belong to the site, not to a profile.
"""

import re
from pathlib import Path

from napari_fedsam.files import make_private_folder, write_text_atomically
from napari_fedsam.training.errors import TrainingError

PROFILES = "profiles"
FIRST = ""
"""Key of the first profile."""
_ACTIVE = "active"
_KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")


def profile_folder(site: Path, key: str) -> Path:
    """Return the folder of a profile by its key."""
    return site / PROFILES / key if key else site


def active_key(site: Path) -> str:
    """Return the key of the profile in use; the first one where none was chosen.

    Raises
    ------
    TrainingError
        When the choice cannot be read.
    """
    path = site / PROFILES / _ACTIVE
    try:
        key = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return FIRST
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"Which federation is in use cannot be read from {path}; remove the file and choose "
            "again."
        ) from error
    is_there = _KEY.fullmatch(key) and profile_folder(site, key).is_dir()
    return key if is_there else FIRST


def set_active(site: Path, key: str) -> None:
    """Use a profile from now on, in one step."""
    folder = make_private_folder(site / PROFILES)
    write_text_atomically(folder / _ACTIVE, key)
