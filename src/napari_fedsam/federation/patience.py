"""Making Flower wait for a SuperLink that is busy.

SuperLink keeps messages and their parts in one SQLite file, for which one request at a time can
write. Flower gives up after five seconds: SuperLink then answers with an internal error, and that
ends the ServerApp and its run. Eight sites on two busy processors are enough for it.
"""

import importlib
from typing import Any

import httpx

from napari_fedsam.federation.errors import FederationError

# Flower's clients wait 30 s for an answer.
_LOCK_MILLISECONDS = 25_000


def be_patient() -> None:
    """Let Flower, in this process, wait longer for its database and ask again after an error.

    Raises
    ------
    FederationError
        When this Flower is not the one whose internals are known.
    """
    database = _known("flwr.supercore.sql_mixin", "SQLITE_PRAGMAS")
    retry = _known("flwr.supercore.retry.http_retry", "_RETRYABLE_STATUS_CODES")
    database.SQLITE_PRAGMAS = (
        *(each for each in database.SQLITE_PRAGMAS if each[0] != "busy_timeout"),
        ("busy_timeout", str(_LOCK_MILLISECONDS)),
    )
    retry._RETRYABLE_STATUS_CODES |= {httpx.codes.INTERNAL_SERVER_ERROR}


def _known(name: str, attribute: str) -> Any:
    # By full name: Flower's packages re-export functions under the names of their modules.
    module = importlib.import_module(name)
    if not hasattr(module, attribute):
        raise FederationError(
            f"Flower's {name}.{attribute} is not as napari-fedsam knows it; reinstall "
            "napari-fedsam with the Flower version that it asks for."
        )
    return module
