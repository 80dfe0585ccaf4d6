"""`hushfleet demo`: a whole federation on this machine, on real recordings."""

import shutil
import signal
import tempfile
import time
from itertools import combinations
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from hushfleet.codec import PLAIN_BITS, lanes
from hushfleet.learning.layers import initial_flat, parameter_count
from hushfleet.secagg.residues import vector_length
from hushfleet_demo import outcome as results
from hushfleet_demo import watch_task as task
from hushfleet_demo.data import Person, load_people
from hushfleet_demo.local_fleet import run
from hushfleet_demo.view import View, progress
from hushfleet_demo.watch import UNSEEN, Course, Federation
from hushfleet_demo.watch_splits import Split, own, run_splits, summary, without_federation


@click.command()
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
@click.option("--rounds", type=click.IntRange(24, 1000), default=task.ROUNDS, show_default=True)
def demo(report: Path | None, output: Path, keep: Path | None, rounds: int) -> None:
    """Train one model across ten people's smartwatch recordings, over a real broker, every update masked."""
    # A closed terminal and SIGTERM end it as Ctrl-C does: everything it started is stopped.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    directory = keep or Path(tempfile.mkdtemp(prefix="hushfleet-demo-"))
    began = time.monotonic()
    try:
        people = load_people()
        federation = _federate(console, directory, people, rounds)
        seconds = time.monotonic() - began
        outcome, splits = _measure(console, federation, people, rounds, seconds)
        picture = _draw(federation, outcome, output)
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    _tell(console, federation.course, outcome, splits, picture)
    if report is not None:
        outcome.write(report)
        console.print(f"report: {report}")


def _federate(console: Console, directory: Path, people: list[Person], rounds: int) -> Federation:
    """Run the federation to its end; whatever it started is stopped, also on Ctrl-C."""
    with View(console, rounds) as view:
        federation = Federation(directory, people, rounds, view.show)
        with federation.local:
            federation.prepare(lambda step: console.print(f"· {step}", highlight=False))
            console.print("· broker, coordinator and ten agents start, each a process of its own", highlight=False)
            federation.run()
    return federation


def _measure(
    console: Console, federation: Federation, people: list[Person], rounds: int, seconds: float
) -> tuple[results.Outcome, list[Split]]:
    unseen = [person for person in people if person.number in UNSEEN]
    training = [person for person in people if person.number not in UNSEEN]
    start = initial_flat(task.LAYERS, task.INIT_SEED)
    alone, pooled = without_federation(start, own(start, training), training, unseen)
    count = len(list(combinations(people, 2)))
    with progress(console, "all choices of two unseen people", count) as bar:
        splits = run_splits(people, count, lambda _: bar.advance(bar.task_ids[0]))
    course, parameters = federation.course, parameter_count(task.LAYERS)
    federated = course.unseen_accuracy(course.rounds[-1]["version"])
    assert federated is not None
    plain = federation.plain_participants()
    outcome = results.Outcome(
        devices=len(people),
        rounds=len(course.rounds),
        broker=federation.local.broker_version(),
        dropouts=len(course.dropped),
        recoveries=len(course.recoveries),
        parameters=parameters,
        bits_per_parameter=8 * vector_length(parameters, PLAIN_BITS, lanes(0)) / parameters,
        accuracy=results.Accuracy(federated, alone, pooled),
        bytes=results.Traffic(
            sum(course.sent[name] for name in plain) / len(plain) / rounds,
            sum(course.received[name] for name in plain) / len(plain) / rounds,
        ),
        all_splits=summary(splits),
        seconds=round(seconds, 1),
    )
    return outcome, splits


def _draw(federation: Federation, outcome: results.Outcome, output: Path) -> Path:
    evidence = federation.local.directory / "evidence"
    run("coordinator", "evidence", federation.local.directory / "configuration" / "coordinator.toml", evidence)
    upload, opened = ((evidence / name).read_bytes() for name in ("upload.bin", "sum.bin"))
    output.mkdir(parents=True, exist_ok=True)
    picture = output / "watch.png"
    course = federation.course
    marks = dict.fromkeys(course.dropped, "upload cut off") | dict.fromkeys(course.recoveries, "member killed")
    results.draw(picture, course.curve(), outcome, *results.residues_of(upload, opened, outcome.parameters), marks)
    return picture


def _tell(console: Console, course: Course, outcome: results.Outcome, splits: list[Split], picture: Path) -> None:
    for remark in course.remarks:
        console.print(f"· {remark}", highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for row in results.table(outcome, splits):
        table.add_row(*row)
    console.print(table)
    unseen = " and ".join(map(str, UNSEEN))
    console.print(
        f"The unseen are people {unseen}: one choice of 45, taken because it lies closest to the mean of all.",
        highlight=False,
    )
    console.print(f"picture: {picture}")
