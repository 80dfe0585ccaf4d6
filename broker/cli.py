"""`hushfleet broker`: Mosquitto's configuration for a fleet, running it, and looking after it."""

import os
import resource
import time
from pathlib import Path

import click

from broker.directory import FleetDirectory
from broker.leftovers import unexplained
from broker.local import check_address
from broker.render import OPERATOR, Configuration, access_list, configuration
from hushfleet.errors import ConfigurationError
from hushfleet.mosquitto import find_mosquitto
from hushfleet.mqtt.events import LinkSettings
from hushfleet.mqtt.validity import expiring

_fleet = click.option(
    "--fleet",
    "directory",
    type=click.Path(path_type=Path),
    required=True,
    help="The fleet's directory, or a copy of its documents and transport.",
)
_port = click.option("--port", type=click.IntRange(1, 65535), help="The fleet's own if not given.")
_address = click.option("--address", default="", help="Where to listen; all interfaces if not given.")


@click.group()
def broker() -> None:
    """Set up, run and check a fleet's MQTT broker, Mosquitto."""


@broker.command()
@_fleet
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory for the broker's files.")
@_port
@_address
@click.option("--user", help="The system user that Mosquitto is to run as; whoever starts it, if not given.")
def render(directory: Path, out: Path, port: int | None, address: str, user: str | None) -> None:
    """Write mosquitto.conf and its access list. Do it again after every `fleet sign` and `fleet revoke`."""
    settings = _render(directory, out, port, address, user)
    click.echo(f"wrote {out / 'mosquitto.conf'} and {settings.access_list}")
    click.echo(f"start:  mosquitto -c {out / 'mosquitto.conf'}")
    click.echo("reload: kill -HUP its process, whenever the access list has changed")
    _warn_of_expiry(directory)
    if settings.revocation_list:
        click.echo("restart it instead if it has been running since before the first revocation")


@broker.command()
@_fleet
@click.option("--out", type=click.Path(path_type=Path), help="Directory for its files; FLEET/broker if not given.")
@_port
@_address
def run(directory: Path, out: Path | None, port: int | None, address: str) -> None:
    """Render and run Mosquitto in the foreground, until SIGTERM or Ctrl-C; SIGHUP reloads the access list."""
    out = out or directory / "broker"
    settings = _render(directory, out, port, address, None)
    check_address(address, settings.port)
    _warn_of_expiry(directory)
    # A connection is an open file, and the usual limit of 1,024 is a small fleet.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Mosquitto becomes this process: signals, exit code and log are its own.
    program = find_mosquitto()
    os.execv(program, [program, "-c", str(out / "mosquitto.conf")])  # noqa: S606


@broker.command()
@_fleet
@click.option("--host", help="Name or address of the broker, as its certificate has it; the fleet's own if not given.")
@_port
@click.option(
    "--identity",
    type=click.Path(path_type=Path),
    help=f"Directory with {OPERATOR}.pem, {OPERATOR}.key and ca.pem; FLEET/transport if not given.",
)
@click.option("--clear", "clears", is_flag=True, help="Take off the broker what nothing explains.")
def check(directory: Path, host: str | None, port: int | None, identity: Path | None, clears: bool) -> None:
    """Check that the broker does what the protocol needs, and list retained messages that nothing explains."""
    from broker.check import capabilities, clear, list_retained

    fleet = FleetDirectory.load(directory)
    settings = _operator(
        identity or directory / "transport", host or fleet.address().hosts[0], port or fleet.address().port
    )
    prefix = f"hf/{fleet.topics.fleet}"
    own_topic = f"{prefix}/state/{OPERATOR}"
    if missing := capabilities(settings, own_topic):
        raise ConfigurationError("\n".join(["not ready:", *(f"  {problem}" for problem in missing)]))
    click.echo("broker: MQTT 5, QoS 1, retained messages, sessions, wills and access are as they should be")
    _warn_of_expiry(directory)
    found = list_retained(settings, f"{prefix}/#", own_topic)
    leftovers = unexplained(found, fleet, time.time())
    click.echo(f"retained: {len(found)} messages, {len(leftovers)} of them unexplained")
    for leftover in leftovers:
        click.echo(f"  {leftover.topic}: {leftover.why}")
    if leftovers and not clears:
        raise click.exceptions.Exit(1)
    if leftovers:
        clear(settings, [leftover.topic for leftover in leftovers])
        click.echo(f"cleared {len(leftovers)}")


def _render(directory: Path, out: Path, port: int | None, address: str, user: str | None) -> Configuration:
    fleet = FleetDirectory.load(directory)
    settings = fleet.configuration(out, port or fleet.address().port, address, user)
    text, access = configuration(settings), access_list(fleet.access())
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(settings.access_list, access)
        _replace(out / "mosquitto.conf", text)
    except OSError as error:
        raise ConfigurationError(f"cannot write {error.filename}: {error.strerror}; name another --out") from None
    return settings


def _warn_of_expiry(directory: Path) -> None:
    for ending in expiring((directory / "transport" / name for name in ("ca.pem", "broker.pem")), time.time()):
        click.echo(f"warning: {ending}", err=True)


def _replace(path: Path, text: str) -> None:
    """As a whole: a running Mosquitto may be told to read the file at any moment."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _operator(identity: Path, host: str, port: int) -> LinkSettings:
    return LinkSettings(
        host=host,
        port=port,
        ca=identity / "ca.pem",
        certificate=identity / f"{OPERATOR}.pem",
        key=identity / f"{OPERATOR}.key",
        client_id=OPERATOR,
    )
