"""The Flower app bundle (FAB): a thin shell around the installed package, pinned by its hash."""

import hashlib
import io
import zipfile
from importlib.resources import files

_MANIFEST = ".info/CONTENT"
_FILES = ("pyproject.toml", "fedsam_app.py")
_DATE = (2024, 10, 1, 0, 0, 0)
_UNIX = 3


def build_bundle() -> bytes:
    """Build the bundle from the template of the installed package.

    The bytes are the same on every operating system and Python version: entries are stored
    uncompressed (deflate differs between zlib builds), with a fixed date, system and line ends.
    Flower's own builder promises that on one system only, and the coordinator's system need not
    be the sites'.
    """
    template = files("napari_fedsam.resources") / "flower_app"
    contents = {name: _with_unix_line_ends((template / name).read_bytes()) for name in _FILES}
    manifest = "\n".join(
        f"{name},{hashlib.sha256(content).hexdigest()},{8 * len(content)}"
        for name, content in contents.items()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(_entry(name), content)
        archive.writestr(_entry(_MANIFEST), manifest)
    return buffer.getvalue()


def bundle_hash() -> str:
    """Return the SHA-256 of the bundle that the installed package builds, as 64 hex digits."""
    return hashlib.sha256(build_bundle()).hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_DATE)
    entry.create_system = _UNIX
    entry.external_attr = 0o644 << 16
    return entry


def _with_unix_line_ends(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n")
