"""Federated, alone and pooled on the watch recordings, for any choice of two unseen people; sums in memory.

What is federated here goes through the real codec. Masks are left out, since they cancel exactly: what is added is what
remains of the uploads after the masks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from nacl.utils import random
from numpy.typing import NDArray

from hushfleet import codec
from hushfleet.hashing import digest
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.local import LocalResult, evaluate, train
from hushfleet.learning.metrics import accuracy
from hushfleet.secagg.residues import Vector, add_into
from hushfleet_demo import watch_task as task
from hushfleet_demo.data import Person

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
    own_models = own(start, people)
    splits = []
    for unseen in list(combinations(people, 2))[:count]:
        training = [person for person in people if person not in unseen]
        alone, pooled = without_federation(start, own_models, training, unseen)
        federated = score(_federated(start, training, _name(unseen)), unseen)
        split = Split((unseen[0].number, unseen[1].number), federated, alone, pooled)
        splits.append(split)
        each(split)
    return splits


def own(start: Flat, people: Sequence[Person]) -> dict[int, Flat]:
    """Each person's own model, by number; it does not depend on who is left out."""
    return {person.number: _trained_at_once(start, [person], f"alone {person.number}") for person in people}


def without_federation(
    start: Flat, own_models: dict[int, Flat], training: Sequence[Person], unseen: Sequence[Person]
) -> tuple[float, float]:
    """Accuracy on the unseen people: of the others' own models on average, and of one model of all their rows."""
    alone = float(np.mean([score(own_models[person.number], unseen) for person in training]))
    return alone, score(_trained_at_once(start, training, f"pooled, {_name(unseen)}"), unseen)


def _name(unseen: Sequence[Person]) -> str:
    return " and ".join(str(person.number) for person in unseen) + " unseen"


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


def score(flat: Flat, people: Sequence[Person]) -> float:
    """Accuracy over all windows of these people."""
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
