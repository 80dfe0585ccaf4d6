"""`hushfleet agent`: what a device's owner runs on it."""

import json
import platform
import time
from pathlib import Path

import click

from edge_agent.settings import AgentSettings
from hushfleet import BUILD_TIME
from hushfleet.configuration import load
from hushfleet.errors import ConfigurationError, HushfleetError, LinkError
from hushfleet.journal import Journal
from hushfleet.trust import READY, REMEDIES
from hushfleet.wire.schema import Schema

_config = click.argument("config", type=click.Path(path_type=Path))


@click.group()
def agent() -> None:
    """Train on this device's own data, in rounds in which nobody sees its update."""


@agent.command()
@_config
def run(config: Path) -> None:
    """Take part, until stopped. CONFIG is the agent's TOML file."""
    from edge_agent.agent import Agent

    settings = load(config, AgentSettings)
    Agent(settings, Journal(settings.log)).run()


@agent.command()
@_config
def check(config: Path) -> None:
    """Find what is wrong with CONFIG, its files, this device's clock and the way to the broker; change nothing."""
    from edge_agent.agent import link_settings, load_bundle, profile_of, status_path
    from edge_agent.budget import check_figures
    from edge_agent.power import Power
    from hushfleet.mqtt.probe import probe
    from hushfleet.mqtt.topics import Topics
    from hushfleet.mqtt.validity import expiring
    from hushfleet.service import is_running

    settings = load(config, AgentSettings)
    problems: list[str] = []
    bundle = load_bundle(settings)
    _say("bundle", f"{bundle.name}, index {bundle.index}")
    profile = profile_of(settings, bundle)
    _say("profile", f"{profile.name}: chunk {profile.link.chunk} bytes, window {profile.link.window}")
    try:
        check_figures(settings.budget, profile)
        if ups := Power(settings.power).says():
            _say("ups", ups)
    except HushfleetError as error:
        problems.append(str(error))
    if time.time() < BUILD_TIME:
        problems.append(f"this device's clock shows {time.strftime('%Y-%m-%d')}, before its software was made; set it")
    if settings.sensors:
        names = ", ".join(channel.name for channel in settings.sensors.channel)
        feeds = "one feed" if len(settings.feeds) == 1 else f"{len(settings.feeds)} feeds"
        _say("sensors", f"{names} from {feeds} (agent test reads them)")
        problems += _unmapped(settings)
    elif settings.source is None:
        _say("source", "none: this device serves in committees alone")
    else:
        try:
            features = settings.source.check_header()
            _say("source", f"{settings.source.path}: {features} features and the label (agent test reads the rows)")
        except ConfigurationError as error:
            problems.append(str(error))
    for ending in expiring((bundle.authority, bundle.tls_certificate), time.time()):
        _say("certificate", ending)
    running = is_running(status_path(settings))
    if running:
        _say("broker", "not tried: this agent is running; see hushfleet agent status")
    else:
        found = probe(link_settings(settings, bundle), Topics(bundle.fleet).state(bundle.index))
        _say("broker", "see below" if found else "reached")
        problems += found
    if problems:
        raise ConfigurationError("\n".join(["not ready:", *(f"  {problem}" for problem in problems)]))
    click.echo("as it should be" if running else f"ready; next: hushfleet agent test {config}")


def _unmapped(settings: AgentSettings) -> list[str]:
    """What keeps the sensors from being what the fleet's schema wants, as far as the agent has met it."""
    from edge_agent.agent import status_path
    from hushfleet.service import read_status

    assert settings.sensors is not None
    try:
        signed = read_status(status_path(settings)).get("schema")
    except ConfigurationError:
        return []
    try:
        if signed:
            settings.sensors.mapped(Schema.from_body(bytes.fromhex(signed)))
    except ConfigurationError as error:
        return [str(error)]
    return []


@agent.command()
@_config
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds to wait for an open plan.")
@click.option(
    "--seconds", type=click.FloatRange(0, 86_400), default=10.0, show_default=True, help="How long to read sensors."
)
def test(config: Path, timeout: float, seconds: float) -> None:
    """Connect, read this device's sensors and rows, train, send nothing, and show what would be sent."""
    from edge_agent.agent import status_path
    from edge_agent.rehearsal import rehearse
    from hushfleet.service import is_running

    settings = load(config, AgentSettings)
    if is_running(status_path(settings)):
        raise ConfigurationError("this agent is running, and a test would take its connection over; stop it first")
    found = rehearse(settings, Journal("text"), timeout, lambda schema: _hear(settings, schema, seconds))
    _say("documents", found.documents)
    if found.documents != READY:
        raise LinkError(f"no training was tried: {REMEDIES[found.documents]}")
    if settings.source is None and settings.sensors is None:
        _say("training", "none: without [source] or [sensors] this device serves in committees alone")
        return
    _say("rows", f"{found.rows} to train on, {found.kept_aside} kept aside")
    _say("plan", f"round {found.round}" if found.round else "none open; trained with 20 steps of 32 rows")
    _say("trainer", found.trainer)
    _say("loss", f"{found.loss_before:.4f} before, {found.loss_after:.4f} after training")
    _say("update", f"{found.parameters} parameters, norm {found.norm:.4f}")
    _say("would send", f"{found.bytes} bytes in {found.chunks} chunks, masked: noise to everyone else")
    click.echo("nothing was sent")


def _hear(settings: AgentSettings, schema: Schema | None, seconds: float) -> None:
    """Show what the sensors say, before rows are made of what was kept earlier."""
    from edge_agent.hearing import listen, table

    if settings.sensors is None or schema is None:
        return
    settings.sensors.mapped(schema)
    click.echo(f"reading sensors for {seconds:g} s; nothing of it is kept")
    heard, moved, troubles = listen(settings, seconds)
    for line in table(heard, schema, time.time()):
        click.echo(line)
    for by in moved:
        click.echo(f"meanwhile this device's clock was set by {by:+.1f} s")
    if troubles:
        raise LinkError("\n".join(troubles))


@agent.command()
@_config
@click.option(
    "--seconds", type=click.FloatRange(0, 86_400), default=10.0, show_default=True, help="How long to listen."
)
def discover(config: Path, seconds: float) -> None:
    """List what the feeds of CONFIG have to offer, and propose lines that name what is to be read; store nothing."""
    from edge_agent.discovery import discover as listen
    from edge_agent.discovery import proposal, table
    from edge_agent.sources.labels import LABEL

    settings = load(config, AgentSettings)
    if not settings.feeds:
        raise ConfigurationError(f"{config} has no [[feed]]; name one to look at (docs/sensors.md)")
    click.echo(f"listening for {seconds:g} s; nothing is stored")
    found = listen(settings.feeds, seconds)
    taken = {LABEL, *(channel.name for channel in settings.sensors.channel)} if settings.sensors else {LABEL}
    for number, (feed, seen) in enumerate(zip(settings.feeds, found, strict=True), start=1):
        click.echo(f"\nfeed {number}, {feed.kind}: {len(seen.quantities)} quantities")
        if seen.quantities:
            for line in table(seen.quantities):
                click.echo(line)
            click.echo("\n# Keep what is to be read, under the name of its channel in the fleet's schema:")
            for line in proposal(seen.quantities, taken):
                click.echo(line)
        elif seen.trouble is None:
            click.echo("nothing yet; listen longer (--seconds), or correct what this feed names")
        for reason, count in seen.refused.items():
            _say("refused", f"{count} times {reason}")
    if troubles := [f"feed {number}: {seen.trouble}" for number, seen in enumerate(found, start=1) if seen.trouble]:
        raise LinkError("\n".join(troubles))


@agent.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="The whole status as JSON.")
def status(config: Path, as_json: bool) -> None:
    """Show how the agent is doing."""
    from edge_agent.agent import status_path
    from edge_agent.byte_table import byte_table
    from edge_agent.hearing import score_line, sensor_lines
    from hushfleet.service import read_status

    found = read_status(status_path(load(config, AgentSettings)))
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    running = found["running"]
    _say("agent", f"{found['device']} ({'running' if running else 'not running'}), {_ago(found['time'])}")
    _say("broker", "connected" if running and found["connected"] else found["trouble"] or "not connected")
    _say("documents", found["documents"])
    _say("round", f"{found['round']}, model version {found['model']}")
    if found["sits_out"]:
        _say("restored", f"this vault was put back from a copy; sits out {found['sits_out']}")
    if found["score"]:
        _say("score", score_line(found))
    if tuned := found.get("personal"):
        used = "used" if tuned["used"] else "not used"
        losses = f"loss {_number(tuned['own'])}, the fleet's {_number(tuned['fleet'])}, of {tuned['rows']} rows"
        _say("personal", f"version {tuned['version']} trained on here: {losses}; {used}")
    if described := found.get("statistics"):
        _say("statistics", f"described itself in round {described['round']}, {described['noise']}")
    for line in sensor_lines(found, time.time()):
        click.echo(line)
    if found["refusals"]:
        _say("refused", ", ".join(f"{what} {number}" for what, number in found["refusals"].items()))
    if energy := found.get("energy"):
        limit = f" of {energy['limit']:g}" if energy["limit"] else ""
        _say("energy", f"{energy['spent']:.2f}{limit} Wh for learning on {energy['day']}")
    if metered := found.get("metered"):
        now = f"; on {metered['interface']} now" if metered["interface"] else ""
        _say("metered", f"{metered['spent'] / 1e6:.2f} of {metered['limit'] / 1e6:g} MB in {metered['month']}{now}")
    for line in byte_table(found["bytes"]):
        click.echo(line)


@agent.command()
@_config
@click.option(
    "--html", "page", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Where to write it."
)
def report(config: Path, page: Path) -> None:
    """Write a page that shows how good this device's sensor readings are. The agent may be running."""
    from edge_agent.agent import load_bundle, status_path
    from edge_agent.report import Fleet
    from edge_agent.report import page as written
    from edge_agent.sources.sensors import Sensors, readings_path
    from edge_agent.sources.store import ReadingStore
    from hushfleet.service import read_status

    settings = load(config, AgentSettings)
    if settings.sensors is None:
        raise ConfigurationError(f"{config} has no [sensors]; a report is about their readings (docs/sensors.md)")
    status = read_status(status_path(settings))
    signed, fleet = status.get("schema"), status.get("fleet")
    if not isinstance(signed, str):
        raise ConfigurationError("the fleet has signed no schema, or the agent has not met it yet; run it until it has")
    sensors = Sensors(settings.sensors, ReadingStore.beside(readings_path(settings.vault)))
    schema = Schema.from_body(bytes.fromhex(signed))
    usual = Fleet(**fleet) if fleet else None
    text = written(load_bundle(settings).name, sensors, schema, time.time(), usual, status.get("sensors"))
    try:
        page.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write {page}: {error.strerror}; name another place") from None
    click.echo(f"written to {page}")


@agent.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path(),
    help="On the storage that is to hold the vault; the working directory by default.",
)
@click.option("--seconds", type=click.FloatRange(0.01, 8), default=4.0, show_default=True, help="For each figure.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def calibrate(directory: Path, seconds: float, as_json: bool) -> None:
    """Measure this device for a firmware profile: training, masking, encoding, storage. It needs no fleet."""
    from edge_agent.calibration import Measurement, fragment
    from edge_agent.calibration import calibrate as measure

    found: list[Measurement] = []
    if not as_json:
        click.echo(f"ten figures, some {10 * seconds:.0f} s")
    for one in measure(directory, seconds):
        found.append(one)
        if not as_json:
            among = ", ".join(f"{name} {value:.3g}" for name, value in one.trainers.items())
            click.echo(
                f"{len(found)}/10 {one.key:<15}{one.value:>9.3g} {one.unit:<3} {one.meaning}{among and f': {among}'}"
            )
    if as_json:
        figures: dict[str, dict[str, object]] = {one.key: {"value": one.value, "unit": one.unit} for one in found}
        for one in found:
            if one.trainers:
                figures[one.key]["trainers"] = one.trainers
        click.echo(json.dumps(figures, indent=1))
        return
    _say("trainer", _faster(next(iter(found[0].trainers))))
    where = f"hushfleet agent calibrate on {platform.node()}, {time.strftime('%Y-%m-%d')}"
    click.echo(f"\n# for the firmware profile (docs/planning.md)\n{fragment(found, where)}")


def _faster(best: str) -> str:
    """What `calibrate` says of the trainers, the best of which it measured with."""
    from edge_agent.training.choice import litert_trouble

    if trouble := litert_trouble():
        return f"numpy; {trouble}"
    return f'{best} is the faster here; with trainer = "auto" an agent finds out for its own model'


def _ago(then: float) -> str:
    return f"unchanged for {max(0, round(time.time() - then))} s"


def _say(what: str, text: object) -> None:
    click.echo(f"{what:<12}{text}")


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
