"""The watch federation over every choice of two unseen people: 45 splits, through the real codec, sums in memory.

    python benchmarks/watch_splits.py --json splits.json

For each split, accuracy on the two unseen people of
* federated: the other eight train together; only the opened sum of their encoded updates changes the model;
* alone: a model trained on one person's rows with as many steps, averaged over the eight;
* pooled: a model trained on the rows of all eight in one place with as many steps.
Masks are left out, since they cancel exactly: what is added here is what remains of the uploads after the masks.
"""

# ruff: noqa: E402  (numpy reads the number of threads when it is first imported)
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import click
import numpy as np
from nacl.utils import random
from numpy.typing import NDArray

from hushfleet import codec
from hushfleet.errors import HushfleetError
from hushfleet.hashing import digest
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.local import LocalResult, evaluate, train
from hushfleet.learning.metrics import accuracy
from hushfleet.secagg.residues import Vector, add_into
from hushfleet_demo import watch_task as task
from hushfleet_demo.data import Person, load_people

Flat = NDArray[np.float32]

STEP = codec.plain_step(task.CLIP, task.LARGEST_SURVIVOR_SET)


@dataclass(frozen=True, slots=True)
class Split:
    """Accuracies on the two unseen people, 0 to 1."""

    unseen: tuple[int, int]
    federated: float
    alone: float
    pooled: float


def run_splits(people: Sequence[Person], count: int, each: Callable[[Split], None]) -> list[Split]:
    """Run the first `count` of all choices of two unseen people; `each` is called after every one."""
    start = initial_flat(task.LAYERS, task.INIT_SEED)
    # A person's own model does not depend on who is left out.
    own_models = {person.number: _trained_at_once(start, [person], f"alone {person.number}") for person in people}
    splits = []
    for unseen in list(combinations(people, 2))[:count]:
        training = [person for person in people if person not in unseen]
        name = f"{unseen[0].number} and {unseen[1].number} unseen"
        split = Split(
            unseen=(unseen[0].number, unseen[1].number),
            federated=_score(_federated(start, training, name), unseen),
            alone=float(np.mean([_score(own_models[person.number], unseen) for person in training])),
            pooled=_score(_trained_at_once(start, training, f"pooled, {name}"), unseen),
        )
        splits.append(split)
        each(split)
    return splits


def _federated(start: Flat, people: Sequence[Person], name: str) -> Flat:
    flat = start
    for round_number in range(task.ROUNDS):
        checksum_seed = digest("chks", f"{name}, round {round_number}".encode())
        total = Vector.zeros(flat.size, codec.PLAIN_BITS, codec.lanes(0))
        for person in people:
            local = _train(flat, person.windows, person.labels, task.STEPS, f"{name}, {round_number}, {person.number}")
            add_into(total, _encoded(local, checksum_seed))
        opened = codec.open_plain(
            total,
            len(people),
            coords=flat.size,
            clip=task.CLIP,
            step=STEP,
            largest_weight=1.0,
            checksum_seed=checksum_seed,
        )
        body = codec.pack_opened(opened.residues, codec.PLAIN_BITS)
        flat = codec.apply_delta(flat, body, bits=codec.PLAIN_BITS, step=STEP, weight=opened.weight, rate=1.0)
    return flat


def _encoded(local: LocalResult, checksum_seed: bytes) -> Vector:
    return codec.encode_plain(
        local.delta,
        1.0,
        codec.LocalReport(local.examples, local.training_loss_sum, 0, 0.0, 0),
        clip=task.CLIP,
        step=STEP,
        largest_survivor_set=task.LARGEST_SURVIVOR_SET,
        checksum_seed=checksum_seed,
        draw=random,
    )


def _trained_at_once(start: Flat, people: Sequence[Person], name: str) -> Flat:
    """A model trained in one place on the rows of `people`, with as many steps as a device takes in all rounds."""
    windows = np.concatenate([person.windows for person in people])
    labels = np.concatenate([person.labels for person in people])
    return start + _train(start, windows, labels, task.ROUNDS * task.STEPS, name).delta


def _train(flat: Flat, windows: Flat, labels: NDArray[np.int64], steps: int, name: str) -> LocalResult:
    return train(
        flat,
        task.LAYERS,
        windows,
        labels,
        head=task.HEAD,
        steps=steps,
        batch=task.BATCH,
        rate=task.RATE,
        momentum=task.MOMENTUM,
        proximal=task.PROXIMAL,
        order_seed=name.encode(),
    )


def _score(flat: Flat, people: Sequence[Person]) -> float:
    scores = [evaluate(flat, task.LAYERS, person.windows, person.labels, head=task.HEAD) for person in people]
    return accuracy(sum(score.correct for score in scores), sum(score.evaluated for score in scores))


def summary(splits: Sequence[Split]) -> dict[str, float]:
    """The means over the splits, as the JSON file holds them."""
    return {
        "splits": len(splits),
        "federated": float(np.mean([split.federated for split in splits])),
        "alone": float(np.mean([split.alone for split in splits])),
        "pooled": float(np.mean([split.pooled for split in splits])),
    }


@contextmanager
def progress(total: int) -> Iterator[Callable[[Split], None]]:
    """Show the splits as they come: a bar where rich is installed, plain lines elsewhere."""
    try:
        from rich.progress import Progress
    except ImportError:
        yield lambda split: click.echo(_line(split))
        return
    with Progress() as bar:
        shown = bar.add_task("splits", total=total)

        def show(split: Split) -> None:
            bar.console.print(_line(split), highlight=False)
            bar.advance(shown)

        yield show


def _line(split: Split) -> str:
    one, other = split.unseen
    return (
        f"{one:2} and {other:2} unseen: federated {split.federated:.3f}  "
        f"alone {split.alone:.3f}  pooled {split.pooled:.3f}"
    )


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Write the means here.")
@click.option("--splits", type=click.IntRange(1, 45), default=45, show_default=True, help="Only the first so many.")
def main(json_path: Path, splits: int) -> None:
    """Accuracy on two unseen people, federated, alone and pooled, over all 45 choices of the two."""
    began = time.monotonic()
    try:
        people = load_people()
    except HushfleetError as error:
        raise click.ClickException(str(error)) from None
    with progress(splits) as show:
        results = run_splits(people, splits, show)
    means = summary(results)
    over_alone = min(split.federated - split.alone for split in results)
    to_pooled = min(split.federated - split.pooled for split in results)
    click.echo(
        f"mean of {splits}: federated {means['federated']:.3f}, alone {means['alone']:.3f}, "
        f"pooled {means['pooled']:.3f}; worst split {over_alone:+.3f} over alone, {to_pooled:+.3f} to pooled; "
        f"{time.monotonic() - began:.0f} s"
    )
    try:
        json_path.write_text(json.dumps(means, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {json_path}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
