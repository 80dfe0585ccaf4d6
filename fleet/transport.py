"""The fleet's own transport authority: who may open a TLS connection to the broker (docs/operations.md).

It guards availability and metadata, never updates: those are guarded by the owner's keys and the devices' signatures,
and none of the keys made here is one of them. A client's common name is its roster index in decimal, so that the
broker's access list can compare it with the device named in a topic.
"""

import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hushfleet.errors import ConfigurationError

# A gateway without a battery-backed clock must connect before it can learn the time.
NOT_BEFORE = datetime(1970, 1, 1, tzinfo=UTC)
LIFETIME = timedelta(days=3653)

_COMMON_NAME = re.compile(r"[a-z0-9-]{1,64}")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}\.?)+")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its certificate.

    Attributes:
        key_pem: ECDSA P-256, PKCS#8, not encrypted.
        certificate_pem: the X.509 certificate, signed directly by the fleet's authority.
    """

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes

    @property
    def serial(self) -> int:
        """The certificate's X.509 serial number, by which `revocation_list` names it."""
        return x509.load_pem_x509_certificate(self.certificate_pem).serial_number

    @property
    def not_after(self) -> int:
        """The last second, since 1970 UTC, in which the certificate holds."""
        return int(x509.load_pem_x509_certificate(self.certificate_pem).not_valid_after_utc.timestamp())


class Authority(KeyPair):
    """The transport authority of one fleet; its certificate is the only trust anchor of broker and clients."""

    __slots__ = ()


def create_authority(fleet_name: str) -> Authority:
    """Make a new authority, valid from 1970 for ten years from now; it signs certificates and revocation lists only.

    Raises:
        ConfigurationError: `fleet_name` is empty or longer than 40 characters.
    """
    if not 1 <= len(fleet_name) <= 40:
        raise ConfigurationError(f"the fleet's name {fleet_name!r} must have 1 to 40 characters; choose a shorter one")
    return _certify_itself(ec.generate_private_key(ec.SECP256R1()), _name(f"{fleet_name} transport authority"))


def renew_authority(authority: Authority) -> Authority:
    """The same authority, by key and name, with a certificate of ten years from now.

    What it issued stays good under either certificate, each for as long as it holds itself.
    """
    key, certificate = _load(authority)
    return _certify_itself(key, certificate.subject)


def issue_broker(authority: Authority, hosts: Sequence[str]) -> KeyPair:
    """Issue the broker's certificate for the names and addresses its clients connect to; serverAuth only.

    Args:
        hosts: DNS names or IP addresses, at least one.

    Raises:
        ConfigurationError: no host, or one that is neither a DNS name nor an address.
    """
    if not hosts:
        raise ConfigurationError("the broker's certificate needs at least one --host: the name its clients connect to")
    alternatives = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    return _issue(authority, "broker", ExtendedKeyUsageOID.SERVER_AUTH, alternatives)


def issue_client(authority: Authority, common_name: str) -> KeyPair:
    """Issue a client's certificate; clientAuth only.

    Args:
        common_name: the roster index in decimal for devices and the coordinator, or the name of an operator's tool:
            1 to 64 of a-z, 0-9 and "-", because the broker puts it into topic patterns.

    Raises:
        ConfigurationError: another character in the name.
    """
    if not _COMMON_NAME.fullmatch(common_name):
        raise ConfigurationError(
            f"{common_name!r} cannot be a client's common name; use the roster index or 1 to 64 of a-z, 0-9 and '-'"
        )
    return _issue(authority, common_name, ExtendedKeyUsageOID.CLIENT_AUTH, None)


def revocation_list(authority: Authority, serials: Iterable[int]) -> bytes:
    """A signed list of the revoked certificates' serial numbers, PEM.

    Its next update is ten years away: the broker refuses every client once a list has expired. Its own date is 1970, so
    that a broker whose clock is behind takes it too. Give it to the broker only when something is revoked.
    """
    now = datetime.now(UTC)
    ca_key, ca_certificate = _load(authority)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca_certificate.subject)
        .last_update(NOT_BEFORE)
        .next_update(now + LIFETIME)
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    for serial in sorted(set(serials)):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOT_BEFORE).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def write_key_pair(directory: Path, stem: str, pair: KeyPair) -> None:
    """Write `stem`.pem and `stem`.key (mode 0600) into `directory`, each replaced as a whole.

    Raises:
        ConfigurationError: the directory does not exist or cannot be written.
    """
    write_file(directory / f"{stem}.key", pair.key_pem, mode=0o600)
    write_file(directory / f"{stem}.pem", pair.certificate_pem, mode=0o644)


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Replace `path` by `content` with exactly `mode`; the file is complete on disk or the old one is still there.

    Raises:
        ConfigurationError: the directory does not exist or cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}; make the directory writable") from error


def sync_directory(directory: Path) -> None:
    """Make what was renamed into or out of a directory last: the order of files holds over a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _certify_itself(key: ec.EllipticCurvePrivateKey, name: x509.Name) -> Authority:
    certificate = (
        _builder(name, name, key.public_key(), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(_key_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def _issue(
    authority: Authority, common_name: str, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
) -> KeyPair:
    ca_key, ca_certificate = _load(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(common_name), ca_certificate.subject, key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())
    return KeyPair(_key_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(datetime.now(UTC) + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST_NAME.fullmatch(host):
            raise ConfigurationError(f"--host {host!r} is neither a DNS name nor an IP address") from None
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _load(authority: Authority) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(authority.key_pem, password=None)
        certificate = x509.load_pem_x509_certificate(authority.certificate_pem)
    except ValueError as error:
        raise ConfigurationError(
            "the transport authority's files ca.key and ca.pem are damaged; restore them from the owner's backup"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError("the authority's ca.key does not belong to its ca.pem; restore both together")
    return key, certificate


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
