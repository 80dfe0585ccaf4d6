"""Statistics rounds once more, from docs/protocol.md alone: in plain integers and floats, number by number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from second_sums import checksum, padded
from second_wire import require

ENDS = (10, 100, 1_000, 10_000)
BINS = 16
SIZES = 96
LARGEST = 64.0


@dataclass(frozen=True)
class Grid:
    """What a plan for so many devices counts in."""

    base: int
    digits: int

    @property
    def top(self) -> int:
        return int(self.base**self.digits) - 1


def grid_for(largest: int) -> Grid:
    base, digits = 32767 // largest + 1, 1
    while base**digits < 2**24:
        digits += 1
    return Grid(base, digits)


def numbers_of(
    windows: int, labels: Sequence[int], classes: int, values: Sequence[Sequence[float]], missing: Sequence[float]
) -> list[float]:
    """What a device says of itself, in the order of the text."""
    kind = sum(windows >= end for end in ENDS)
    said = [float(kind == one) for one in range(len(ENDS) + 1)]
    if classes:
        shares = [labels.count(one) / max(1, len(labels)) for one in range(classes)]
        said += [float(bool(labels)), *shares, *(share * share for share in shares)]
    for channel, absent in zip(values, missing, strict=True):
        many = max(1, len(channel))
        mean = math.fsum(channel) / many
        said += [float(bool(channel)), absent, mean, math.fsum(one * one for one in channel) / many, mean * mean]
        bins = [min(BINS - 1, math.floor(one * BINS)) for one in channel]
        said += [bins.count(one) / many for one in range(BINS)]
    return said


def judged(task: str, classes: int, outputs: Sequence[Sequence[float]], targets: Sequence[Any]) -> list[float]:
    """What a device says of the base model on its rows, in the order of the text."""
    many = max(1, len(outputs))
    said = [float(bool(outputs))]
    rows = list(zip(outputs, targets, strict=True))
    if task == "classes":
        told = [max(range(classes), key=lambda one: (row[one], -one)) for row in outputs]
        said += [told.count(one) / many for one in range(classes)]
        said += [
            sum(one == guess == right for guess, right in zip(told, targets, strict=True)) / many
            for one in range(classes)
        ]
        for one in range(classes):
            for mine in (True, False):
                bins = [_odds(row, one) for row, right in rows if (right == one) == mine]
                said += [bins.count(bin_) / many for bin_ in range(BINS)]
    elif task == "anomaly":
        means = [sum((a - b) ** 2 for a, b in zip(row, right, strict=True)) / len(row) for row, right in rows]
        said += _sizes([min(mean, LARGEST) for mean in means], many)
    else:
        errors = [min(max(right[0] - row[0], -LARGEST), LARGEST) for row, right in rows]
        above, below = [one for one in errors if one >= 0], [-one for one in errors if one < 0]
        said += [math.fsum(part) / LARGEST / many for part in (above, below)]
        said += _sizes(above, many) + _sizes(below, many)
    return said


def _odds(row: Sequence[float], one: int) -> int:
    """The bin of a class's log-odds."""
    others = math.fsum(math.exp(value) for at, value in enumerate(row) if at != one)
    return min(max(math.floor(row[one] - math.log(others)), -8), 7) + 8


def _sizes(errors: Sequence[float], many: int) -> list[float]:
    bins = [min(max(math.floor(4 * math.log2(one)) + 72, 0), SIZES - 1) if one else 0 for one in errors]
    return [bins.count(one) / many for one in range(SIZES)]


def encoded(numbers: Sequence[float], grid: Grid, seed: bytes, words: bytes) -> bytes:
    """A device's vector on the wire before masking; `words` are one u64 a number."""
    body: list[int] = []
    for at, number in enumerate(numbers):
        r = int.from_bytes(words[8 * at : 8 * at + 8], "little") >> 11
        q = min(grid.top, math.floor(number * grid.top + r * 2.0**-53))
        for _ in range(grid.digits):
            body.append(q % grid.base)
            q //= grid.base
    body += [0] * (padded(len(body)) - len(body))
    lanes = [65_536, checksum(body, [65_536], seed)]
    low, high = bytes(one & 255 for one in body), bytes(one >> 8 for one in body)
    return low + high + b"".join(lane.to_bytes(8, "little") for lane in lanes)


def opened(total: bytes, devices: int, channels: int, classes: int, task: str, grid: Grid, seed: bytes) -> list[int]:
    """The sum of every number over the devices, checked."""
    readings = len(ENDS) + 1 + (1 + 2 * classes if classes else 0) + channels * (5 + BINS)
    count = readings + len(judged(task, classes, [], []))
    m = padded(count * grid.digits)
    require(len(total) == 2 * m + 16, "a vector of another length")
    body = [low | high << 8 for low, high in zip(total[:m], total[m : 2 * m], strict=True)]
    body = [one - 65_536 if one >= 32_768 else one for one in body]
    weight, check = (int.from_bytes(total[2 * m + at : 2 * m + at + 8], "little") for at in (0, 8))
    require(weight == 65_536 * devices, "weight")
    require(not any(body[count * grid.digits :]), "padding")
    require(checksum(body, [weight], seed) == check, "checksum")
    require(all(0 <= one <= devices * (grid.base - 1) for one in body), "a digit out of range")
    sums = [
        sum(body[at * grid.digits + place] * grid.base**place for place in range(grid.digits)) for at in range(count)
    ]
    at = len(ENDS) + 1
    wholes = [(sums[:at], devices * grid.top)]
    if classes:
        wholes.append((sums[at + 1 : at + 1 + classes], sums[at]))
        at += 1 + 2 * classes
    wholes += [(sums[one + 5 : one + 5 + BINS], sums[one]) for one in range(at, readings, 5 + BINS)]
    there, rest = sums[readings], sums[readings + 1 :]
    if task == "classes":
        wholes.append((rest[:classes], there))
        by_class = rest[2 * classes :]
        wholes += [(by_class[one : one + 2 * BINS], there) for one in range(0, len(by_class), 2 * BINS)]
    else:
        wholes.append((rest if task == "anomaly" else rest[2:], there))
    for shares, whole in wholes:
        require(abs(sum(shares) - whole) <= devices * len(shares), "shares without their whole")
    return sums
