"""How fleets learn whose devices differ: in their classes, in how many rows they have, and in when they come.

    python benchmarks/diverse_fleets.py --json diverse.json --plot diverse.png

The watch data, in five fleets of eight people, each judged on the two who are not in it. Devices train as agents do;
their updates go through the real encodings, residuals, sums and deltas (bytes_federation.py). Masks are left out: they
cancel exactly. The questions:
* skew: every person's rows are split over devices with two exercises each, or one; all take part in every round, or a
  quarter of them drawn anew;
* scale: the same where a device has standardised over its own rows, not over all exercises of its person;
* rare: each exercise in turn has twenty times fewer rows on every device;
* rows: seven of eight people have twenty rows. Does it help to count devices by their rows?
* turbines: the same of four wind turbines (diverse_turbines.py);
* joining: a person who comes at half of the rounds, judged on rows of its own that come later than those it has; alone:
  the same where nobody else does one of the exercises.
"""

# ruff: noqa: E402  (numpy reads the number of threads when it is first imported)
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click
import diverse_turbines
import numpy as np
from bytes_federation import HushfleetSums
from bytes_sizes import messages
from bytes_tasks import Rows, Task, watch_tasks
from bytes_to_accuracy import progress
from bytes_training import train_together
from diverse_tasks import CLASSES, few_classes, own_scale, rare_class, short_of_rows, with_newcomer
from diverse_ways import Way
from numpy.typing import NDArray
from server_optimizers import FEDADAM

from hushfleet.errors import HushfleetError
from hushfleet.hashing import digest
from hushfleet.learning.layers import forward, initial_flat
from hushfleet.learning.local import LocalResult
from hushfleet_demo.turbines import TASK
from hushfleet_demo.watch_data import load_people

Flat = NDArray[np.float32]
PARAMETERS = 2_823
ROUNDS, LAST = 60, 10
"""Rounds of a run, and how many of them, the last, a score is the mean of."""
QUARTER = 0.25
FEWER, FEW, MILLION = 20, 20, 1_000_000
"""How many times fewer rows of a rare class, rows of a device that has few, and of one that has many."""
WORDS = {CLASSES: "all exercises", 2: "two exercises", 1: "one exercise"}
ALONE = 6
"""The exercise that the newcomer alone does."""


@dataclass(frozen=True, slots=True)
class Score:
    """How a model does on rows that no device has.

    Attributes:
        accuracy: 0 to 1.
        macro_f1: mean over the classes.
        recalls: float64[classes], the part of each class's rows that are found.
    """

    accuracy: float
    macro_f1: float
    recalls: NDArray[np.float64] = field(repr=False)


AVERAGING = Way("averaging")
WAYS = (
    AVERAGING,
    Way("FedProx 0.1", changes={"proximal": 0.1}),
    Way("FedProx 1", changes={"proximal": 1.0}),
    Way("5 steps, not 20", changes={"steps": 5}),
    Way("plain", "plain"),
    Way("fast", "fast"),
    Way("FedAdam, plain", "plain", server=FEDADAM),
    Way("FedAdam, fast", "fast", server=FEDADAM),
)
TURBINE_WAYS = (
    Way("plain", "plain"),
    Way("default"),
    Way("FedProx 0.1, plain", "plain", {"proximal": 0.1}),
    Way("10 steps, not 50, plain", "plain", {"steps": 10}),
    Way("fast", "fast"),
    Way("FedAdam, plain", "plain", server=FEDADAM),
)
TURBINE_ROUNDS = 40
BALANCED = Way("balanced", changes={"balanced": True})


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result; the mean over the fleets.

    Attributes:
        question, fleet, way: what was learned.
        accuracy, macro_f1: on the people who are in no fleet, or the newcomer's later rows where `fleet` says so.
        lowest_recall: of the class that is found least, mean over the fleets of each one's lowest.
        rare_recall: of the rare class; None where there is none.
        void: part of the rounds that were lost to wrapping.
        error: of turbines, which have none of the others: mean absolute error in parts of the rated power.
    """

    question: str
    fleet: str
    way: str
    accuracy: float | None = None
    macro_f1: float | None = None
    lowest_recall: float | None = None
    rare_recall: float | None = None
    void: float = 0.0
    error: float | None = None


def score(flat: Flat, task: Task, rows: Rows) -> Score:
    """Of a model on some rows."""
    found = forward(flat, task.layers, rows.x).argmax(axis=1)
    pairs = np.bincount(CLASSES * rows.y + found, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    right, there, said = np.diag(pairs), pairs.sum(axis=1), pairs.sum(axis=0)
    return Score(
        float(right.sum() / pairs.sum()), float(np.mean(2 * right / np.maximum(there + said, 1))), right / there
    )


def learn(task: Task, way: Way, rounds: int, present: Callable[[int], Sequence[int]]) -> Iterator[tuple[Flat, int]]:
    """The model after each round, and how many were void so far; `present` gives a round's devices, ascending."""
    task = replace(task, **way.changes)
    sums = HushfleetSums(task, way.codec, messages(way.codec, task.layers, len(task.devices)), way.server)
    flat = initial_flat(task.layers, digest("seed", task.name.encode()))
    for number in range(1, rounds + 1):
        places = present(number)
        flat = sums.apply(flat, _trained(flat, task, places, number), number, places)
        yield flat, sums.void


def _trained(flat: Flat, task: Task, places: Sequence[int], number: int) -> list[LocalResult]:
    here = replace(task, devices=[task.devices[place] for place in places])
    return train_together(flat, here, [f"{task.name}, {number}, {place}".encode() for place in places])


def everyone(task: Task) -> Callable[[int], Sequence[int]]:
    """All devices in every round."""
    return lambda number: range(len(task.devices))


def some(task: Task, part: float) -> Callable[[int], Sequence[int]]:
    """So many of the devices, drawn anew in every round."""
    count = round(part * len(task.devices))

    def present(number: int) -> Sequence[int]:
        drawn = np.random.default_rng(number).permutation(len(task.devices))[:count]
        return sorted(drawn.tolist())

    return present


def by_rows(task: Task, rounds: int, weights: Sequence[float]) -> Flat:
    """The model of averaging in float32, each device with its weight."""
    flat = initial_flat(task.layers, digest("seed", task.name.encode()))
    for number in range(1, rounds + 1):
        trained = _trained(flat, task, range(len(task.devices)), number)
        flat = flat + np.average([one.delta for one in trained], axis=0, weights=weights).astype(np.float32)
    return flat


@dataclass(slots=True)
class Bench:
    """The questions over the same fleets.

    Args:
        tasks: the fleets as they are.
        rounds: of every run.
        each: is told of every run that ends.
    """

    tasks: Sequence[Task]
    rounds: int
    each: Callable[[str], None]

    def runs(self) -> int:
        """How many runs there are in all."""
        return len(self.tasks) * ((1 + 2 + 2) * len(WAYS) + 2 + 2 * (CLASSES + 1) + 3 + 2 * 3)

    def rows(self) -> Iterator[Row]:
        """All questions, one after the other."""
        yield from self.skew()
        yield from self.scale()
        yield from self.rare()
        yield from self.few_rows()
        yield from self.joining()

    def skew(self) -> Iterator[Row]:
        """Devices with few classes, under every way."""
        for classes, part in ((CLASSES, 1.0), (2, 1.0), (1, 1.0), (2, QUARTER), (1, QUARTER)):
            tasks = [few_classes(task, classes) for task in self.tasks]
            fleet = f"{WORDS[classes]} a device, {len(tasks[0].devices)} devices"
            fleet += ", all take part" if part == 1 else ", a quarter takes part"
            for way in WAYS:
                yield self._mean("skew", fleet, way, tasks, part)

    def scale(self) -> Iterator[Row]:
        """Devices with few classes that standardise over what they have."""
        for classes in (2, 1):
            tasks = [own_scale(few_classes(task, classes)) for task in self.tasks]
            yield self._mean("scale", f"{WORDS[classes]} a device, standardised over its own rows", AVERAGING, tasks)

    def rare(self) -> Iterator[Row]:
        """A class with few rows, with and without balanced batches."""
        for way in (AVERAGING, BALANCED):
            yield self._mean("rare", "none is rare", way, self.tasks)
        for rare in range(CLASSES):
            tasks = [rare_class(task, rare, FEWER) for task in self.tasks]
            for way in (AVERAGING, BALANCED):
                yield self._mean("rare", f"exercise {rare} is rare", way, tasks, rare=rare)

    def few_rows(self) -> Iterator[Row]:
        """Most devices have few rows: counted once each, by their rows, or as if the other had a million."""
        tasks = [short_of_rows(task, len(task.devices) - 1, FEW) for task in self.tasks]
        fleet = f"{len(tasks[0].devices) - 1} devices have {FEW} rows"
        for name in ("each counts once", "by rows", "the eighth has a million"):
            scores = []
            for task in tasks:
                weights = [float(len(rows.y)) for rows in task.devices]
                if name == "each counts once":
                    weights = [1.0] * len(weights)
                elif name != "by rows":
                    weights[-1] = MILLION
                scores.append(score(by_rows(task, self.rounds, weights), task, task.test))
                self.each(f"rows: {name}")
            yield _row("rows", fleet, name, scores)

    def joining(self) -> Iterator[Row]:
        """One that comes at half of the rounds, at once, or never; it does what the others do, or alone does one."""
        half, marks = self.rounds // 2, _marks(self.rounds)
        for alone in (None, ALONE):
            for name, comes in (("from the start", 0), ("at half", half), ("never", self.rounds)):
                for_it: dict[str, list[Score]] = {mark: [] for mark in marks.values()}
                for_others: list[Score] = []
                for task in self.tasks:
                    task, later = with_newcomer(task, len(task.devices) - 1, alone)
                    joins = _joins(len(task.devices), comes)
                    for number, (flat, _) in enumerate(learn(task, AVERAGING, self.rounds, joins), start=1):
                        if number in marks:
                            for_it[marks[number]].append(score(flat, task, later))
                    for_others.append(score(flat, task, task.test))
                    self.each(f"joining: {name}")
                what = "joining" if alone is None else "alone"
                for mark, scores in for_it.items():
                    yield _row(what, f"the newcomer's later rows, {mark}", name, scores, alone)
                yield _row(what, "people in no fleet, at the end", name, for_others, alone)

    def _mean(
        self, question: str, fleet: str, way: Way, tasks: Sequence[Task], part: float = 1.0, rare: int | None = None
    ) -> Row:
        scores, void = [], 0
        for task in tasks:
            present = everyone(task) if part == 1 else some(task, part)
            models = list(learn(task, way, self.rounds, present))
            scores += [score(flat, task, task.test) for flat, _ in models[-LAST:]]
            void += models[-1][1]
            self.each(f"{question}: {fleet}, {way.name}")
        return _row(question, fleet, way.name, scores, rare, void / self.rounds / len(tasks))


def turbine_runs() -> int:
    """How many runs `turbine_rows` takes."""
    return 3 * len(TURBINE_WAYS) + 3 * 4


def turbine_rows(rounds: int, each: Callable[[str], None]) -> Iterator[Row]:
    """The same questions where a number is learned; `each` is told of every run that ends."""
    here = diverse_turbines.turbines()
    judged = diverse_turbines.judged(here)
    for fleet, devices in diverse_turbines.fleets(here).items():
        for way in TURBINE_WAYS:
            models = list(diverse_turbines.learn(devices, way, rounds, lambda number: range(4)))
            each(f"turbines: {fleet}, {way.name}")
            errors = [TASK.judge(flat, judged) for flat, _ in models[-LAST:]]
            yield Row("turbines", fleet, way.name, error=float(np.mean(errors)), void=models[-1][1] / rounds)
    half = rounds // 2
    marks = _marks(rounds)
    for name, comes in (("from the start", 0), ("at half", half), ("never", rounds)):
        found: dict[str, list[float]] = {mark: [] for mark in marks.values()}
        for devices, later in diverse_turbines.newcomers(here):
            models = list(diverse_turbines.learn(devices, TURBINE_WAYS[0], rounds, _joins(len(devices), comes)))
            each(f"turbines, joining: {name}")
            for number, mark in marks.items():
                found[mark].append(TASK.judge(models[number - 1][0], later))
        for mark, errors in found.items():
            yield Row("turbines", f"the newcomer's later rows, {mark}", name, error=float(np.mean(errors)))


def _marks(rounds: int) -> dict[int, str]:
    """The rounds after which a newcomer's model is judged, where it joins after half of them."""
    half = rounds // 2
    return {half: "before", half + 1: "a round later", half + 5: "five later", rounds: "at the end"}


def _joins(devices: int, comes: int) -> Callable[[int], Sequence[int]]:
    """All devices, the last of them in the rounds after `comes`."""
    return lambda number: range(devices if number > comes else devices - 1)


def _row(
    question: str, fleet: str, way: str, scores: Sequence[Score], rare: int | None = None, void: float = 0.0
) -> Row:
    return Row(
        question,
        fleet,
        way,
        float(np.mean([one.accuracy for one in scores])),
        float(np.mean([one.macro_f1 for one in scores])),
        float(np.mean([one.recalls.min() for one in scores])),
        None if rare is None else float(np.mean([one.recalls[rare] for one in scores])),
        void,
    )


def line(row: Row) -> str:
    """A row in words."""
    if row.error is not None:
        return f"{row.question:9}{row.fleet:58}{row.way:26}{row.error:.4f}"
    rare = "" if row.rare_recall is None else f"  rare {row.rare_recall:.3f}"
    void = f"  void {row.void:.0%}" if row.void else ""
    return (
        f"{row.question:9}{row.fleet:58}{row.way:26}{row.accuracy:.3f}  F1 {row.macro_f1:.3f}  "
        f"lowest {row.lowest_recall:.3f}{rare}{void}"
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the ways beside each other for every fleet of the first question, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    mine = [row for row in rows if row.question == "skew"]
    fleets = list(dict.fromkeys(row.fleet for row in mine))
    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    width = 0.8 / len(WAYS)
    for at, way in enumerate(WAYS):
        heights = [row.macro_f1 or 0.0 for row in mine if row.way == way.name]
        axes.bar(np.arange(len(fleets)) + (at - (len(WAYS) - 1) / 2) * width, heights, width, label=way.name)
    axes.set(ylim=(0.5, 1.0), ylabel="macro F1 on people in no fleet")
    axes.set_xticks(
        range(len(fleets)), [fleet.replace(", ", "\n").replace(" a device", "\na device") for fleet in fleets]
    )
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Write the rows here.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Draw the first question, as PNG.")
@click.option("--rounds", type=click.IntRange(2 * LAST), default=ROUNDS, show_default=True, help="Of every run.")
@click.option("--fleets", type=click.IntRange(1, 5), default=5, show_default=True, help="Just the first so many.")
def main(json_path: Path, plot_path: Path | None, rounds: int, fleets: int) -> None:
    """How fleets learn whose devices differ in classes, in rows, and in when they come."""
    try:
        tasks = watch_tasks(load_people(), PARAMETERS, 0)[:fleets]
    except HushfleetError as error:
        raise click.ClickException(str(error)) from None
    bench = Bench(tasks, rounds, lambda name: None)
    try:
        with progress(bench.runs() + turbine_runs()) as bench.each:
            rows = [*bench.rows(), *turbine_rows(TURBINE_ROUNDS, bench.each)]
    except HushfleetError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(map(line, rows)))
    try:
        json_path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
        if plot_path is not None:
            plot(rows, plot_path)
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
