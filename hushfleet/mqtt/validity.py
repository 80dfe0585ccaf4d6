"""When the certificates of a connection run out: the one field of X.509 that a device has to know of its own files.

A full reader of X.509 is a library that gateways do without; OpenSSL judges everything else at the handshake.
"""

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from hushfleet.errors import ConfigurationError

NOTICE = 180 * 86_400
"""Seconds before the end of a certificate at which people are told: renewing a fleet takes visits."""

_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
_FORMATS = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}


def not_after(path: Path) -> int:
    """The last second, since 1970 UTC, in which a certificate holds (RFC 5280, section 4.1.2.5).

    Args:
        path: a file with one certificate in PEM form.

    Raises:
        ConfigurationError: the file cannot be read or holds no certificate.
    """
    try:
        data = ssl.PEM_cert_to_DER_cert(path.read_text("ascii"))
        start, _ = _enter(data, 0)  # Certificate
        at, _ = _enter(data, start)  # TBSCertificate
        if data[at] == _VERSION:
            at = _enter(data, at)[1]
        for _ in ("serial number", "signature algorithm", "issuer"):
            at = _enter(data, at)[1]
        at, _ = _enter(data, at)  # Validity
        at = _enter(data, at)[1]
        start, end = _enter(data, at)
        moment = datetime.strptime(data[start:end].decode("ascii"), _FORMATS[data[at]])
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, LookupError):
        raise ConfigurationError(f"{path} holds no certificate in PEM form; copy it again from the fleet") from None
    return int(moment.replace(tzinfo=UTC).timestamp())


def expiring(paths: Iterable[Path], now: float) -> list[str]:
    """Which of these certificates have run out or soon will, in words with the remedy.

    Raises:
        ConfigurationError: as `not_after`.
    """
    ends = {path: not_after(path) for path in paths}
    return [
        f"{path} {'has run out' if end < now else 'runs out'} on {datetime.fromtimestamp(end, UTC).date()}; the owner "
        "makes a new one with hushfleet fleet renew"
        for path, end in ends.items()
        if end < now + NOTICE
    ]


def _enter(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER element at `at` starts and ends."""
    size, start = data[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[at + 2 : start], "big")
    return start, start + size
