"""Fleets whose devices differ, made of the watch data: what `diverse_fleets.py` lets learn."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from bytes_tasks import Rows, Task

CLASSES = 7
SMALLEST_DEVIATION = 1e-6


def few_classes(task: Task, classes: int) -> Task:
    """Every device is split into several with so many classes each, the last of them with what is left."""
    devices = [part for rows in task.devices for part in _by_class(rows, classes)]
    return replace(task, name=f"{task.name}, {classes} classes a device", devices=devices)


def _by_class(rows: Rows, classes: int) -> Iterator[Rows]:
    for first in range(0, CLASSES, classes):
        mine = (first <= rows.y) & (rows.y < first + classes)
        if mine.any():
            yield Rows(rows.x[mine], rows.y[mine])


def own_scale(task: Task) -> Task:
    """Every device standardises its rows once more, over those that it has."""
    devices = []
    for rows in task.devices:
        deviations = np.maximum(rows.x.std(axis=0), SMALLEST_DEVIATION)
        devices.append(Rows((rows.x - rows.x.mean(axis=0)) / deviations, rows.y))
    return replace(task, name=f"{task.name}, own scale", devices=devices)


def rare_class(task: Task, rare: int, fewer: int) -> Task:
    """Of one class every device keeps the first of so many rows each, and of the others all."""
    devices = []
    for rows in task.devices:
        kept = (rows.y != rare) | (np.cumsum(rows.y == rare) % fewer == 1)
        devices.append(Rows(rows.x[kept], rows.y[kept]))
    return replace(task, name=f"{task.name}, class {rare} {fewer} times rarer", devices=devices)


def short_of_rows(task: Task, devices: int, rows: int) -> Task:
    """The first so many devices have only so many rows, evenly spread over what they had."""
    cut = []
    for number, mine in enumerate(task.devices):
        at = np.linspace(0, len(mine.y) - 1, rows).astype(int) if number < devices else slice(None)
        cut.append(Rows(mine.x[at], mine.y[at]))
    return replace(task, name=f"{task.name}, {devices} devices with {rows} rows", devices=cut)


def with_newcomer(task: Task, newcomer: int, alone: int | None = None) -> tuple[Task, Rows]:
    """One device has just the first half of its rows of each class; with the other half.

    With `alone` no other device has any row of that class.
    """
    mine = task.devices[newcomer]
    early = np.zeros(len(mine.y), bool)
    for label in np.unique(mine.y):
        at = np.flatnonzero(mine.y == label)
        early[at[: len(at) // 2]] = True
    devices = [Rows(rows.x[rows.y != alone], rows.y[rows.y != alone]) for rows in task.devices]
    devices[newcomer] = Rows(mine.x[early], mine.y[early])
    return replace(task, name=f"{task.name}, newcomer {newcomer}, {alone} alone", devices=devices), Rows(
        mine.x[~early], mine.y[~early]
    )
