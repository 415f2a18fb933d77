import datetime
import os
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_private_key

from napari_fedsam.federation.certificates import create_certificates
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import ensure_key_pair, fingerprint, public_key_pem


def test_a_key_pair_is_made_once_and_is_private(tmp_path):
    public = ensure_key_pair(tmp_path)
    private = tmp_path / "key"
    before = private.read_bytes()
    assert ensure_key_pair(tmp_path) == public
    assert private.read_bytes() == before
    if os.name == "posix":
        assert private.stat().st_mode & 0o777 == 0o600


def test_a_lost_public_key_is_made_again_from_the_private_one(tmp_path):
    public = ensure_key_pair(tmp_path)
    before = public.read_text()
    public.unlink()
    assert ensure_key_pair(tmp_path).read_text() == before


def test_the_public_key_belongs_to_the_private_one(tmp_path):
    text = ensure_key_pair(tmp_path).read_text()
    loaded = load_ssh_private_key((tmp_path / "key").read_bytes(), None)
    assert load_pem_public_key(public_key_pem(text)) == loaded.public_key()


def test_fingerprints_differ_between_keys_and_not_by_comments(tmp_path):
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        texts.append(ensure_key_pair(tmp_path / name).read_text())
    assert fingerprint(texts[0]) != fingerprint(texts[1])
    assert fingerprint(texts[0]) == fingerprint(texts[0].strip() + " radiology@example")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not a key",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUF4YeXNxNMIuDZHQwxRH8kmQyEPNTYKbCrLQP5DVjq",
    ],
)
def test_what_is_not_a_sites_key_is_refused_in_words(text):
    with pytest.raises(FederationError, match="key"):
        public_key_pem(text)


def handshake(files, host, trusted):
    """Let a client that trusts `trusted` meet a server with these certificates."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(files.server, files.server_key)
    client_context = ssl.create_default_context(cafile=str(trusted))
    # The strictest check that Python offers; the default from 3.13 on.
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    left, right = socket.socketpair()

    def serve():
        try:
            server_context.wrap_socket(left, server_side=True).close()
        except (ssl.SSLError, OSError):
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client_context.wrap_socket(right, server_hostname=host).close()
    finally:
        right.close()
        thread.join()


@pytest.mark.parametrize("host", ["fed.hospital.example", "192.0.2.7", "localhost", "127.0.0.1"])
def test_a_client_accepts_the_server_under_each_of_its_names(tmp_path, host):
    files = create_certificates(tmp_path, "A federation", ["fed.hospital.example", "192.0.2.7"])
    handshake(files, host, files.authority)


def test_another_name_and_another_authority_are_refused(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    files = create_certificates(mine, "A federation", ["fed.hospital.example"])
    others = create_certificates(other, "A federation", ["fed.hospital.example"])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(files, "elsewhere.example", files.authority)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(files, "fed.hospital.example", others.authority)


def test_private_keys_are_private_and_the_validity_is_as_asked(tmp_path):
    files = create_certificates(tmp_path, "x" * 100, ["localhost"], valid_days=30)
    if os.name == "posix":
        assert files.authority_key.stat().st_mode & 0o777 == 0o600
        assert files.server_key.stat().st_mode & 0o777 == 0o600
    certificate = x509.load_pem_x509_certificate(files.server.read_bytes())
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert datetime.timedelta(days=30) <= lifetime <= datetime.timedelta(days=32)
