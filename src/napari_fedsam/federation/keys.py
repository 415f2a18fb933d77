"""A site's key pair, in the form that Flower's node authentication expects."""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.files import atomic_path, write_text_atomically

PRIVATE_KEY_NAME = "key"
PUBLIC_KEY_NAME = "key.pub"


def write_private_file(path: Path, content: bytes) -> None:
    """Write a secret that only its owner can read (mode 0600; on Windows the folder's rights)."""
    with atomic_path(path) as temporary:
        if os.name == "posix":
            temporary.chmod(0o600)
        temporary.write_bytes(content)


def ensure_key_pair(folder: Path) -> Path:
    """Make the site's key pair unless there is one, and return the public key's file.

    The private key (`key`, OpenSSH, P-384) never leaves this machine; the public key (`key.pub`)
    is handed to the coordinator for approval.
    """
    private, public = folder / PRIVATE_KEY_NAME, folder / PUBLIC_KEY_NAME
    if not private.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        write_private_file(
            private,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            ),
        )
        public.unlink(missing_ok=True)
    if not public.exists():
        loaded = serialization.load_ssh_private_key(private.read_bytes(), None)
        text = loaded.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        write_text_atomically(public, text.decode("ascii") + "\n")
    return public


def ensure_signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the federation's key for signing invitations; make it the first time (P-384, PEM)."""
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        write_private_file(
            path,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
    loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise FederationError(f"{path} is not the federation's signing key; restore it.")
    return loaded


def public_key_text(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public half of a key as PEM text."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode("ascii")
    )


def public_key_pem(text: str) -> bytes:
    """Convert a public key from OpenSSH text to the PEM bytes that SuperLink registers.

    Raises
    ------
    FederationError
        When the text is not an elliptic-curve public key in OpenSSH form.
    """
    try:
        key = serialization.load_ssh_public_key(text.strip().encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FederationError(
            "This is not a site's public key; ask the site for the text of its file "
            f"{PUBLIC_KEY_NAME} in the folder 'federation'."
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise FederationError(
            "A site's public key must be an elliptic-curve key; ask the site for the file "
            f"{PUBLIC_KEY_NAME} that napari-fedsam made."
        )
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def fingerprint(public_key: str) -> str:
    """Return the short form of a site's public key (OpenSSH text), for comparison by telephone."""
    return short_fingerprint(public_key_pem(public_key))


def short_fingerprint(content: bytes) -> str:
    """Return 80 bits of a SHA-256 as five groups of four digits, such as `3fa2-91bc-...`."""
    digest = hashlib.sha256(content).hexdigest()[:20]
    return "-".join(digest[start : start + 4] for start in range(0, 20, 4))
