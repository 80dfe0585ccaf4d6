"""What the owner hands to one device or to the coordinator's host: a directory with its keys and its way to the fleet.

    bundle.toml     fleet id, index, name, hash of root 1, where the broker is
    identity.key    Ed25519 seed, 64 hexadecimal digits, mode 0600
    seal.key        X25519 secret, the same form; the coordinator's alone
    root.1          the first fleet root, pinned by its hash
    certificate     the owner's certificate of this device
    tls.pem tls.key ca.pem    the broker's door

The owner's desk writes it; agent and coordinator read it, and refuse it whole if anything in it does not fit.
"""

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from nacl import bindings

from hushfleet.configuration import Range, load
from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.wire.documents import COORDINATOR, LARGEST_ROOT_OR_MANIFEST, Cert, Certificate, Root
from hushfleet.wire.framing import Frame, read

SETTINGS, IDENTITY, SEAL = "bundle.toml", "identity.key", "seal.key"
FIRST_ROOT, CERTIFICATE = "root.1", "certificate"
TLS_CERTIFICATE, TLS_KEY, AUTHORITY = "tls.pem", "tls.key", "ca.pem"

_REMEDY = "copy the bundle again from the owner's desk"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A device's bundle, checked.

    Attributes:
        fleet: the fleet's id, 16 bytes.
        index: the roster index; 0 is the coordinator.
        name: the device's name, as certified.
        root_hash: the hash that pins root 1, 32 bytes.
        root: root 1's frame, exact bytes.
        certificate: the device's certificate's frame, exact bytes. Its signature is the receiver's to check, against
            the newest root it knows.
        identity_seed: the Ed25519 seed, 32 bytes; its public key is the certificate's.
        seal_secret: the X25519 secret, 32 bytes; the coordinator's alone.
        tls_certificate, tls_key, authority: PEM files for the connection to the broker.
        broker_host, broker_port: where the broker is unless the configuration says otherwise.
    """

    fleet: bytes
    index: int
    name: str
    root_hash: bytes
    root: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    identity_seed: bytes = field(repr=False)
    seal_secret: bytes | None = field(repr=False)
    tls_certificate: Path
    tls_key: Path
    authority: Path
    broker_host: str
    broker_port: int

    @classmethod
    def load(cls, directory: Path) -> "Bundle":
        """Read and check the bundle in `directory`.

        Raises:
            ConfigurationError: a file is missing, damaged, readable by others or of another device or fleet; the text
                names it and the remedy.
        """
        if not directory.is_dir():
            raise ConfigurationError(f"there is no bundle at {directory}; {_REMEDY}, or name the right directory")
        settings = load(directory / SETTINGS, _Settings)
        cert = _read_certificate(directory / CERTIFICATE, settings)
        bundle = cls(
            fleet=bytes.fromhex(settings.fleet),
            index=settings.index,
            name=settings.name,
            root_hash=bytes.fromhex(settings.root_hash),
            root=_read(directory / FIRST_ROOT),
            certificate=_read(directory / CERTIFICATE),
            identity_seed=read_secret(directory / IDENTITY),
            seal_secret=read_secret(directory / SEAL) if cert.roles & COORDINATOR else None,
            tls_certificate=_present(directory / TLS_CERTIFICATE),
            tls_key=_present(directory / TLS_KEY),
            authority=_present(directory / AUTHORITY),
            broker_host=settings.broker_host,
            broker_port=settings.broker_port,
        )
        _check_private(bundle.tls_key)
        _check_root(directory / FIRST_ROOT, bundle)
        _check_keys(directory, bundle, cert)
        return bundle


@dataclass(frozen=True, slots=True)
class _Settings:
    fleet: str
    index: Annotated[int, Range(0, 2**32 - 1)]
    name: str
    root_hash: str
    broker_host: str
    broker_port: Annotated[int, Range(1, 65535)]

    def __post_init__(self) -> None:
        for key, size in (("fleet", 16), ("root_hash", 32)):
            if _from_hex(getattr(self, key), size) is None:
                raise ConfigurationError(f"{key} is not {2 * size} hexadecimal digits; {_REMEDY}")


def write_settings(*, fleet: bytes, index: int, name: str, root_hash: bytes, broker_host: str, broker_port: int) -> str:
    """The text of bundle.toml. Names and hosts hold no quotes and no control characters: the owner refuses such."""
    return (
        f'fleet = "{fleet.hex()}"\n'
        f"index = {index}\n"
        f'name = "{name}"\n'
        f'root_hash = "{root_hash.hex()}"\n'
        f'broker_host = "{broker_host}"\n'
        f"broker_port = {broker_port}\n"
    )


def read_secret(path: Path) -> bytes:
    """The 32 secret bytes that `path` holds as hexadecimal text.

    Raises:
        ConfigurationError: the file is missing, not of that form, or open to other users.
    """
    content = _read(path)
    _check_private(path)
    secret = _from_hex(content.decode("ascii", "replace").strip(), 32)
    if secret is None:
        raise ConfigurationError(f"{path} is damaged: it does not hold 64 hexadecimal digits; {_REMEDY}")
    return secret


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is missing; {_REMEDY}") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}; run as the user who owns the bundle") from None


def _present(path: Path) -> Path:
    _read(path)
    return path


def _check_private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(f"{path} is open to other users (mode {mode:04o}); run: chmod 600 {path}")


def _from_hex(text: str, size: int) -> bytes | None:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        return None
    return value if len(value) == size else None


def _read_certificate(path: Path, settings: _Settings) -> Cert:
    try:
        document = read(Frame.from_bytes(_read(path)), Certificate)
    except MalformedError as error:
        raise ConfigurationError(f"{path} is damaged: {error}; {_REMEDY}") from None
    cert = document.cert
    if (document.fleet.hex(), cert.index, cert.device) != (settings.fleet.lower(), settings.index, settings.name):
        raise ConfigurationError(
            f"{path} is of device {cert.device!r}, index {cert.index}, but {SETTINGS} is of another; {_REMEDY}"
        )
    return cert


def _check_root(path: Path, bundle: Bundle) -> None:
    try:
        frame = Frame.from_bytes(bundle.root, LARGEST_ROOT_OR_MANIFEST)
        root = read(frame, Root)
    except MalformedError as error:
        raise ConfigurationError(f"{path} is damaged: {error}; {_REMEDY}") from None
    if frame.hash(bundle.fleet) != bundle.root_hash or root.fleet != bundle.fleet or root.version != 1:
        raise ConfigurationError(f"{path} is not the fleet root that {SETTINGS} pins by its hash; {_REMEDY}")


def _check_keys(directory: Path, bundle: Bundle, cert: Cert) -> None:
    public_key, _ = bindings.crypto_sign_seed_keypair(bundle.identity_seed)
    if public_key != cert.key:
        raise ConfigurationError(f"{directory / IDENTITY} is not the key that the certificate names; {_REMEDY}")
    if bundle.seal_secret is not None and bindings.crypto_scalarmult_base(bundle.seal_secret) != cert.seal:
        raise ConfigurationError(f"{directory / SEAL} is not the key that the certificate names; {_REMEDY}")
