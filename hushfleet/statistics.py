"""The numbers of a statistics round, as a vector and back (docs/protocol.md, sections 5.1, 11.6, 11.7.2).

Every device describes its readings, and how the base model does on its rows, by the same numbers, each from 0 to 1, in
the order that the fleet's schema gives. A number is rounded without bias to an integer and stands as a few digits, one
a coordinate, in a base so small that the sum of the digits of N devices cannot wrap 16 bits. What opens is the exact
sum of the integers, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hushfleet.actions import Draw
from hushfleet.codec import FIXED_POINT, LARGEST_SUM, PLAIN_BITS, OpeningError, OpeningReason, checksum
from hushfleet.errors import RefusedError
from hushfleet.judgement import Judgement
from hushfleet.judgement import length as judged_length
from hushfleet.secagg.residues import Vector, padded, signed, signed_tail, word_dtype
from hushfleet.wire.schema import Schema

TAIL = 1
"""The plan's `tail`: weight and checksum."""
CLIP = 1.0
SMALLEST_RANGE = 1 << 24
"""A number has at least so many steps, however large the fleet: a deviation of a thousandth of a range still shows."""

ROW_CLASSES = (10, 100, 1_000, 10_000)
"""Where one class of numbers of windows ends and the next begins."""
BINS = 16
PRESENT, MISSING, MEAN, SQUARE, SPREAD = range(5)
"""A channel's numbers before its histogram: whether there is any measured sample, the share of samples that were not
measured, the mean of the measured ones on the range, the mean of their squares, the square of their mean."""
HEAD = 5


@dataclass(frozen=True, slots=True)
class Digits:
    """How a number from 0 to 1 stands in residues: as an integer up to `top`, in `count` digits below `base`."""

    base: int
    count: int

    @classmethod
    def of(cls, largest_survivor_set: int) -> Self:
        """The digits for sums of at most so many devices, 1 to 16,383."""
        base, count = LARGEST_SUM // largest_survivor_set + 1, 1
        while base**count < SMALLEST_RANGE:
            count += 1
        return cls(base, count)

    @property
    def top(self) -> int:
        """The integer that stands for 1, from 2^24 - 1 to below 2^36."""
        return int(self.base**self.count) - 1

    @property
    def step(self) -> float:
        """The plan's `step`."""
        return 1.0 / self.top


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """One device's numbers, or what they come to over several, by what they are about.

    Attributes:
        rows: (5,), which class the number of its windows falls into: 1 there, else 0.
        labelled: (1,), whether any window has a label; (0,) unless the schema has classes.
        shares: (classes,), each class's part of the labelled windows.
        squares: (classes,), the squares of these.
        channels: (channels, 5 + 16), the numbers before the histogram, and its shares over the range.
        judged: how the base model does.
    """

    rows: NDArray[Any] = field(repr=False)
    labelled: NDArray[Any] = field(repr=False)
    shares: NDArray[Any] = field(repr=False)
    squares: NDArray[Any] = field(repr=False)
    channels: NDArray[Any] = field(repr=False)
    judged: Judgement

    @classmethod
    def split(cls, schema: Schema, flat: NDArray[Any]) -> Self:
        """The parts of a vector of `length(schema)` numbers."""
        classes = len(schema.classes)
        sizes = [len(ROW_CLASSES) + 1, min(1, classes), classes, classes, len(schema.channels) * (HEAD + BINS)]
        rows, labelled, shares, squares, channels, judged = np.split(flat, np.cumsum(sizes))
        by_channel = channels.reshape(len(schema.channels), HEAD + BINS)
        return cls(rows, labelled, shares, squares, by_channel, Judgement.split(schema, judged))

    def histograms(self) -> list[list[float] | None]:
        """Of each channel the shares over its range, of those that have it; None where nobody has."""
        there = self.channels[:, PRESENT]
        return [
            (channel[HEAD:] / devices).round(4).tolist() if devices > 0 else None
            for channel, devices in zip(self.channels, there, strict=True)
        ]

    def flat(self) -> NDArray[Any]:
        """All of them in the order of the protocol."""
        parts = (self.rows, self.labelled, self.shares, self.squares, self.channels.ravel(), self.judged.flat())
        return np.concatenate(parts)


def length(schema: Schema) -> int:
    """How many numbers a device gives."""
    classes = len(schema.classes)
    readings = len(ROW_CLASSES) + 1 + min(1, classes) + 2 * classes + len(schema.channels) * (HEAD + BINS)
    return readings + judged_length(schema)


def coordinates(schema: Schema, digits: Digits) -> int:
    """The plan's `coords`."""
    return length(schema) * digits.count


def describe(
    schema: Schema,
    windows: int,
    labels: NDArray[np.int64],
    values: Sequence[NDArray[np.float64]],
    missing: list[float],
    judged: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """One device's numbers, float64, shape (length(schema),), each from 0 to 1.

    Args:
        windows: how many the device has.
        labels: int64, class of each labelled window.
        values: of each channel the measured samples, float64; what lies outside of 0 to 1 is brought to its end.
        missing: of each channel the share of samples that were not measured.
        judged: how the base model does on the device's rows, as `hushfleet.judgement.judge` has it; None without any.
    """
    rows = np.zeros(len(ROW_CLASSES) + 1)
    rows[np.searchsorted(ROW_CLASSES, windows, side="right")] = 1.0
    shares = np.bincount(labels, minlength=len(schema.classes)) / max(1, len(labels))
    labelled = np.full(min(1, len(schema.classes)), float(len(labels) > 0))
    channels = np.array([_channel(one, absent) for one, absent in zip(values, missing, strict=True)])
    if judged is None:
        judged = np.zeros(judged_length(schema))
    return Numbers(rows, labelled, shares, shares**2, channels, Judgement.split(schema, judged)).flat()


def _channel(values: NDArray[np.float64], missing: float) -> NDArray[np.float64]:
    scaled = np.clip(values, 0.0, 1.0)
    number = max(1, len(scaled))
    mean = scaled.sum() / number
    bins = np.minimum((scaled * BINS).astype(np.int64), BINS - 1)
    head = [float(len(scaled) > 0), missing, mean, (scaled @ scaled) / number, mean**2]
    return np.concatenate((head, np.bincount(bins, minlength=BINS) / number))


def encode_statistics(numbers: NDArray[np.float64], *, digits: Digits, checksum_seed: bytes, draw: Draw) -> Vector:
    """One device's vector before masking.

    Args:
        numbers: float64, each from 0 to 1.
        digits: the plan's.
        checksum_seed: 32 bytes, chks(plan hash).
        draw: the randomness of the rounding, as from `expanded`; 8 bytes a number are taken at once.

    Raises:
        RefusedError: a number is not from 0 to 1.
    """
    if not ((numbers >= 0.0) & (numbers <= 1.0)).all():
        raise RefusedError("a number of the statistics is not from 0 to 1")
    uniform = np.frombuffer(draw(8 * len(numbers)), "<u8") >> np.uint64(11)
    whole = np.minimum(np.floor(numbers * digits.top + uniform * 2.0**-53), digits.top).astype(np.int64)
    places = whole[:, None] // digits.base ** np.arange(digits.count) % digits.base
    body = np.zeros(padded(places.size), word_dtype(PLAIN_BITS))
    body[: places.size] = places.ravel()
    tail = [FIXED_POINT]
    tail.append(checksum(len(body), lambda block: signed(body[block], PLAIN_BITS), tail, checksum_seed))
    return Vector(body, np.array(tail, np.uint64))


def open_statistics(
    total: Vector, survivors: int, schema: Schema, *, digits: Digits, checksum_seed: bytes
) -> NDArray[np.int64]:
    """The sum of every number over the survivors, in units of 1/top: int64, shape (length(schema),).

    Args:
        total: the sum of `survivors` vectors from which every mask is gone.
        survivors: how many.
        schema, digits, checksum_seed: as they were made with.

    Raises:
        OpeningError: with the first promise broken, in this order: the weight; padding and checksum, whose reason is
            the checksum's; the range of each digit; shares that do not add up to their whole.
    """
    body, (weight, found) = signed(total.body, PLAIN_BITS), map(int, signed_tail(total.tail))
    if weight != survivors * FIXED_POINT:
        raise OpeningError(OpeningReason.LANE_RANGE, "the weight lane does not count every device once")
    used = coordinates(schema, digits)
    if body[used:].any():
        raise OpeningError(OpeningReason.CHECKSUM, "the padding did not open to 0: the masks do not cancel")
    if checksum(len(body), lambda block: body[block], [weight], checksum_seed) != found % (1 << 64):
        raise OpeningError(OpeningReason.CHECKSUM, "the checksum fails: masks do not cancel")
    places = body[:used].reshape(-1, digits.count)
    if places.min() < 0 or places.max() > survivors * (digits.base - 1):
        raise OpeningError(OpeningReason.LANE_RANGE, "a number is out of the range of so many devices")
    sums: NDArray[np.int64] = places @ digits.base ** np.arange(digits.count)
    _check_shares(Numbers.split(schema, sums), survivors, digits.top)
    return sums


def for_everyone(sums: NDArray[np.int64], schema: Schema, fewest: int, top: int) -> NDArray[np.int64]:
    """The sums as all devices may read them: what fewer than `fewest` devices have told is 0, as if nobody had.

    A device that has nothing to tell adds 0: of labels, of a channel or of a model the sum may be that of one device,
    however many are in the round.

    Args:
        sums: as `open_statistics` gives them.
        schema: of what they were made with.
        fewest: devices.
        top: the digits'.
    """
    told, least = sums.copy(), fewest * top
    parts = Numbers.split(schema, told)
    if parts.labelled.sum() < least:
        for some in (parts.labelled, parts.shares, parts.squares):
            some[:] = 0
    parts.channels[parts.channels[:, PRESENT] < least] = 0
    if parts.judged.present[0] < least:
        told[len(told) - judged_length(schema) :] = 0
    return told


def _check_shares(sums: Numbers, survivors: int, top: int) -> None:
    """Each device rounds each share by less than one step."""
    wholes = [
        (sums.rows, survivors * top),
        *([(sums.shares, int(sums.labelled[0]))] if len(sums.labelled) else []),
        *((channel[HEAD:], int(channel[PRESENT])) for channel in sums.channels),
        *sums.judged.wholes(),
    ]
    if any(abs(int(shares.sum()) - whole) > survivors * len(shares) for shares, whole in wholes):
        raise OpeningError(OpeningReason.LANE_RANGE, "shares do not add up to their whole")
