"""Keyed hashes that stand for scans and patients.

Without the site's secret a pseudonym cannot be traced back by trying patient numbers, and the same
patient has unrelated pseudonyms at two sites.
"""

import hashlib
import hmac
import logging
import re
import secrets
import unicodedata
from pathlib import Path

from napari_fedsam.cases.errors import CaseStoreError
from napari_fedsam.cases.layout import case_names
from napari_fedsam.files import atomic_path

_log = logging.getLogger(__name__)
_DIGITS = 16
_SECRET = re.compile(r"[0-9a-f]{64}")


class Pseudonyms:
    """Makes this site's pseudonyms.

    Parameters
    ----------
    secret : bytes
        32 random bytes that never leave the site.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, text: str) -> str:
        """Return the pseudonym of a scan's or patient's key: 16 hexadecimal digits.

        Spaces around the text (DICOM pads with them) and the way that accents are encoded do not
        matter.
        """
        normal = unicodedata.normalize("NFC", text.strip())
        return hmac.digest(self._secret, normal.encode(), hashlib.sha256).hex()[:_DIGITS]


def open_pseudonyms(secret_file: Path) -> Pseudonyms:
    """Read the site's secret, making it (readable by its owner only) where no case exists yet.

    Raises
    ------
    CaseStoreError
        When the secret is lost or damaged although cases exist: with another one the same patient
        would get a second pseudonym.
    OSError
        When the file cannot be read or written.
    """
    if not secret_file.exists() and not any(case_names(secret_file.parent)):
        with atomic_path(secret_file) as temporary:
            temporary.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
        _log.info("Made a new secret for pseudonyms")
    text = secret_file.read_text("ascii", "replace").strip() if secret_file.exists() else ""
    if not _SECRET.fullmatch(text):
        raise CaseStoreError(
            f"The key of the pseudonyms, {secret_file}, is missing or damaged; restore it from a "
            "backup, or keep new cases in another folder."
        )
    return Pseudonyms(bytes.fromhex(text))
