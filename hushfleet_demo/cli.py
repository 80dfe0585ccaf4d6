"""`hushfleet demo`: a whole federation on this machine, on real recordings or in simulated homes."""

import shutil
import signal
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from hushfleet.codec import lanes
from hushfleet.learning.layers import parameter_count
from hushfleet.secagg.residues import vector_length
from hushfleet_demo import outcome as results
from hushfleet_demo.comparison import Split, summary
from hushfleet_demo.example import Example, examples
from hushfleet_demo.federation import Course, Federation
from hushfleet_demo.local_fleet import run
from hushfleet_demo.view import View, progress

_EXAMPLES = examples()


@click.command()
@click.argument("name", type=click.Choice(list(_EXAMPLES)), default=next(iter(_EXAMPLES)))
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write every figure here, as JSON.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-report"),
    show_default=True,
    help="Where the picture goes.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep keys, configurations and logs in this new directory.",
)
@click.option("--choices", type=click.IntRange(1), help="Judge only the first so many choices of who is new.")
@click.option("--rounds", type=click.IntRange(1, 1000), help="How many; the example says so if it is not given.")
def demo(
    name: str, report: Path | None, output: Path, keep: Path | None, choices: int | None, rounds: int | None
) -> None:
    """Train one model over a real broker, every update masked, on real recordings, each device's in its own process.

    watch: ten people's smartwatches, the exercises of people whom the model never saw. turbines: four wind turbines,
    one of which has only seventeen days of its own. wind: tomorrow's wind at twelve Irish stations, one of them new.
    home: six simulated homes with Zigbee2MQTT, from the sensors into Home Assistant's topics; it needs no recordings.
    """
    # A closed terminal and SIGTERM end it as Ctrl-C does: everything it started is stopped.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    directory = keep or Path(tempfile.mkdtemp(prefix="hushfleet-demo-"))
    began = time.monotonic()
    try:
        example = _EXAMPLES[name]()
        rounds = rounds or example.task.rounds
        if rounds < example.fewest_rounds:
            raise click.BadParameter(f"{name} needs {example.fewest_rounds} at least", param_hint="--rounds")
        federation = _federate(console, directory, example, rounds)
        seconds = time.monotonic() - began
        outcome, splits = _measure(console, federation, example, choices, seconds)
        seen = _evidence(federation)
        finding = example.finding(seen.model, federation.course)
        picture = _draw(federation.course, example, outcome, seen, finding, output)
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    _tell(console, example, federation.course, outcome, splits, finding)
    console.print(f"picture: {picture}")
    if report is not None:
        outcome.write(report)
        console.print(f"report: {report}")


def _federate(console: Console, directory: Path, example: Example, rounds: int) -> Federation:
    """Run the federation to its end; whatever it started is stopped, also on Ctrl-C."""
    words = example.words
    with View(console, rounds, words.score) as view:
        federation = example.federation(directory, rounds, view.show)
        with federation.local:
            federation.prepare(lambda step: console.print(f"· {step}", highlight=False, markup=False, soft_wrap=True))
            console.print(f"· broker, coordinator and {words.agents} start, each a process of its own", highlight=False)
            federation.run()
    return federation


def _measure(
    console: Console, federation: Federation, example: Example, choices: int | None, seconds: float
) -> tuple[results.Outcome, list[Split]]:
    alone, pooled = example.without_federation()
    count = min(choices or example.choices, example.choices)
    with progress(console, example.words.choices, count) as bar:
        splits = example.splits(count, lambda _: bar.advance(bar.task_ids[0]))
    course, parameters = federation.course, parameter_count(example.task.layers)
    rounds = len(course.rounds)
    federated = course.score(course.rounds[-1]["version"])
    assert federated is not None
    measured = federation.measured
    outcome = results.Outcome(
        devices=len(federation.plan.parts),
        rounds=rounds,
        broker=federation.local.broker_version(),
        dropouts=len(course.dropped),
        recoveries=len(course.recoveries),
        parameters=parameters,
        bits_per_parameter=8 * vector_length(*federation.form(), lanes(0)) / parameters,
        accuracy=results.Accuracy(federated, alone, pooled),
        bytes=results.Traffic(
            sum(course.sent[name] for name in measured) / len(measured) / rounds,
            sum(course.received[name] for name in measured) / len(measured) / rounds,
        ),
        all_splits=summary(splits),
        seconds=round(seconds, 1),
    )
    return outcome, splits


def _evidence(federation: Federation) -> results.Seen:
    """What the coordinator saw in the last round, by its own command."""
    directory = federation.local.directory / "evidence"
    run("coordinator", "evidence", federation.local.directory / "configuration" / "coordinator.toml", directory)
    return results.read_evidence(directory, *federation.form())


def _draw(
    course: Course,
    example: Example,
    outcome: results.Outcome,
    seen: results.Seen,
    finding: results.Finding | None,
    output: Path,
) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    picture = output / f"{example.words.name}.png"
    marks = dict.fromkeys(course.dropped, "upload cut off") | dict.fromkeys(course.recoveries, "member killed")
    results.draw(picture, example.words, course.curve(), outcome, seen, marks, finding)
    return picture


def _tell(
    console: Console,
    example: Example,
    course: Course,
    outcome: results.Outcome,
    splits: list[Split],
    finding: results.Finding | None,
) -> None:
    for remark in course.remarks:
        console.print(f"· {remark}", highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for row in results.table(example.words, outcome, splits, example.choices, finding):
        table.add_row(*row)
    console.print(table)
    console.print(example.words.epilogue, highlight=False)
