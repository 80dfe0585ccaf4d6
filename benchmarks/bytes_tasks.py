"""What the fleets of `bytes_to_accuracy.py` learn: handwritten digits dealt unevenly, and the watch data by person."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hushfleet.learning.layers import parameter_count
from hushfleet.wire.layers import Dense
from hushfleet_demo.watch_data import Person

DIRICHLET = 0.3
"""Concentration of a class over the devices: most of a class lies with a few of them."""
SMALLEST_SHARE = 2
"""Rows that every device has at least."""
TEST_SHARE = 0.4
CLIP = 8.0
"""Above every update with its residual: with a twentieth of the coordinates they are five times as long as a delta."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows.

    Attributes:
        x: float32, shape (n, features).
        y: int64, shape (n,), classes.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Task:
    """What a fleet learns.

    Attributes:
        name: decides every draw.
        layers: the model's.
        devices: each device's rows.
        test: rows that no device has.
        steps, batch, rate, momentum: local training.
        clip: the clipping norm.
        proximal: pull back to the global model.
        balanced: whether every class that a device has gets as many places in its batches.
    """

    name: str
    layers: tuple[Dense, ...]
    devices: Sequence[Rows]
    test: Rows
    steps: int
    batch: int
    rate: float
    momentum: float
    clip: float
    proximal: float = 0.0
    balanced: bool = False

    @property
    def parameters(self) -> int:
        """d."""
        return parameter_count(self.layers)


def layers(features: int, hidden: int, classes: int) -> tuple[Dense, ...]:
    """A network with one hidden layer."""
    return (Dense(features, hidden, "relu"), Dense(hidden, classes))


def hidden_for(features: int, classes: int, parameters: int) -> int:
    """The width with which the network has about so many parameters."""
    return round((parameters - classes) / (features + 1 + classes))


def digits() -> Rows:
    """scikit-learn's 1,797 digits, 8 by 8 pixels from 0 to 1.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    return Rows((data.data / 16).astype(np.float32), data.target.astype(np.int64))


def digit_task(rows: Rows, devices: int, parameters: int, seed: int) -> Task:
    """Three fifths of the rows over the devices, each class by shares of its own; the others are the test's."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(rows.y))
    test, training = np.split(order, [round(TEST_SHARE * len(order))])
    parts = _dealt(rows.y[training], devices, generator)
    classes = int(rows.y.max()) + 1
    return Task(
        f"digits, {devices} devices, {parameters} parameters, seed {seed}",
        layers(rows.x.shape[1], hidden_for(rows.x.shape[1], classes, parameters), classes),
        [_picked(rows, training[part]) for part in parts],
        _picked(rows, test),
        steps=10,
        batch=16,
        rate=0.1,
        momentum=0.0,
        clip=CLIP,
    )


def watch_tasks(people: Sequence[Person], parameters: int, seed: int) -> list[Task]:
    """Five fleets of eight people, each judged on the two who are not in it; every person is unseen once."""
    order = np.random.default_rng(seed).permutation(len(people)).tolist()
    return [_watch_task(people, order[at : at + 2], parameters) for at in range(0, len(order), 2)]


def _watch_task(people: Sequence[Person], unseen: Sequence[int], parameters: int) -> Task:
    devices = [Rows(one.windows, one.labels) for at, one in enumerate(people) if at not in unseen]
    test = [people[at] for at in sorted(unseen)]
    features, classes = people[0].windows.shape[1], 7
    return Task(
        f"watch, {sorted(unseen)} unseen, {parameters} parameters",
        layers(features, hidden_for(features, classes, parameters), classes),
        devices,
        Rows(np.concatenate([one.windows for one in test]), np.concatenate([one.labels for one in test])),
        steps=20,
        batch=32,
        rate=0.05,
        momentum=0.5,
        clip=CLIP,
    )


def _dealt(labels: NDArray[np.int64], devices: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Row numbers of each device; drawn again until everyone has `SMALLEST_SHARE`."""
    while True:
        parts: list[list[int]] = [[] for _ in range(devices)]
        for label in np.unique(labels):
            mine = generator.permutation(np.flatnonzero(labels == label))
            shares = generator.dirichlet(np.full(devices, DIRICHLET))
            edges = np.round(np.cumsum(shares)[:-1] * len(mine)).astype(int)
            for part, rows in zip(parts, np.split(mine, edges), strict=True):
                part += rows.tolist()
        if min(map(len, parts)) >= SMALLEST_SHARE:
            return [np.array(part) for part in parts]


def _picked(rows: Rows, at: NDArray[np.int64]) -> Rows:
    return Rows(rows.x[at], rows.y[at])
