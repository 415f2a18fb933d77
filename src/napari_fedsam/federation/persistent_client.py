"""Flower's client of a SuperLink, which here does not give up where trying again helps."""

import contextlib
import os
import ssl
import time
from typing import Any

import httpx
from flwr.supernode.fleet_http_client import FleetHttpClient

from napari_fedsam.federation.site_files import SiteFiles

# Flower's patience with a silent node, and the longest pause between two attempts.
_MISSED_SECONDS = 60.0 + 30.0


def persistent_client(files: SiteFiles) -> type[FleetHttpClient]:
    """Return a client for Flower's SuperNode to use instead of its own.

    What it raises as `httpx.RemoteProtocolError`, Flower tries again.

    Parameters
    ----------
    files : SiteFiles
        A successful exchange touches the node file, once that exists.
    """

    class PersistentFleetClient(FleetHttpClient):  # type: ignore[misc]
        """Tries again what Flower would take for the end."""

        def ActivateNode(self, request: Any) -> Any:  # noqa: N802
            try:
                return super().ActivateNode(request)
            except httpx.HTTPStatusError as error:
                refused = error.response.status_code == httpx.codes.PRECONDITION_FAILED
                if not (refused and may_still_be_missed(files)):
                    raise
                raise httpx.RemoteProtocolError(str(error)) from error

        def _send(self, *request: Any, **options: Any) -> Any:
            try:
                return super()._send(*request, **options)
            except httpx.TransportError as error:
                if not _was_cut(error):
                    raise
                # Flower takes every word of TLS for a refused certificate.
                raise httpx.RemoteProtocolError("The connection was cut.") from error

        def _unary_unary(self, **request: Any) -> Any:
            try:
                response = super()._unary_unary(**request)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
                    raise
                # A coordinator in trouble, as with a full disk, would end Flower's node; one
                # that is away is asked again.
                raise httpx.RemoteProtocolError(str(error)) from error
            with contextlib.suppress(OSError):
                if files.node.exists():
                    os.utime(files.node)
            return response

    return PersistentFleetClient


def may_still_be_missed(files: SiteFiles) -> bool:
    """Tell whether SuperLink may still count the node before this one, if it was killed.

    It refuses a second one until heartbeats have been missing for long enough, in the words in
    which it refuses an unknown key.
    """
    try:
        return time.time() - files.last_node.stat().st_mtime < _MISSED_SECONDS
    except FileNotFoundError:
        return False


def _was_cut(error: BaseException | None) -> bool:
    """Tell whether a TLS connection ended in the middle, as when a cable is pulled out."""
    while error is not None:
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return True
        error = error.__cause__ or error.__context__
    return False
