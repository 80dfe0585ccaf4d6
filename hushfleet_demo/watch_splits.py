"""Federated, alone and pooled on the watch recordings, for any choice of two unseen people; sums in memory."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations

import numpy as np

from hushfleet_demo.comparison import Split, federated, trained_at_once
from hushfleet_demo.task import Flat, together
from hushfleet_demo.watch_data import Person
from hushfleet_demo.watch_task import TASK


def run_splits(people: Sequence[Person], count: int, each: Callable[[Split], None]) -> list[Split]:
    """Run the first `count` of all choices of two unseen people, on every core; `each` is called after every one."""
    pairs = list(combinations(range(len(people)), 2))[:count]
    splits = []
    # Who starts the demo has threads, which a fork would not survive.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for split in pool.map(partial(_run_split, people, own(people)), pairs):
            splits.append(split)
            each(split)
    return splits


def _run_split(people: Sequence[Person], own_models: dict[int, Flat], pair: tuple[int, int]) -> Split:
    unseen = [people[index] for index in pair]
    training = [person for index, person in enumerate(people) if index not in pair]
    alone, pooled = without_federation(own_models, training, unseen)
    model = federated(TASK, {str(person.number): person.rows for person in training}, _name(unseen))
    return Split(tuple(str(person.number) for person in unseen), score(model, unseen), alone, pooled)


def own(people: Sequence[Person]) -> dict[int, Flat]:
    """Each person's own model, by number; it does not depend on who is left out."""
    return {person.number: trained_at_once(TASK, person.rows, f"alone {person.number}") for person in people}


def without_federation(
    own_models: dict[int, Flat], training: Sequence[Person], unseen: Sequence[Person]
) -> tuple[float, float]:
    """Accuracy on the unseen people: of the others' own models on average, and of one model of all their rows."""
    alone = float(np.mean([score(own_models[person.number], unseen) for person in training]))
    rows = together([person.rows for person in training])
    return alone, score(trained_at_once(TASK, rows, f"pooled, {_name(unseen)}"), unseen)


def score(flat: Flat, people: Sequence[Person]) -> float:
    """Accuracy over all windows of these people."""
    return TASK.judge(flat, together([person.rows for person in people]))


def _name(unseen: Sequence[Person]) -> str:
    return " and ".join(str(person.number) for person in unseen) + " unseen"
