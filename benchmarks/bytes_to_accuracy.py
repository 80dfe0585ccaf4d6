"""How many bytes a device uploads until its fleet's model is as good as plain averaging makes it.

    python benchmarks/bytes_to_accuracy.py --quick --json bytes.json --plot bytes.png

Every scheme trains the same fleets from the same start, with its own sums; its bytes are those of its own messages. The
target of a fleet is half a point below what averaging in float32 comes to, mean of the last ten rounds; it is reached
when the mean of five rounds is.
"""

# ruff: noqa: E402  (numpy reads the number of threads when it is first imported)
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from bytes_federation import Averages, FlowerSums, HushfleetSums, Sums, accuracies
from bytes_sizes import FLOAT32, FLOWER, SCHEMES, bits_per_parameter, messages, uploaded
from bytes_tasks import Rows, Task, digit_task, digits, watch_tasks
from goals import Goal
from numpy.typing import NDArray

from coordinator.encoding import Codec
from hushfleet.errors import HushfleetError
from hushfleet_demo.watch_data import load_people

Curve = NDArray[np.float64]

DEVICES = (10, 50, 100)
PARAMETERS = (5_000, 100_000)
WATCH_DEVICES = 8
SEEDS = 3
ROUNDS = 300
QUICK = 1_000_000
"""Parameters of all devices together, up to which a fleet is one of the quick ones."""
LAST, WINDOW = 10, 5
"""Rounds whose mean is a run's accuracy, and rounds whose mean must reach the target."""
BELOW = 0.005
BITS = {10: 0.22, 50: 0.27, 100: 0.52}
"""Goals: bits a parameter and round that are enough for `BELOW` on the small model, by devices."""
FEWER = {5_000: 50, 100_000: 100}
"""Goals: how many times fewer bytes than Flower, by parameters."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fleet.

    Attributes:
        data: digits or watch.
        devices: all of whom take part in every round.
        parameters: about so many.
    """

    data: str
    devices: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Row:
    """What one scheme came to in one case; the names are those of the JSON file, which all but the last go to.

    Attributes:
        parameters: of the model, exactly.
        bits_per_parameter: of the coordinates sent in a round, without header and tail.
        accuracy, accuracy_fp32: mean of the last ten rounds and of all seeds.
        reached: whether the target was reached; if not, the three that follow are None.
        rounds: until then, void ones included.
        bytes_up_to_target: sent by one device until then.
        times_fewer_with_committee: the same ratio with the committee's bytes spread over the devices.
    """

    data: str
    devices: int
    parameters: int
    scheme: str
    bits_per_parameter: float
    accuracy: float
    accuracy_fp32: float
    reached: bool
    rounds: int | None
    bytes_up_to_target: float | None
    times_fewer_than_flower: float | None
    times_fewer_with_committee: float | None

    def entry(self) -> dict[str, Any]:
        """The row of the JSON file."""
        found = asdict(self)
        del found["times_fewer_with_committee"]
        return found


def tasks_of(case: Case, seed: int) -> list[Task]:
    """The fleets whose mean counts.

    Raises:
        HushfleetError: the watch recordings cannot be had.
        click.ClickException: scikit-learn is missing.
    """
    if case.data == "watch":
        return watch_tasks(load_people(), case.parameters, seed)
    return [digit_task(_digits(), case.devices, case.parameters, seed)]


def _digits() -> Rows:
    try:
        return digits()
    except ImportError:
        raise click.ClickException(
            "the digits come with scikit-learn, which is not installed: pip install -e '.[bench]', or take --data watch"
        ) from None


def sums_of(scheme: str, task: Task) -> Sums:
    """A scheme's sums, at their start."""
    if scheme == FLOAT32:
        return Averages()
    if scheme == FLOWER:
        return FlowerSums(task.name)
    return HushfleetSums(task, cast(Codec, scheme), messages(scheme, task.layers, len(task.devices)))


def reached_after(curve: Curve, target: float) -> int | None:
    """The first round at which the mean of the last five accuracies is at the target."""
    means = np.convolve(curve, np.full(WINDOW, 1 / WINDOW), "valid")
    found = np.flatnonzero(means >= target)
    return int(found[0]) + WINDOW if len(found) else None


def rows_of(case: Case, task: Task, curves: dict[str, Curve]) -> list[Row]:
    """Each scheme's row.

    Args:
        case: the curves'.
        task: one of its fleets, for the size of the model.
        curves: by scheme, accuracy after each round, mean of all runs; float32's and Flower's among them.
    """
    reference = _final(curves[FLOAT32])
    after = {scheme: reached_after(curve, reference - BELOW) for scheme, curve in curves.items()}
    alone, shared = (
        {scheme: _spent(scheme, task, case, rounds, committee) for scheme, rounds in after.items()}
        for committee in (False, True)
    )
    return [
        Row(
            case.data,
            case.devices,
            task.parameters,
            scheme,
            bits_per_parameter(scheme, task.layers, case.devices),
            _final(curve),
            reference,
            after[scheme] is not None,
            after[scheme],
            alone[scheme],
            _ratio(alone[FLOWER], alone[scheme]),
            _ratio(shared[FLOWER], shared[scheme]),
        )
        for scheme, curve in curves.items()
    ]


def _spent(scheme: str, task: Task, case: Case, rounds: int | None, committee: bool) -> float | None:
    return uploaded(scheme, task.layers, case.devices, rounds, committee=committee) if rounds else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def _final(curve: Curve) -> float:
    return float(np.mean(curve[-LAST:]))


def measure(case: Case, seeds: int, rounds: int, each: Callable[[str], None]) -> list[Row]:
    """Run every scheme in one case; `each` is told after every round."""
    tasks = [task for seed in range(seeds) for task in tasks_of(case, seed)]
    curves: dict[str, Curve] = {}
    for scheme in SCHEMES:
        runs = []
        for task in tasks:
            run = []
            for accuracy in accuracies(task, sums_of(scheme, task), rounds):
                run.append(accuracy)
                each(f"{task.name}: {scheme}")
            runs.append(run)
        curves[scheme] = np.mean(runs, axis=0)
    return rows_of(case, tasks[0], curves)


def line(row: Row) -> str:
    """A row in words."""
    points = 100 * (row.accuracy - row.accuracy_fp32)
    start = (
        f"{row.data:7}{row.devices:4} devices {row.parameters:7,} parameters  {row.scheme:8}"
        f"{row.bits_per_parameter:6.2f} bits  {row.accuracy:.4f} ({points:+.2f})"
    )
    if row.rounds is None or row.bytes_up_to_target is None:
        return f"{start}  target not reached"
    fewer, shared = row.times_fewer_than_flower, row.times_fewer_with_committee
    ratios = f"  {fewer:6.1f} times fewer than Flower, {shared:6.1f} with the committee" if fewer and shared else ""
    return f"{start}  {row.rounds:4} rounds {row.bytes_up_to_target / 1e3:10,.0f} kB{ratios}"


def goals(rows: Sequence[Row]) -> list[Goal]:
    """What the project set itself, for each fleet of digits that was run."""
    found = []
    for devices, parameters in dict.fromkeys((row.devices, row.parameters) for row in rows if row.data == "digits"):
        mine = [row for row in rows if (row.data, row.devices, row.parameters) == ("digits", devices, parameters)]
        name = f"{devices} devices, {parameters:,} parameters"
        size = min(FEWER, key=lambda one: abs(one - parameters))
        if size == PARAMETERS[0] and devices in BITS:
            best = max(row.accuracy for row in mine if row.bits_per_parameter <= BITS[devices])
            below = 100 * (mine[0].accuracy_fp32 - best)
            found.append(Goal(f"{name}, {BITS[devices]} bits: points below fp32", below, 100 * BELOW, False))
        fewer = max((row.times_fewer_than_flower or 0.0) for row in mine)
        found.append(Goal(f"{name}: times fewer bytes than Flower", fewer, FEWER[size], True))
    return found


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the bytes up to the target, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    cases = list(dict.fromkeys((row.data, row.devices, row.parameters) for row in rows))
    width = 0.8 / len(SCHEMES)
    for at, scheme in enumerate(SCHEMES):
        mine = {(row.data, row.devices, row.parameters): row for row in rows if row.scheme == scheme}
        spent = [(mine[case].bytes_up_to_target or np.nan) / 1e6 for case in cases]
        axes.bar(np.arange(len(cases)) + (at - (len(SCHEMES) - 1) / 2) * width, spent, width, label=scheme)
    labels = [f"{data}\n{devices} devices\n{parameters:,}" for data, devices, parameters in cases]
    axes.set(yscale="log", ylabel="MB a device uploads", title="Until half a point below averaging in float32")
    axes.set_xticks(range(len(cases)), labels)
    axes.legend(frameon=False, ncols=len(SCHEMES), loc="upper center", bbox_to_anchor=(0.5, -0.2))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show the rounds as they pass: a bar where rich is installed, each run's name elsewhere."""
    try:
        from rich.progress import Progress
    except ImportError:
        told: set[str] = set()

        def tell(name: str) -> None:
            if name not in told:
                told.add(name)
                click.echo(name)

        yield tell
        return
    with Progress() as bar:
        shown = bar.add_task("rounds", total=total)
        yield lambda name: bar.update(shown, advance=1, description=name)


@click.command()
@click.option("--quick", is_flag=True, help="One seed, and no large model with many devices.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Write the rows here.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Draw the bytes, as PNG.")
@click.option("--data", type=click.Choice(["digits", "watch"]), multiple=True, default=("digits", "watch"),
              show_default=True, help="Just these.")  # fmt: skip
@click.option("--devices", type=click.IntRange(8, 100), multiple=True, default=DEVICES, show_default=True,
              help="Sizes of the fleets that learn digits; the watch data has eight people.")  # fmt: skip
@click.option("--parameters", type=click.IntRange(100, 1_000_000), multiple=True, default=PARAMETERS,
              show_default=True, help="Sizes of the models that learn digits.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), help=f"Runs whose mean counts; {SEEDS}, or 1 with --quick.")
@click.option("--rounds", type=click.IntRange(LAST), default=ROUNDS, show_default=True, help="Of every run.")
def main(
    quick: bool,
    json_path: Path,
    plot_path: Path | None,
    data: tuple[str, ...],
    devices: tuple[int, ...],
    parameters: tuple[int, ...],
    seeds: int | None,
    rounds: int,
) -> None:
    """Bytes that a device uploads until its model is as good as plain averaging makes it, by scheme."""
    seeds = seeds or (1 if quick else SEEDS)
    cases = [Case("digits", number, size) for size in parameters for number in devices if "digits" in data]
    if quick:
        cases = [case for case in cases if case.devices * case.parameters <= QUICK]
    if "watch" in data:
        cases.append(Case("watch", WATCH_DEVICES, PARAMETERS[0]))
    rows: list[Row] = []
    try:
        runs = sum(len(tasks_of(case, seed)) for case in cases for seed in range(seeds))
        with progress(runs * len(SCHEMES) * rounds) as each:
            for case in cases:
                rows += measure(case, seeds, rounds, each)
    except HushfleetError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(map(line, rows)))
    click.echo("\n".join(goal.line() for goal in goals(rows)))
    try:
        json_path.write_text(json.dumps([row.entry() for row in rows], indent=2) + "\n", encoding="utf-8")
        if plot_path is not None:
            plot(rows, plot_path)
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
