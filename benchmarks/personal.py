"""What a device gains from a version of its own, trained on from the fleet's with the guard, or from an own last layer.

    python benchmarks/personal.py --json personal.json

Each device in turn is the one that is judged, on rows of its own that come later than all that it has. Of those it has,
the last fifth is kept aside for the guard (edge_agent/personal.py). All on the demos' recordings:
* watch: a person of whom the first half of each exercise is known, who takes part (`member`) or only follows (`new`);
* watch, three of seven: the same where each person does three exercises alone, not all the same ones;
* turbines, wind: a device with as long a recording as all others (`member`), or its first days alone (`new`), as in the
  demos; judged in the time after.
With a personal head the first layer is federated, and the last one is each device's own; a device that only follows has
version 0's, and trains on from there. Sums are in memory, through the real codecs.
"""

# ruff: noqa: E402  (numpy reads the number of threads when it is first imported)
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import numpy as np

from edge_agent.personal import Tuned, fine_tuning, judgeable
from edge_agent.personal_head import clipped
from edge_agent.sources.rows import LocalData
from edge_agent.sources.rows import Rows as OwnRows
from edge_agent.training.numpy_trainer import NumpyTrainer
from hushfleet.errors import HushfleetError
from hushfleet.hashing import digest
from hushfleet_demo import turbines, watch_task, wind
from hushfleet_demo.comparison import federated, trained_at_once
from hushfleet_demo.newcomer import Newcomers
from hushfleet_demo.sums import sums_of
from hushfleet_demo.task import Flat, Rows, Task
from hushfleet_demo.turbines_data import load_turbines
from hushfleet_demo.watch_data import Person, load_people
from hushfleet_demo.wind_data import load_stations

KEPT = 0.2
"""Part of a device's own rows that is kept aside."""
SOME = 3
"""Exercises of each person, where they do not all do the same."""


@dataclass(frozen=True, slots=True)
class Case:
    """One device that is judged.

    Attributes:
        task: what is learned.
        name: the device's.
        others: what the others train on, by name.
        takes_part: whether it trains with them.
        own, kept: what it trains on, and what it keeps aside.
        later: what it is judged on.
    """

    task: Task
    name: str
    others: dict[str, Rows] = field(repr=False)
    takes_part: bool
    own: Rows = field(repr=False)
    kept: Rows = field(repr=False)
    later: Rows = field(repr=False)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Of local training, as a plan has them."""

    steps: int
    batch: int
    rate: float
    momentum: float
    proximal: float = 0.0


def watch(exercises: int, takes_part: bool) -> Iterator[Case]:
    """People, each with so many of the exercises."""
    people, classes = load_people(), watch_task.CLASSES
    sides = {
        person.number: _sides(person, [(person.number + 2 * one) % classes for one in range(exercises)])
        for person in people
    }
    for person in people:
        others = {str(number): own for number, (own, _, _) in sides.items() if number != person.number}
        yield Case(watch_task.TASK, str(person.number), others, takes_part, *sides[person.number])


def _sides(person: Person, exercises: Sequence[int]) -> tuple[Rows, Rows, Rows]:
    """Own, kept and later windows; between two of them one that shares samples with both is left out."""
    own, kept, later = list[int](), list[int](), list[int]()
    for exercise in exercises:
        places = np.flatnonzero(person.labels == exercise).tolist()
        half = len(places) // 2
        first = half - int(KEPT * half)
        own, kept, later = own + places[: first - 1], kept + places[first:half], later + places[half + 1 :]
    one, two, three = (Rows(person.windows[places], person.labels[places]) for places in (own, kept, later))
    return one, two, three


def recorded(fleet: Newcomers, is_new: bool) -> Iterator[Case]:
    """Devices with recordings in order of time."""
    for device in fleet.recordings:
        everything = device.between(device.times[0], fleet.judged[0])
        rows = fleet.training(device.name)
        mine = rows.pop(device.name) if is_new else everything
        others = {name: whole for name, whole in rows.items() if name != device.name}
        first = len(mine) - int(KEPT * len(mine))
        own, kept = Rows(mine.x[:first], mine.y[:first]), Rows(mine.x[first:], mine.y[first:])
        yield Case(fleet.task, device.name, others, True, own, kept, device.between(*fleet.judged))


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "watch, new": lambda: watch(watch_task.CLASSES, False),
    "watch, member": lambda: watch(watch_task.CLASSES, True),
    "watch, three of seven, new": lambda: watch(SOME, False),
    "watch, three of seven, member": lambda: watch(SOME, True),
    "turbines, new": lambda: recorded(
        Newcomers(turbines.TASK, load_turbines(), turbines.OWN, turbines.JUDGED), is_new=True
    ),
    "turbines, member": lambda: recorded(
        Newcomers(turbines.TASK, load_turbines(), turbines.OWN, turbines.JUDGED), is_new=False
    ),
    "wind, member": lambda: recorded(Newcomers(wind.TASK, load_stations(), wind.OWN, wind.JUDGED), is_new=False),
}


def tuned(case: Case, flat: Flat) -> Tuned | None:
    """What the device makes of the fleet's model; None if it keeps too little aside."""
    if not judgeable(len(case.kept)):
        return None
    task = case.task
    data = LocalData(OwnRows(case.own.x, case.own.y), OwnRows(case.kept.x, case.kept.y), task.head)
    numbers = Numbers(task.steps, task.batch, task.rate, task.momentum)
    trainer = NumpyTrainer(task.layers, task.head)
    work = fine_tuning(trainer, flat, task.layers, data, numbers, digest("ordr", case.name.encode()))
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Tuned = end.value
            return found


def with_heads(task: Task, devices: Mapping[str, Rows], name: str, judged: str) -> Flat:
    """The shared layer after all rounds, and the last layer of the device that is judged."""
    shared = replace(task, layers=task.layers[:-1])
    flat, d = shared.start(), len(shared.start())
    heads, sums = dict.fromkeys(devices, task.start()[d:]), sums_of(shared, len(devices))
    for number in range(task.rounds):
        trained = []
        for device, rows in devices.items():
            whole = np.concatenate([flat, heads[device]])
            found = task.train(whole, rows, task.steps, f"{name}, {number}, {device}")
            heads[device] = heads[device] + clipped(found.delta[d:], task.clip)
            trained.append(replace(found, delta=found.delta[:d]))
        flat = sums.apply(flat, trained, f"{name}, round {number}")
    return np.concatenate([flat, heads.get(judged, task.start()[d:])])


def judged(case: Case) -> dict[str, float]:
    """Accuracy, or mean absolute error, on the device's later rows."""
    task, name = case.task, f"{case.name} judged"
    devices = case.others | ({case.name: case.own} if case.takes_part else {})
    flat, headed = federated(task, devices, name), with_heads(task, devices, name, case.name)
    own, own_headed = tuned(case, flat), tuned(case, headed)
    return {
        "federated": task.judge(flat, case.later),
        "alone": task.judge(trained_at_once(task, case.own, f"alone {case.name}"), case.later),
        "tuned": task.judge(own.flat if own else flat, case.later),
        "guarded": task.judge(own.flat if own and own.better else flat, case.later),
        "used": float(own is not None and own.better),
        "head": task.judge(headed, case.later),
        "head_guarded": task.judge(own_headed.flat if own_headed and own_headed.better else headed, case.later),
    }


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), required=True, help="Write the means here.")
@click.option("--case", "only", type=click.Choice([*CASES]), multiple=True, help="Only this one; may be repeated.")
@click.option("--devices", type=click.IntRange(1), help="Only the first so many of each case.")
def main(path: Path, only: tuple[str, ...], devices: int | None) -> None:
    """Federated, alone, trained on from the fleet's model always or where the guard allows it, and personal heads."""
    means = {}
    try:
        for name in only or CASES:
            found = []
            for case in list(CASES[name]())[:devices]:
                found.append(judged(case))
                shown = "  ".join(f"{key} {value:.3f}" for key, value in found[-1].items())
                click.echo(f"{name}: {case.name:>8}  {shown}")
            means[name] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
            click.echo(f"{name}: {'mean':>8}  " + "  ".join(f"{key} {value:.4f}" for key, value in means[name].items()))
        path.write_text(json.dumps(means, indent=2) + "\n", encoding="utf-8")
    except HushfleetError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
