"""Reading what Flower's node says about its connection, and telling it in one sentence."""

import time
from pathlib import Path

from napari_fedsam.federation.site_state import Phase

# Heartbeats go out every 20 s; while waiting, the node asks for messages every 3 s.
_PATIENCE_BUSY = 60.0
_PATIENCE_WAITING = 15.0

_RETRYING = "Connection attempt failed"

# What Flower, OpenSSL or our own entry point write, in lower case, and what it means; the more
# particular ones come first.
_REASONS = (
    (
        "[code: 2004]",
        "The coordinator does not know this site's key, or has revoked it; send it the file "
        "key.pub from the site's folder 'federation' for approval, then join again.",
    ),
    (
        "certificate has expired",
        "The coordinator's certificate has expired; ask the coordinator to renew it.",
    ),
    (
        "certificate is not yet valid",
        "The coordinator's certificate is not valid yet; check the clock of this computer.",
    ),
    (
        "mismatch, certificate is not valid for",
        "The coordinator's certificate was made for another address; check the address in the "
        "invitation with the coordinator.",
    ),
    (
        "certificate_verify_failed",
        "The coordinator could not prove who it is (its certificate is not signed by this "
        "federation's authority); do not go on, and ask the coordinator for a new invitation.",
    ),
    (
        "exit code: 606",
        "The coordinator runs another version of Flower; install the napari-fedsam version that "
        "the coordinator uses.",
    ),
    (
        "address already in use",
        "Another program took the local port at the same moment; join again.",
    ),
    (
        "only one usage of each socket address",
        "Another program took the local port at the same moment; join again.",
    ),
    (
        "the start-up test failed",
        "The installed Flower would run code that this site has not agreed to, so nothing was "
        "started; reinstall napari-fedsam with the Flower version that it asks for.",
    ),
    (
        "is not as napari-fedsam knows it",
        "The installed Flower is not the version that napari-fedsam needs, so nothing was started; "
        "reinstall napari-fedsam.",
    ),
    (
        "could not be acquired",
        "Another program has joined with this site's folder; leave there first.",
    ),
)


def connection_report(node_file: Path, log: str, address: str, phase: Phase) -> str | None:
    """Tell why a running node is not connected, or return None when it is.

    Parameters
    ----------
    node_file : Path
        Written once the coordinator has accepted the node; its time is the last contact.
    log : str
        The node's log.
    address : str
        Address of the coordinator.
    phase : Phase
        What the ClientApp says: a node in the middle of a round is heard less often.
    """
    try:
        contact = node_file.stat().st_mtime
    except FileNotFoundError:
        if _RETRYING in log:
            return f"The coordinator at {address} does not answer; trying again."
        return f"Connecting to the coordinator at {address}."
    busy = phase in (Phase.TRAINING, Phase.SENDING)
    silence = time.time() - contact
    if silence > (_PATIENCE_BUSY if busy else _PATIENCE_WAITING):
        return f"The coordinator at {address} has not answered for {silence:.0f} s; trying again."
    return None


def certificate_reason(words: str) -> str:
    """Tell why the coordinator's certificate was refused, from OpenSSL's or httpx's words."""
    lowered = words.lower()
    for known, reason in _REASONS:
        if known in lowered:
            return reason
    return f"There is no encrypted connection to the coordinator ({words}); call it."


def reason_of_end(log: str, *, was_connected: bool, log_file: str) -> str:
    """Tell why a node that should be running has ended, and what to do.

    Parameters
    ----------
    log : str
        The node's log.
    was_connected : bool
        Whether the coordinator had accepted it.
    log_file : str
        Path of the log, for the reasons that are not known.
    """
    lowered = log.lower()
    for words, reason in _REASONS:
        if words in lowered:
            return reason
    if was_connected and "terminated gracefully" in lowered:
        return (
            "The coordinator has ended this site's access; ask it why, and for a new approval "
            "with a new key."
        )
    return f"The connection to the coordinator ended; its log is {log_file}. Try to join again."
