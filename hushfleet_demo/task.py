"""What a demo's fleet learns: rows, model, and the numbers of training."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hushfleet import codec
from hushfleet.encoding.profiles import PROFILES
from hushfleet.encoding.steps import bits_for
from hushfleet.encoding.subset import coordinates
from hushfleet.learning.layers import Head, initial_flat, parameter_count
from hushfleet.learning.local import LocalResult, evaluate, train
from hushfleet.wire.layers import Dense

Flat = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one device, or of several.

    Attributes:
        x: float32[n, features].
        y: int64[n], classes, or float32[n, 1], the number to predict.
    """

    x: Flat = field(repr=False)
    y: NDArray[Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.x)


def together(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, one part after the other."""
    return Rows(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))


@dataclass(frozen=True, slots=True)
class Task:
    """One learning task and how it is federated.

    Attributes:
        features: names of the columns that the model takes.
        layers, head: the model.
        init_seed: 32 bytes, of the models that are trained in memory.
        rounds: how many the demo runs.
        steps, batch, rate, momentum: of the local training of one round.
        clip: the largest norm of an update; with `largest_survivor_set` it gives the plain codec's step.
        codec: plain, or a profile of the rotated codec.
        unit: of a number to predict: how much of the rated value is 1 in the rows.
    """

    features: tuple[str, ...]
    layers: tuple[Dense, ...]
    head: Head
    init_seed: bytes
    rounds: int
    steps: int
    batch: int
    rate: float
    momentum: float
    clip: float
    largest_survivor_set: int
    codec: Literal["plain", "default"] = "plain"
    unit: float = 1.0

    @property
    def step(self) -> float:
        """The plain codec's."""
        return codec.plain_step(self.clip, self.largest_survivor_set)

    def form(self, participants: int) -> tuple[int, int]:
        """How many coordinates an upload has, and bits of each, where so many take part."""
        parameters = parameter_count(self.layers)
        if self.codec == "plain":
            return parameters, codec.PLAIN_BITS
        profile = PROFILES[self.codec]
        return coordinates(parameters, profile.keep), bits_for(participants, profile.spare_bits)

    def start(self) -> Flat:
        """Version 0 in memory."""
        return initial_flat(self.layers, self.init_seed)

    def train(self, flat: Flat, rows: Rows, steps: int, name: str) -> LocalResult:
        """Local training from `flat`; `name` decides the order of the rows."""
        return train(
            flat,
            self.layers,
            rows.x,
            rows.y,
            head=self.head,
            steps=steps,
            batch=self.batch,
            rate=self.rate,
            momentum=self.momentum,
            proximal=0.0,
            order_seed=name.encode(),
        )

    def judge(self, flat: Flat, rows: Rows) -> float:
        """The accuracy over these rows, 0 to 1; for a number to predict the mean absolute error in rated values."""
        found = evaluate(flat, self.layers, rows.x, rows.y, head=self.head)
        return (found.correct if self.head == "softmax" else self.unit * found.error_sum) / found.evaluated

    def write_csv(self, rows: Rows, path: Path) -> None:
        """Write rows as a device finds them: a header, the features and then `label`.

        The numbers are written out in full, so that reading them gives the same float32 again.
        """
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*self.features, "label"])
            writer.writerows(
                [*row, label] for row, label in zip(rows.x.tolist(), rows.y.reshape(-1).tolist(), strict=True)
            )
