"""`hushfleet coordinator`: what an operator runs on the coordinator's host."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coordinator.ledger import Ledger
from coordinator.settings import CoordinatorSettings
from hushfleet import BUILD_TIME
from hushfleet.configuration import load
from hushfleet.errors import ConfigurationError
from hushfleet.journal import Journal

if TYPE_CHECKING:
    from hushfleet.learning.layers import Head

_config = click.argument("config", type=click.Path(path_type=Path))


@click.group()
def coordinator() -> None:
    """Run a fleet's rounds; add masked updates and learn only their sum."""


@coordinator.command()
@_config
@click.option("--restored", is_flag=True, help="Go on with a ledger put back from a copy after which no round ran.")
def run(config: Path, restored: bool) -> None:
    """Run rounds, until stopped or done. CONFIG is the coordinator's TOML file."""
    from coordinator.service import Coordinator

    settings = load(config, CoordinatorSettings)
    Coordinator(settings, Journal(settings.log), restored).run()


@coordinator.command()
@_config
def check(config: Path) -> None:
    """Find what is wrong with CONFIG, its files, the owners' documents, the clock and the way to the broker."""
    from coordinator.documents import read_documents
    from coordinator.service import link_settings, load_bundle, make_conductor, status_path
    from hushfleet.mqtt.probe import probe
    from hushfleet.mqtt.topics import Topics
    from hushfleet.mqtt.validity import expiring
    from hushfleet.scratch import ScratchStore
    from hushfleet.service import is_running
    from hushfleet.trust import READY, REMEDIES

    settings = load(config, CoordinatorSettings)
    bundle = load_bundle(settings)
    _say("bundle", f"coordinator of fleet {bundle.fleet.hex()}")
    problems: list[str] = []
    if time.time() < BUILD_TIME:
        problems.append(f"this clock shows {time.strftime('%Y-%m-%d')}, before this software was made; set it (NTP)")
    conductor = make_conductor(settings, bundle, ScratchStore())
    state, findings = conductor.examine(read_documents(settings.documents), time.time())
    problems += findings
    _say("documents", state)
    if state == READY:
        documents = conductor.context.documents()
        _say(
            "devices",
            f"{len(documents.roster.by_index())}, committee candidates {len(documents.committee.candidates())}",
        )
        if settings.rounds.clip > documents.policy.clip:
            problems.append(f"rounds.clip is above the policy's {documents.policy.clip}: every device would decline")
        if trouble := conductor.round.statistics.trouble():
            problems.append(f"rounds.statistics_every: {trouble}")
    elif not findings:
        problems.append(REMEDIES[state])
    for ending in expiring((bundle.authority, bundle.tls_certificate), time.time()):
        _say("certificate", ending)
    running = is_running(status_path(settings))
    if running:
        _say("broker", "not tried: this coordinator is running; see hushfleet coordinator status")
    else:
        found = probe(link_settings(settings, bundle), Topics(bundle.fleet).state(bundle.index))
        _say("broker", "see below" if found else "reached")
        problems += found
    if problems:
        raise ConfigurationError("\n".join(["not ready:", *(f"  {problem}" for problem in problems)]))
    click.echo("as it should be" if running else f"ready; next: hushfleet coordinator run {config}")


@coordinator.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="The whole status as JSON.")
def status(config: Path, as_json: bool) -> None:
    """Show how the coordinator is doing."""
    from coordinator.service import status_path
    from hushfleet.service import read_status

    found = read_status(status_path(load(config, CoordinatorSettings)))
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    age = max(0, round(time.time() - found["time"]))
    _say("coordinator", f"{'running' if found['running'] else 'not running'}, unchanged for {age} s")
    _say("broker", "connected" if found["running"] and found["connected"] else found["trouble"] or "not connected")
    _say("documents", found.get("documents"))
    under_way = f", round {found['open']} open with {found['uploads']} uploads" if found.get("open") else ""
    _say("round", f"{found.get('round')}{under_way}; model version {found.get('model')}")
    if found.get("rollback"):
        _say("rollback", "from version {from} to {version} in round {round}".format(**found["rollback"]))
    _say("outcomes", ", ".join(f"{name} {number}" for name, number in found.get("outcomes", {}).items()) or "none yet")
    _say("set-up", found.get("setup") or "no trouble")
    if newest := found.get("statistics"):
        _say("statistics", f"round {newest['round']}, {newest['devices']} devices; noise {newest['noise']}")
    if found["refusals"]:
        _say("refused", ", ".join(f"{what} {number}" for what, number in found["refusals"].items()))


@coordinator.command("roll-back")
@_config
@click.argument("version", type=click.IntRange(min=0))
def roll_back(config: Path, version: int) -> None:
    """Have the stopped coordinator take the fleet's model back to VERSION at its next start.

    As far as the policy's rollback_versions allow. A round that is open is given up; the next one trains on VERSION.
    """
    from coordinator.service import load_bundle, make_conductor

    settings = load(config, CoordinatorSettings)
    bundle = load_bundle(settings)
    if not settings.ledger.exists():
        raise ConfigurationError(f"there is no {settings.ledger}: this coordinator has never run")
    ledger = Ledger(settings.ledger)
    try:
        conductor = make_conductor(settings, bundle, ledger)
        wish = conductor.round.want_rollback(version)
        with ledger.transaction():
            for action in wish:
                ledger.save(action.key, action.value)
        newest = conductor.round.version()
    finally:
        ledger.close()
    _say("rollback", f"from version {newest} to {version}, at the next start: hushfleet coordinator run {config}")


@coordinator.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="All rounds that are kept, as JSON, oldest first.")
@click.option("--schema", "as_schema", is_flag=True, help="The channels for fleet.toml, with mean and sd of the fleet.")
def statistics(config: Path, as_json: bool, as_schema: bool) -> None:
    """Show what the newest statistics round says of the fleet's readings. The coordinator may be running.

    How devices differ (spread), and how far the fleet has moved since the round before (drift). The sums carry no
    noise.
    """
    from coordinator.statistics import EXPORT
    from coordinator.statistics_table import schema_lines, table

    path = load(config, CoordinatorSettings).ledger.with_name(EXPORT)
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigurationError(
            "no statistics round has opened yet; ask for some with statistics_every under [rounds], which the owners "
            "must have allowed (noiseless_statistics) for a model that has a schema"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    newest = json.loads(text)[-1]
    click.echo(text.rstrip() if as_json else "\n".join(schema_lines(newest) if as_schema else table(newest)))


@coordinator.command()
@_config
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def evidence(config: Path, directory: Path) -> None:
    """Write what the stopped coordinator saw in its newest round into DIRECTORY: an upload, the opened sum, the model.

    Kept only with `evidence = true` under [rounds]. The first two are packed bytes as in docs/protocol.md, section
    11.5, the model is a snapshot as in section 11.4.
    """
    from coordinator.models import newest_snapshot
    from coordinator.round import SUM_EVIDENCE
    from coordinator.uploads import EVIDENCE

    ledger = Ledger(load(config, CoordinatorSettings).ledger)
    try:
        found = {
            "upload.bin": ledger.get(EVIDENCE),
            "sum.bin": ledger.get(SUM_EVIDENCE),
            "model.bin": newest_snapshot(ledger),
        }
    finally:
        ledger.close()
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        if content is None:
            raise ConfigurationError("no evidence was kept; set evidence = true under [rounds] and run a round")
        (directory / name).write_bytes(content)
        click.echo(f"{directory / name}: {len(content)} bytes")


@coordinator.command()
@_config
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--head",
    type=click.Choice(["softmax", "mean_squared"]),
    default="softmax",
    show_default=True,
    help="What stands on the last layer.",
)
@click.option(
    "--rows",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A CSV file of rows as devices train on: to measure every file, and to find the ranges of int8.",
)
@click.option("--label", help="The column that should come out; without it, a row should come out as it is.")
def export(config: Path, directory: Path, head: "Head", path: Path | None, label: str | None) -> None:
    """Write the stopped coordinator's newest model into DIRECTORY: plain numpy, .tflite in float and int8, ONNX."""
    from coordinator.export import NO_ANSWERS, FinishedModel
    from coordinator.export import export as write
    from coordinator.models import Models
    from coordinator.rows import read_rows
    from coordinator.service import load_bundle, make_conductor

    settings = load(config, CoordinatorSettings)
    bundle, ledger = load_bundle(settings), Ledger(settings.ledger)
    try:
        context = make_conductor(settings, bundle, ledger).context
        spec, spec_hash = context.trust.model, context.trust.hash_of("model")
        version = 0
        if spec is not None and spec_hash is not None:
            models = Models(context, settings.rounds.server_optimizer)
            version, _ = models.current(spec, spec_hash)
        if spec is None or not version:
            raise ConfigurationError("there is no model yet: no round of the model spec in force was applied")
        model = FinishedModel(version, spec.shared, models.flat(spec).copy(), head, spec.personal)
    finally:
        ledger.close()
    if path and spec.personal:
        raise ConfigurationError(f"--rows {path}: {NO_ANSWERS}; leave it out to have the shared layers' numbers")
    outputs = spec.layers[-1].outputs
    rows = read_rows(path, label, head, spec.layers[0].inputs, outputs) if path else None
    _say("model", f"version {version}, {len(model.flat)} parameters")
    measure = "accuracy" if head == "softmax" else "mean absolute error"
    for one in write(model, rows, directory):
        measured = "" if one.measured is None else f", {measure} {one.measured:.4f}"
        click.echo(
            f"{one.name:<20}" + (f"not written: {one.trouble}" if one.trouble else f"{one.bytes} bytes{measured}")
        )
    click.echo(f"written to {directory}; model.json tells of every file")


@coordinator.command("verify-blame")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Any bundle of the fleet: it pins the root from which the evidence is judged.",
)
def verify_blame(file: Path, bundle: Path) -> None:
    """Judge the evidence in FILE against a committee member, from the fleet's root alone.

    Everything is checked and recomputed: certificates, signatures, the survivor set, the mask sum that the member's
    secret gives. Exit code 0 means that the member lied.
    """
    from hushfleet.bundle import Bundle
    from hushfleet.evidence import LARGEST_EVIDENCE, judge_evidence

    pinned = Bundle.load(bundle)
    try:
        if file.stat().st_size > LARGEST_EVIDENCE:
            raise ConfigurationError(f"{file} is too large to be evidence")
        verdict = judge_evidence(file.read_bytes(), pinned.fleet, pinned.root_hash)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    click.echo(f"proven: member {verdict.member} {verdict.why}, in round {verdict.round}")


def _say(what: str, text: object) -> None:
    click.echo(f"{what:<12}{text}")
