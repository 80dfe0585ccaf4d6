"""Fleets whose devices have a class each, and what the benchmark tells of a server's step."""

import numpy as np
from bytes_tasks import Rows, Task
from server_optimizers import AT, FEDADAM, SCHEMES, by_class, halves, measured

from coordinator.encoding import ServerOptimizer, ServerStep
from hushfleet.wire.layers import Dense


def devices() -> list[Rows]:
    x = np.random.default_rng(1).standard_normal((60, 4)).astype(np.float32)
    y = np.arange(60) % 3
    return [Rows(x[:25], y[:25]), Rows(x[25:], y[25:])]


def test_every_row_lies_on_one_device_and_a_device_has_one_class() -> None:
    dealt = by_class(halves(devices()))
    assert [set(rows.y.tolist()) for rows in dealt] == 2 * [{0}, {1}, {2}]
    every = np.concatenate([rows.x for rows in dealt]).tolist()
    assert sorted(every) == sorted(np.concatenate([rows.x for rows in devices()]).tolist())


def test_every_scheme_tells_its_accuracies_and_no_two_the_same() -> None:
    task = Task("a test", (Dense(4, 5, "relu"), Dense(5, 3)), devices(), devices()[0], 4, 8, 0.1, 0.0, 8.0)
    rows = list(measured({"a fleet": [task, task]}, AT[0]))
    assert [row.scheme for row in rows] == list(SCHEMES)
    assert all(list(row.accuracy) == [AT[0]] and 0 <= row.accuracy[AT[0]] <= 1 for row in rows)
    assert len({tuple(row.accuracy.values()) for row in rows}) >= 3


def test_fedadam_has_its_default_numbers() -> None:
    numbers = ServerOptimizer("adam")
    assert ServerStep(numbers.rate, numbers.momentum, (numbers.second_momentum, numbers.tau)) == FEDADAM
