"""`hushfleet fleet`: the owners' desk, offline."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
from nacl.utils import random

from firmware_profiles import catalog
from fleet import renewal, rotation
from fleet.composition import Composition, day
from fleet.desk import Desk
from hushfleet.wire.documents import MEMBER, PARTICIPANT

_ROLES = {"participant": PARTICIPANT, "member": MEMBER, "both": PARTICIPANT | MEMBER}
_KEYS = {"root": "root", "signer": "signer", "freshness": "fresh"}
LARGEST_KEY_COUNT = 10
"""Keys of one role: the old and the new root's signatures fit into one frame."""

_directory = click.argument("directory", type=click.Path(path_type=Path))


@click.group()
def fleet() -> None:
    """Make a fleet's keys and certificates, and sign what its devices obey."""


@fleet.command()
@_directory
@click.option("--host", "hosts", multiple=True, required=True, help="Name or address of the broker; may be repeated.")
@click.option("--port", type=click.IntRange(1, 65535), default=8883, show_default=True, help="The broker's TLS port.")
@click.option(
    "--settings", type=click.Path(path_type=Path), help="A fleet.toml to start from instead of the commented defaults."
)
def init(directory: Path, hosts: tuple[str, ...], port: int, settings: Path | None) -> None:
    """Make a new fleet in DIRECTORY: the owners' keys, the broker's and the coordinator's."""
    desk = Desk.create(directory, hosts=hosts, port=port, settings=settings, draw=random, now=_now())
    click.echo(f"fleet {desk.fleet().hex()} is in {directory}; its root's hash is {desk.root_hash().hex()}")
    click.echo(f"keep {desk.keys} offline and backed up: whoever holds it owns the fleet")
    click.echo(f"next: edit {directory / 'fleet.toml'}, add devices (hushfleet fleet add), then hushfleet fleet sign")
    click.echo(f"then the broker: hushfleet broker run --fleet {directory}")


@fleet.command()
@_directory
@click.argument("names", nargs=-1, required=True)
@click.option("--role", type=click.Choice(list(_ROLES)), default="participant", show_default=True)
@click.option(
    "--profile",
    default="gateway-wifi",
    show_default=True,
    help=f"Firmware profile: {', '.join(catalog.names())}, or the path of a file of your own.",
)
def add(directory: Path, names: tuple[str, ...], role: str, profile: str) -> None:
    """Add devices; each gets a bundle in DIRECTORY/devices to copy to it."""
    with Desk.open(directory) as desk:
        desk.add(names, _ROLES[role], profile, draw=random, now=_now())
        for name in names:
            click.echo(f"{name}: index {desk.register().line(name).index}, bundle {desk.devices / name}")
    click.echo(f"in force after: hushfleet fleet sign {directory}")


@fleet.command("list")
@_directory
def list_devices(directory: Path) -> None:
    """Show every device ever added, until when its certificates hold, and warn of what runs out soon."""
    rows = [("index", "name", "roles", "profile", "certificate", "TLS", "revoked")]
    with Desk.open(directory) as desk:
        for line in desk.register().lines:
            cert = desk.cert(line.index)
            roles = next((name for name, bits in _ROLES.items() if bits == cert.roles), "coordinator")
            revoked = day(line.revoked) if line.revoked else "-"
            ends = (day(cert.not_after), day(line.tls_until))
            rows.append((str(line.index), line.name, roles, cert.profile or "-", *ends, revoked))
        warnings = [*renewal.list_warnings(desk, _now())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    _warn(warnings)


@fleet.command()
@_directory
def sign(directory: Path) -> None:
    """Sign what fleet.toml and the devices now are; run it again before the manifest runs out."""
    with Desk.open(directory) as desk:
        _sign(desk)


@fleet.command()
@_directory
@click.argument("name")
def revoke(directory: Path, name: str) -> None:
    """Take a device out of the fleet for ever, and sign."""
    with Desk.open(directory) as desk:
        desk.revoke(name, now=_now())
        click.echo(f"{name} is revoked; give {desk.transport / 'crl.pem'} to the broker")
        if desk.is_signed():
            _sign(desk)


@fleet.command()
@_directory
@click.argument("names", nargs=-1)
@click.option("--host", "hosts", multiple=True, help="New name or address of the broker; may be repeated.")
def renew(directory: Path, names: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    """Make new certificates for the devices (or the coordinator) named; without names, for the broker.

    The old ones stay good until they run out, so that everything can be exchanged one after the other.
    """
    if names and hosts:
        raise click.UsageError("--host is the broker's; renew it without naming devices")
    with Desk.open(directory) as desk:
        if not names:
            renewal.renew_broker(desk, hosts)
            click.echo(f"copy {desk.transport} to the broker and restart it; bundles carry the new authority from now")
            click.echo("devices trust the old authority until its end: renew them before that")
        for name in names:
            files = renewal.renew_device(desk, name, now=_now())
            click.echo(f"{name}: copy tls.pem, tls.key and ca.pem from {files} into its bundle, then restart it")
        if names and desk.is_signed():
            _sign(desk)


@fleet.command()
@_directory
@click.option("--root", is_flag=True, help="New root keys: who may make roots.")
@click.option("--signer", is_flag=True, help="New signer keys: who may sign documents and certificates.")
@click.option("--freshness", is_flag=True, help="New freshness keys: who may re-date unchanged documents.")
@click.option(
    "--threshold",
    "thresholds",
    type=(click.Choice(list(_KEYS)), click.IntRange(1, LARGEST_KEY_COUNT), click.IntRange(1, LARGEST_KEY_COUNT)),
    multiple=True,
    metavar="KEYS N M",
    help="From now on N of M root, signer or freshness keys must sign; else as many as before. May be repeated.",
)
def rotate(
    directory: Path, root: bool, signer: bool, freshness: bool, thresholds: tuple[tuple[str, int, int], ...]
) -> None:
    """Replace keys of the owners by new ones, under a new root that the old and the new root keys sign."""
    renewed = _renewed({"root": root, "signer": signer, "freshness": freshness}, thresholds)
    with Desk.open(directory) as desk:
        composition, gone = rotation.rotate(desk, renewed, draw=random, now=_now())
        _tell(composition)
        click.echo(f"{len(gone)} old keys are in {desk.keyring.retired}; back up {desk.keys} anew before anything else")
    click.echo("then bring the documents to the coordinator as after every signature")


@fleet.command()
@_directory
@click.option("--days", type=click.IntRange(1, 3_653), help="How long from now; as fleet.toml says if not given.")
def date(directory: Path, days: int | None) -> None:
    """Let the documents last longer, unchanged; this needs no key but the freshness key."""
    with Desk.open(directory) as desk:
        _tell(rotation.redate(desk, days=days, now=_now()))


def _renewed(
    chosen: Mapping[str, bool], thresholds: tuple[tuple[str, int, int], ...]
) -> dict[str, tuple[int, int] | None]:
    """What `rotation.rotate` takes: the roles to renew, with (number of keys, threshold) where one is named."""
    if not any(chosen.values()):
        raise click.UsageError("name the keys to replace: --root, --signer or --freshness")
    renewed: dict[str, tuple[int, int] | None] = {_KEYS[name]: None for name, wanted in chosen.items() if wanted}
    for name, needed, number in thresholds:
        if _KEYS[name] not in renewed:
            raise click.UsageError(f"--threshold {name} goes with --{name}: the number changes with the keys")
        if needed > number:
            raise click.UsageError(f"--threshold {name} {needed} {number}: {needed} of {number} keys can never sign")
        renewed[_KEYS[name]] = (number, needed)
    return renewed


def _sign(desk: Desk) -> None:
    _tell(desk.sign(draw=random, now=_now()))
    _warn(renewal.warnings(desk, _now()))


def _tell(composition: Composition) -> None:
    for change in composition.changes:
        click.echo(change)
    _warn(composition.warnings)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _now() -> int:
    return int(time.time())
