"""How a model does on rows kept aside, as numbers of a statistics round (docs/protocol.md, sections 5.1 and 11.7.2).

Every device gives shares and means over its own rows, each from 0 to 1; divided by the number of devices that have rows
they are those of the fleet, every device counting once. Macro F1, the area under the curve, absolute and pinball errors
and quantiles come of them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hushfleet.wire.schema import ANOMALY, CLASSES, Schema

ODDS = 16
"""Bins of a class's log-odds, each one wide, from -8 to 8."""
SIZES = 96
"""Bins of an error's size, four an octave: from 2^-18, below which all fall into the first, to 64."""
FIRST_SIZE = 72
"""The bin that begins at 1."""
LARGEST = 64.0
"""An error counts for at most this much, as in the loss lanes (section 11.6)."""
EDGES = np.concatenate(([0.0], 2.0 ** ((np.arange(1, SIZES + 1) - FIRST_SIZE) / 4)))
"""Where the bins of sizes begin, and the end of the last: float64, shape (97,)."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One device's numbers, or what they come to over several, by what they are about.

    Attributes:
        present: (1,), whether the device has rows to judge on.
        told: (classes,), the share of the rows that the model takes for each class.
        both: (classes,), of these the ones that are of it.
        odds: (classes, 2, 16), of the class's log-odds: the shares of the rows that are of it, then of the others.
        parts: (2,), mean of the errors above 0 and of those below, in parts of 64; (0,) unless a number is told.
        sizes: (k, 96), shares of the errors' sizes: of a number the errors from 0 up, then those below 0; of an anomaly
            the mean squared differences, k = 1; k = 0 for classes.
    """

    present: NDArray[Any] = field(repr=False)
    told: NDArray[Any] = field(repr=False)
    both: NDArray[Any] = field(repr=False)
    odds: NDArray[Any] = field(repr=False)
    parts: NDArray[Any] = field(repr=False)
    sizes: NDArray[Any] = field(repr=False)

    @classmethod
    def split(cls, schema: Schema, flat: NDArray[Any]) -> Self:
        """The parts of a vector of `length(schema)` numbers."""
        shapes = _shapes(schema)
        parts = np.split(flat, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        return cls(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))

    def flat(self) -> NDArray[Any]:
        """All of them in the order of the protocol."""
        parts = (self.present, self.told, self.both, self.odds, self.parts, self.sizes)
        return np.concatenate([part.ravel() for part in parts])

    def wholes(self) -> list[tuple[NDArray[Any], Any]]:
        """What adds up to what: shares, and their whole."""
        rows = [*([self.told] if self.told.size else []), *(one.ravel() for one in self.odds)]
        rows += [self.sizes.ravel()] if self.sizes.size else []
        return [(shares, self.present[0]) for shares in rows]

    # What the sums say.

    def f1(self) -> list[float | None]:
        """By class twice the share that is right of what is told and what is there; None for one of neither."""
        there = self.odds[:, 0].sum(axis=1) + self.told
        return [float(2 * both / all_) if all_ > 0 else None for both, all_ in zip(self.both, there, strict=True)]

    def auc(self) -> list[float | None]:
        """By class how often a row of it has the higher odds of it than a row of another; None without either.

        The area under the curve of hits over false alarms, from bin to bin by the trapezoid; within a bin all are even.
        """
        found: list[float | None] = []
        for mine, others in self.odds:
            pairs = float(mine.sum() * others.sum())
            won = float(mine @ (np.cumsum(others) - others / 2))
            found.append(won / pairs if pairs > 0 else None)
        return found

    def absolute(self) -> float:
        """Mean absolute error of a number, in the model's own units."""
        return float(self.parts.sum() / self.present[0]) * LARGEST

    def pinball(self, level: float) -> float:
        """Mean pinball loss of what is told, taken for the quantile of this level, 0 to 1; units as `absolute`."""
        above, below = self.parts / self.present[0]
        return float(level * above + (1 - level) * below) * LARGEST

    def quantile(self, level: float) -> float:
        """The error that this part of the rows, 0 to 1, does not exceed; units as `absolute`.

        Of a number it is what is right less what is told. Right to within a bin, a fifth of its size.
        """
        if len(self.sizes) == 1:
            shares, edges = self.sizes[0], EDGES
        else:
            above, below = self.sizes
            shares, edges = np.concatenate((below[::-1], above)), np.concatenate((-EDGES[:0:-1], EDGES))
        reached = np.cumsum(shares)
        wanted = level * reached[-1]
        at = int(np.searchsorted(reached, wanted))
        part = (wanted - (reached[at] - shares[at])) / shares[at] if shares[at] else 0.0
        return float(edges[at] + min(max(part, 0.0), 1.0) * (edges[at + 1] - edges[at]))


def _shapes(schema: Schema) -> list[tuple[int, ...]]:
    classes = len(schema.classes)
    numbers = 0 if schema.task in (CLASSES, ANOMALY) else 2
    sizes = {CLASSES: 0, ANOMALY: 1}.get(schema.task, 2)
    return [(1,), (classes,), (classes,), (classes, 2, ODDS), (numbers,), (sizes, SIZES)]


def length(schema: Schema) -> int:
    """How many numbers a device gives of a model."""
    return sum(map(math.prod, _shapes(schema)))


def judge(schema: Schema, batches: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> NDArray[np.float64]:
    """One device's numbers of a model, float64, shape (length(schema),), each from 0 to 1; all 0 without rows.

    Args:
        batches: what the model gives for some rows, float[n, outputs], and what it should have given: int[n] classes,
            or float[n, outputs].
    """
    total, rows = np.zeros(length(schema)), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for outputs, targets in batches:
            total += _counted(schema, np.asarray(outputs, np.float64), targets).flat()
            rows += len(outputs)
    if rows:
        total /= rows
        total[0] = 1.0
    return total


def _counted(schema: Schema, outputs: NDArray[np.float64], targets: NDArray[Any]) -> Judgement:
    """The numbers of some rows, added up instead of averaged."""
    found = Judgement.split(schema, np.zeros(length(schema)))
    if schema.task == CLASSES:
        told = outputs.argmax(axis=1)
        found.told[:] = np.bincount(told, minlength=len(found.told))
        found.both[:] = np.bincount(told[told == targets], minlength=len(found.both))
        for one, (mine, bins) in enumerate(zip(found.odds, _odds(outputs).T, strict=True)):
            for counts, rows in zip(mine, (targets == one, targets != one), strict=True):
                counts[:] = np.bincount(bins[rows], minlength=ODDS)
    elif schema.task == ANOMALY:
        found.sizes[0] = _sizes(_capped(((outputs - targets) ** 2).mean(axis=1)))
    else:
        errors = _capped((targets - outputs)[:, 0])
        for at, some in enumerate((errors[errors >= 0], -errors[errors < 0])):
            found.parts[at] = some.sum() / LARGEST
            found.sizes[at] = _sizes(some)
    return found


def _odds(outputs: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each class's log-odds, as the softmax of what the model gives has them."""
    with np.errstate(divide="ignore"):
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        odds = np.floor(np.log(shares / (1 - shares)))
    return np.asarray(np.nan_to_num(np.clip(odds, -ODDS // 2, ODDS // 2 - 1)) + ODDS // 2, np.int64)


def _capped(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """From -64 to 64; what is no number counts as 64."""
    return np.clip(np.nan_to_num(errors, nan=LARGEST), -LARGEST, LARGEST)


def _sizes(errors: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many errors, none negative, are of each size."""
    with np.errstate(divide="ignore"):
        bins = np.clip(np.floor(4 * np.log2(errors)) + FIRST_SIZE, 0, SIZES - 1)
    return np.asarray(np.bincount(bins.astype(np.int64), minlength=SIZES))
