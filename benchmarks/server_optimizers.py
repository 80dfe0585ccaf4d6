"""What the server's step is worth where devices' data differ: averaging, momentum and FedAdam, round by round.

    python benchmarks/server_optimizers.py --json server.json

Fleets of which each device has one class alone, most of a few classes, or one person. Sums, key frames and the server's
step are the services' own; masks are left out, since they cancel exactly. Averaging that goes twice as far as the mean
is a control: how much of FedAdam's gain is nothing but a longer step.
"""

# ruff: noqa: E402  (numpy reads the number of threads when it is first imported)
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
from bytes_federation import HushfleetSums, accuracies
from bytes_sizes import messages
from bytes_tasks import Rows, Task, digit_task, digits, watch_tasks

from coordinator.encoding import Codec, ServerOptimizer, ServerStep
from hushfleet.errors import HushfleetError
from hushfleet_demo.watch_data import load_people

_ADAM = ServerOptimizer("adam")
FEDADAM = ServerStep(_ADAM.rate, _ADAM.momentum, (_ADAM.second_momentum, _ADAM.tau))
SCHEMES: dict[str, tuple[Codec, ServerStep | None]] = {
    "averaging": ("plain", None),
    "averaging, twice as far": ("plain", ServerStep(2.0, 0.0)),
    "momentum": ("fast", None),
    "FedAdam": ("fast", FEDADAM),
    "FedAdam, 16 bits": ("plain", FEDADAM),
}
"""Codec and the server's step, None for that of the codec's profile; FedAdam with its default numbers."""
AT = (5, 10, 25, 50, 100)
WINDOW = 3
"""Rounds of which accuracies are told: means of the three rounds up to each."""
SEEDS = 3
DIGIT_PARAMETERS, WATCH_PARAMETERS = 5_000, 2_823


@dataclass(frozen=True, slots=True)
class Row:
    """What one scheme came to on one kind of fleet; the names are those of the JSON file.

    Attributes:
        accuracy: by round, mean of all seeds.
        void: rounds of all seeds together that were lost to wrapping.
    """

    fleet: str
    devices: int
    parameters: int
    scheme: str
    accuracy: dict[int, float]
    void: int


def fleets() -> dict[str, list[Task]]:
    """Tasks by kind of fleet, one for each seed.

    Raises:
        HushfleetError: the watch recordings cannot be had.
        ImportError: scikit-learn is not installed.
    """
    some = [digit_task(digits(), 10, DIGIT_PARAMETERS, seed) for seed in range(SEEDS)]
    people = watch_tasks(load_people(), WATCH_PARAMETERS, seed=0)[:SEEDS]
    return {
        "digits, one class each": [replace(task, devices=by_class(halves(task.devices))) for task in some],
        "digits, uneven": some,
        "watch, one class each": [replace(task, devices=by_class(task.devices)) for task in people],
        "watch, one person each": people,
    }


def halves(devices: Sequence[Rows]) -> list[Rows]:
    """All rows on two devices, in turn."""
    x, y = (np.concatenate(parts) for parts in zip(*((rows.x, rows.y) for rows in devices), strict=True))
    return [Rows(x[start::2], y[start::2]) for start in (0, 1)]


def by_class(devices: Sequence[Rows]) -> list[Rows]:
    """A device for each class that a device has."""
    parts = [(rows, rows.y == label) for rows in devices for label in np.unique(rows.y)]
    return [Rows(rows.x[mine], rows.y[mine]) for rows, mine in parts]


def measured(tasks: dict[str, list[Task]], rounds: int) -> Iterator[Row]:
    """Each scheme on each kind of fleet."""
    for fleet, seeds in tasks.items():
        for scheme, (codec, server) in SCHEMES.items():
            curves, void = [], 0
            for task in seeds:
                sums = HushfleetSums(task, codec, messages(codec, task.layers, len(task.devices)), server)
                curves.append([*accuracies(task, sums, rounds)])
                void += sums.void
            mean = np.mean(curves, axis=0)
            shown = {at: float(mean[max(0, at - WINDOW) : at].mean()) for at in AT if at <= rounds}
            yield Row(fleet, len(seeds[0].devices), seeds[0].parameters, scheme, shown, void)


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Write the figures here.")
@click.option("--rounds", type=click.IntRange(min(AT)), default=max(AT), show_default=True)
def main(json_path: Path, rounds: int) -> None:
    """Accuracies after some rounds with each step of the server; a minute or two."""
    rows: list[Row] = []
    try:
        for row in measured(fleets(), rounds):
            rows.append(row)
            shown = "  ".join(f"{at:>3}: {accuracy:.3f}" for at, accuracy in row.accuracy.items())
            click.echo(f"{row.fleet:24} {row.devices:>3} devices  {row.scheme:24} {shown}  void {row.void}")
    except ImportError:
        raise click.ClickException(
            "the digits come with scikit-learn, which is not installed: pip install -e '.[bench]'"
        ) from None
    except HushfleetError as error:
        raise click.ClickException(str(error)) from None
    json_path.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
