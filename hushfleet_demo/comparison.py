"""Federated, alone and pooled, sums in memory: a demo judged for every choice of who is new to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hushfleet_demo.sums import sums_of
from hushfleet_demo.task import Flat, Rows, Task


@dataclass(frozen=True, slots=True)
class Split:
    """One choice of who is new.

    Attributes:
        new: their names.
        federated, alone, pooled: what `Task.judge` says of the three models on their rows.
    """

    new: tuple[str, ...]
    federated: float
    alone: float
    pooled: float


def summary(splits: Sequence[Split]) -> dict[str, float]:
    """The means over the splits, as the JSON file holds them."""
    return {
        "splits": len(splits),
        "federated": float(np.mean([split.federated for split in splits])),
        "alone": float(np.mean([split.alone for split in splits])),
        "pooled": float(np.mean([split.pooled for split in splits])),
    }


def trained_at_once(task: Task, rows: Rows, name: str) -> Flat:
    """A model trained in one place, with as many steps as a device takes in all rounds."""
    start = task.start()
    return start + task.train(start, rows, task.rounds * task.steps, name).delta


def federated(task: Task, devices: Mapping[str, Rows], name: str) -> Flat:
    """The model after all rounds, in each of which every device takes part."""
    flat, sums = task.start(), sums_of(task, len(devices))
    for number in range(task.rounds):
        trained = [
            task.train(flat, rows, task.steps, f"{name}, {number}, {device}") for device, rows in devices.items()
        ]
        flat = sums.apply(flat, trained, f"{name}, round {number}")
    return flat
