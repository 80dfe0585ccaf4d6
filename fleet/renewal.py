"""Certificates over time: what runs out soon, and new ones before it does (docs/operations.md).

A device has two: the owners' certificate, which reaches it over the broker, and its TLS certificate, which is carried
to it with the authority's. The authority renews its certificate with the same key, so that old and new ones of both
sides fit each other and everything can be exchanged one after the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fleet import transport
from fleet.composition import DAY, day, expiry_warnings
from fleet.desk import Desk
from hushfleet import bundle
from hushfleet.errors import ConfigurationError
from hushfleet.mqtt.validity import NOTICE, not_after

SHOWN = 5
"""Devices that one warning names."""


def renew_broker(desk: Desk, hosts: Sequence[str]) -> None:
    """New certificates for the authority, which keeps its key, the broker and the operator's tools.

    Args:
        hosts: names and addresses under which clients reach the broker from now on; none for those it had.

    Raises:
        ConfigurationError: a host that is neither, or files that cannot be read or written.
    """
    authority = transport.renew_authority(desk.authority())
    register = desk.register()
    if hosts:
        register = replace(register, hosts=tuple(hosts))
    broker = transport.issue_broker(authority, register.hosts)
    transport.write_file(desk.transport / "ca.pem", authority.certificate_pem, 0o644)
    desk.save(register)
    desk.write_broker(broker, transport.issue_client(authority, "operator"))


def renew_device(desk: Desk, name: str, *, now: int) -> Path:
    """New certificates for one device, or for the coordinator.

    Args:
        name: of a device that is not revoked.
        now: seconds since 1970 UTC.

    Returns:
        The directory with the files to copy over the device's own.

    Raises:
        ConfigurationError: there is no such device, it is revoked, or files cannot be read or written.
    """
    register = desk.register()
    line = register.line(name)
    if line.revoked:
        raise ConfigurationError(f"{name} is revoked, which is for ever; add the device under a new name")
    cert = desk.cert(line.index)
    until = now + desk.settings().validity.certificates * DAY
    cert = replace(cert, not_after=max(until, cert.not_after), serial=cert.serial + 1)
    certificate = desk.keyring.owner(desk.newest_root()).certificate(cert, issued=now)
    authority = desk.authority()
    client = transport.issue_client(authority, str(line.index))
    # First of all, so that a revocation names every certificate that may be out there.
    desk.save(register.with_tls(name, client.serial, min(client.not_after, authority.not_after)))
    transport.write_file(desk.documents / "cert" / str(line.index), certificate.to_bytes(), 0o644)
    directory = desk.devices / name
    directory.mkdir(mode=0o700, exist_ok=True)
    transport.write_file(directory / bundle.CERTIFICATE, certificate.to_bytes(), 0o644)
    desk.write_tls(directory, client)
    return directory


def warnings(desk: Desk, now: int) -> list[str]:
    """What runs out within half a year, and the command that renews it."""
    renew = f"hushfleet fleet renew {desk.directory}"
    found = []
    ends = {name: not_after(desk.transport / f"{name}.pem") for name in ("ca", "broker", "operator")}
    if (first := min(ends.values())) < now + NOTICE:
        found.append(
            f"the broker's certificates run out on {day(first)}, and with them every connection; make new ones in "
            f"time: {renew}"
        )
    devices = {line.name: min(desk.cert(line.index).not_after, line.tls_until) for line in desk.lines_in_force()}
    late = sorted((name for name, end in devices.items() if end < now + NOTICE), key=devices.__getitem__)
    if late:
        more = f" and {len(late) - SHOWN} more" if len(late) > SHOWN else ""
        found.append(
            f"the certificates of {', '.join(late[:SHOWN])}{more} run out, the first on {day(devices[late[0]])}; make "
            f"new ones in time: {renew} NAME…"
        )
    return found


def list_warnings(desk: Desk, now: int) -> Iterator[str]:
    """Everything of a fleet that runs out soon, documents and root among it."""
    date = desk.date()
    if date is not None:
        yield from expiry_warnings(desk.newest_root(), date.not_after, now)
    yield from warnings(desk, now)
