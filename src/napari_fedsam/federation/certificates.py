"""A federation's own certificate authority and the coordinator's server certificate."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import write_private_file
from napari_fedsam.files import write_text_atomically

_CLOCK_TOLERANCE = datetime.timedelta(days=1)
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class CertificateFiles:
    """Where the certificates of a coordinator lie, all PEM-encoded.

    Attributes
    ----------
    authority : Path
        Certificate of the authority; sites trust this one and no other.
    authority_key : Path
        Its private key, readable by its owner only.
    server : Path
        Certificate that SuperLink presents, and the proxy, too, unless one was brought.
    server_key : Path
        Its private key, readable by its owner only.
    """

    authority: Path
    authority_key: Path
    server: Path
    server_key: Path

    @classmethod
    def inside(cls, folder: Path) -> "CertificateFiles":
        """Name the files of a coordinator that keeps its certificates in `folder`."""
        return cls(
            authority=folder / "ca.pem",
            authority_key=folder / "ca.key",
            server=folder / "server.pem",
            server_key=folder / "server.key",
        )


def create_certificates(
    folder: Path, name: str, hosts: Sequence[str], *, valid_days: int = 825
) -> CertificateFiles:
    """Make a certificate authority and a server certificate signed by it.

    Parameters
    ----------
    folder : Path
        An existing private folder; the files of `CertificateFiles.inside` are (re)written.
    name : str
        Name of the federation, shown in both certificates.
    hosts : sequence of str
        Host names and IP addresses under which sites reach the coordinator; loopback is added.
    valid_days : int
        Days for which both certificates hold (825 is the most that clients commonly accept).

    Returns
    -------
    CertificateFiles
        The files written.
    """
    files = CertificateFiles.inside(folder)
    authority_key = ec.generate_private_key(ec.SECP384R1())
    authority = _authority_certificate(authority_key, name, valid_days)
    server_key = ec.generate_private_key(ec.SECP384R1())
    server = (
        _server_request(server_key, [*hosts, *_LOOPBACK], name, authority.subject, valid_days)
        .add_extension(_authority_identifier(authority_key), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    write_private_file(files.authority_key, _private_pem(authority_key))
    write_private_file(files.server_key, _private_pem(server_key))
    write_text_atomically(files.authority, _certificate_pem(authority))
    write_text_atomically(files.server, _certificate_pem(server))
    return files


@dataclass(frozen=True)
class OwnCertificate:
    """A certificate that an organisation's own authority has signed, as PEM files.

    Attributes
    ----------
    certificate : Path
        The server's certificate; intermediate ones may follow it.
    key : Path
        Its private key, without a password.
    authority : Path
        The authority's certificate, which sites will trust.
    """

    certificate: Path
    key: Path
    authority: Path

    @classmethod
    def inside(cls, folder: Path) -> "OwnCertificate":
        """Name the copies in a coordinator's folder."""
        return cls(folder / "own.pem", folder / "own.key", folder / "own-ca.pem")


def install_own_certificate(folder: Path, own: OwnCertificate, host: str) -> OwnCertificate:
    """Check a certificate that was brought, and copy it into the coordinator's folder.

    Raises
    ------
    FederationError
        When a file cannot be read, the key is another one's, or a site would refuse the
        certificate under `host`.
    """
    certificate, key, authority = (
        _content(path) for path in (own.certificate, own.key, own.authority)
    )
    try:
        chain = x509.load_pem_x509_certificates(certificate)
        private_key = serialization.load_pem_private_key(key, None)
        trusted = x509.load_pem_x509_certificates(authority)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FederationError(
            f"{own.certificate}, {own.key} and {own.authority} must be PEM files, the key without "
            "a password."
        ) from error
    if chain[0].public_key() != private_key.public_key():
        raise FederationError(f"The key {own.key} does not belong to {own.certificate}.")
    subject = _alternative_name(host)
    try:
        PolicyBuilder().store(Store(trusted)).build_server_verifier(subject).verify(
            chain[0], chain[1:]
        )
    except VerificationError as error:
        raise FederationError(
            f"Sites would refuse {own.certificate} at {host}: it has expired, was made for another "
            f"name, or is not signed by {own.authority} ({error})."
        ) from error
    installed = OwnCertificate.inside(folder)
    write_private_file(installed.key, key)
    write_text_atomically(installed.certificate, certificate.decode("ascii"))
    write_text_atomically(installed.authority, authority.decode("ascii"))
    return installed


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FederationError(f"{path} cannot be read: {error.strerror}.") from error


def _authority_certificate(
    key: ec.EllipticCurvePrivateKey, name: str, valid_days: int
) -> x509.Certificate:
    subject = _subject(f"{name} certificate authority")
    return (
        _builder(subject, subject, key.public_key(), valid_days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )


def _authority_identifier(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _server_request(
    key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
    name: str,
    issuer: x509.Name,
    valid_days: int,
) -> x509.CertificateBuilder:
    names = [_alternative_name(host) for host in dict.fromkeys(hosts)]
    return (
        _builder(_subject(name), issuer, key.public_key(), valid_days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    valid_days: int,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_TOLERANCE)
        .not_valid_after(now + datetime.timedelta(days=valid_days))
    )


def _subject(name: str) -> x509.Name:
    # X.520 allows 64 characters in a common name.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _alternative_name(host: str) -> x509.IPAddress | x509.DNSName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
