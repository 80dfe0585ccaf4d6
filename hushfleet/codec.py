"""The one door from a delta to residues and back: the plain codec (docs/protocol.md, sections 5, 6, 11.6, 11.7).

A device weighs its delta, clips it, rounds it without bias to integers q on a common step, and lays beside the body the
tail lanes that travel in the same masked vector. The sum of these vectors opens to Σq exactly, because N devices at
their bound cannot wrap 16 bits; a checksum over the integers proves it. What was opened is what every device applies.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from nacl.bindings import randombytes_buf_deterministic
from numpy.typing import NDArray

from hushfleet.actions import Draw
from hushfleet.errors import ConfigurationError, HushfleetError, MalformedError, RefusedError
from hushfleet.secagg.residues import Vector, pack, padded, signed, signed_tail, unpack, word_dtype

PLAIN_BITS = 16
LARGEST_SUM = (1 << (PLAIN_BITS - 1)) - 1
LARGEST_SURVIVOR_SET = LARGEST_SUM // 2
LARGEST_WEIGHT = 4.0

FIXED_POINT = 1 << 16
LARGEST_COUNT = 1 << 20
LARGEST_LOSS = 64

BLOCK = 8_192
"""Coordinates encoded at once: 64 KiB of float64, which stay in the cache and need no fresh pages from the system."""


class Lane(IntEnum):
    """The tail of a training round (`tail` 0), in order."""

    WEIGHT = 0
    EXAMPLES = 1
    TRAINING_LOSS = 2
    EVALUATED = 3
    EVALUATION_LOSS = 4
    CORRECT = 5
    NORM = 6
    CHECKSUM = 7


class OpeningReason(IntEnum):
    """Why a sum was not applied; the numbers are those of a result's `reason`."""

    CHECKSUM = 3
    LANE_RANGE = 4
    NORM = 5


class OpeningError(HushfleetError):
    """An opened sum that breaks one of its promises. It is never applied.

    Attributes:
        reason: which promise, as the result tells it.
    """

    def __init__(self, reason: OpeningReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class LocalReport:
    """What one device says about its training, in plain numbers.

    Attributes:
        examples: rows trained on, 0 or more.
        training_loss_sum: sum over them of min(loss, 64), from 0.
        evaluated: rows scored, 0 or more.
        evaluation_loss_sum: sum over them of min(loss, 64), from 0; absolute errors where the target is a number.
        correct: how many of the scored rows were right, 0 to `evaluated`.
    """

    examples: int
    training_loss_sum: float
    evaluated: int
    evaluation_loss_sum: float
    correct: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """What the survivors say together. The losses are means over their rows, 0 where there are none.

    Attributes:
        norm: L2 norm of the opened mean update.
    """

    examples: int
    training_loss: float
    evaluated: int
    evaluation_loss: float
    correct: int
    norm: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A sum that kept every promise.

    Attributes:
        residues: Σq, int64, shape (coords,).
        bits: how many bits of a residue tell the sum, 2 to 16.
        weight: the weight lane's sum, 65,536 for each unit of weight.
        metrics: the other lanes, read.
    """

    residues: NDArray[np.int64]
    bits: int
    weight: int
    metrics: Metrics


def lanes(tail: int) -> int:
    """How many tail lanes a plan's `tail` stands for.

    Raises:
        MalformedError: no such tail.
    """
    match tail:
        case 0:
            return len(Lane)
        case 1:
            return 2
        case _:
            raise MalformedError(f"tail {tail} is unknown; it is 0 or 1")


def plain_step(clip: float, largest: int) -> float:
    """The step on which `largest` devices, each clipped to `clip`, cannot wrap 16 bits (section 11.7).

    Raises:
        ConfigurationError: largest is not in 1..16,383, or clip is not a positive number that leaves a step above 0.
    """
    if not 1 <= largest <= LARGEST_SURVIVOR_SET:
        raise ConfigurationError(f"largest_survivor_set = {largest}: the plain codec takes 1 to {LARGEST_SURVIVOR_SET}")
    step = clip * largest / (LARGEST_SUM - largest)
    if not (math.isfinite(step) and step > 0):
        raise ConfigurationError(f"clip = {clip}: the clipping norm must be a positive number")
    return step


def expanded(draw: Draw) -> Draw:
    """Randomness in bulk: 32 bytes of `draw` for each request, expanded by ChaCha20; the system's own is far slower."""
    return lambda size: randombytes_buf_deterministic(size, draw(32))


def encode_plain(
    delta: NDArray[np.float32],
    weight: float,
    report: LocalReport,
    *,
    clip: float,
    step: float,
    largest_survivor_set: int,
    checksum_seed: bytes,
    draw: Draw,
) -> Vector:
    """One device's vector before masking, with the tail of a training round (sections 11.6, 11.7).

    Args:
        delta: what training changed, float32, shape (d,).
        weight: 1 to 4; the policy may allow less.
        report: the device's own numbers. Above 2^20 rows the count is cut and its sums shrink with it.
        clip: largest L2 norm of weight · delta.
        step: `plain_step(clip, largest_survivor_set)`.
        largest_survivor_set: N, 1 to 16,383. Every integer is cut to ± floor(32767 / N).
        checksum_seed: 32 bytes, chks(plan hash).
        draw: the randomness of the rounding, as from `expanded`; 8 bytes a coordinate are taken, a block of 8,192
            coordinates at a time.

    Raises:
        RefusedError: a weight out of range, or a delta or a loss that is not a number: nothing may be uploaded.
    """
    check_weight(weight)
    check_finite(delta)
    largest_residue = LARGEST_SUM // largest_survivor_set
    shrink = _shrink(delta, weight, clip)
    body, square_sum = np.zeros(padded(len(delta)), word_dtype(PLAIN_BITS)), 0
    for block in _blocks(len(delta)):
        update = delta[block].astype(np.float64) * weight * shrink
        integers = np.clip(_rounded(update, step, draw), -largest_residue, largest_residue)
        body[block] = integers.astype(body.dtype)
        square_sum += int(integers @ integers)
    tail = [round(FIXED_POINT * weight), *report_lanes(report), square_sum]
    tail.append(checksum(len(body), lambda block: signed(body[block], PLAIN_BITS), tail, checksum_seed))
    return Vector(body, np.array(tail, np.uint64))


def open_plain(
    total: Vector,
    survivors: int,
    *,
    coords: int,
    clip: float,
    step: float,
    largest_weight: float,
    checksum_seed: bytes,
) -> Opened:
    """Read the sum of `survivors` vectors from which every mask is gone, if it keeps every promise (section 5).

    Args:
        total: body of padded(coords) words of 16 bits, eight lanes.
        survivors: |U|, 1 to the policy's largest survivor set.
        coords: d, without the padding.
        clip, step, checksum_seed: as they were encoded with.
        largest_weight: the policy's, 1 to 4.

    Raises:
        OpeningError: with the first promise broken, in this order: lane ranges, the divisor among them; padding (its
            reason is the checksum, for masks that did not cancel); checksum; norm.
    """
    body = signed(total.body, PLAIN_BITS)
    tail = [int(lane) for lane in signed_tail(total.tail)]
    check_lanes(tail, survivors, len(body), clip, step, largest_weight)
    if body[coords:].any():
        raise OpeningError(OpeningReason.CHECKSUM, "the padding did not open to 0: the masks do not cancel")
    expected = checksum(len(body), lambda block: body[block], tail[: Lane.CHECKSUM], checksum_seed)
    if expected != tail[Lane.CHECKSUM] % (1 << 64):
        raise OpeningError(OpeningReason.CHECKSUM, "the checksum fails: masks do not cancel or a coordinate wrapped")
    residues = body[:coords]
    if not norm_holds(residues, survivors, clip=clip, step=step):
        raise OpeningError(OpeningReason.NORM, f"the sum is longer than {survivors} clipped updates can make it")
    return Opened(residues, PLAIN_BITS, tail[Lane.WEIGHT], metrics_of(tail, _norm(residues) * step))


def norm_holds(residues: NDArray[np.int64], survivors: int, *, clip: float, step: float) -> bool:
    """Whether Σq, int64, shape (d,), can be the sum of `survivors` clipped updates (section 11.6, norm check).

    The second term is the rounding: its variance is at most 1/4 for each coordinate and device.
    """
    bound = survivors * clip / step + math.sqrt(survivors * padded(len(residues)))
    return _norm(residues) <= bound


def pack_opened(residues: NDArray[np.int64], bits: int) -> bytes:
    """The `body` of a delta message: an opened sum, int64, shape (d,), padded and packed."""
    body = np.zeros(padded(len(residues)), word_dtype(bits))
    body[: len(residues)] = residues.astype(body.dtype)
    return pack(body, bits)


def unpack_opened(body: bytes, bits: int, coords: int) -> NDArray[np.int64]:
    """The opened sum Q of a delta message: int64, shape (coords,).

    Raises:
        MalformedError: the body has another length, or its padding is not 0.
    """
    residues = signed(unpack(body, bits, padded(coords)), bits)
    if residues[coords:].any():
        raise MalformedError("the padding of a delta's body is not 0")
    return residues[:coords]


def apply_delta(
    flat: NDArray[np.float32], body: bytes, *, bits: int, step: float, weight: int, rate: float
) -> NDArray[np.float32]:
    """The next version (section 11.7). Every device computes it, bit for bit the same.

    Args:
        flat: the model before, float32, shape (d,); it is left as it is.
        body, bits, step, weight, rate: the fields of the delta message.

    Raises:
        MalformedError: the body does not fit the model, or weight is 0.
        RefusedError: the new model would hold NaN or infinity.
    """
    if weight == 0:
        raise MalformedError("a delta whose weight is 0 has no mean")
    opened = unpack_opened(body, bits, len(flat))
    with np.errstate(over="ignore", invalid="ignore"):
        # One operation after the other, from left to right: devices agree on the bits only while nobody regroups.
        update = opened.astype(np.float64)
        update *= step
        update /= weight / FIXED_POINT
        update *= rate
        after: NDArray[np.float32] = flat + update.astype(np.float32)
    if not np.isfinite(after).all():
        raise RefusedError("the delta leads to a model with NaN or infinity")
    return after


def check_weight(weight: float) -> None:
    """Raise RefusedError for a weight that no policy can allow."""
    if not 1.0 <= weight <= LARGEST_WEIGHT:
        raise RefusedError(f"weight {weight} is not within 1 to {LARGEST_WEIGHT:g}")


def check_finite(update: NDArray[np.float32]) -> None:
    """Raise RefusedError for an update that is not made of numbers."""
    if not np.isfinite(update).all():
        raise RefusedError("the update holds NaN or infinity: training diverged; lower the learning rate")


def _blocks(length: int) -> Iterator[slice]:
    """The blocks of an array of that length, in order."""
    return (slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))


def _shrink(delta: NDArray[np.float32], weight: float, clip: float) -> float:
    """What brings weight · delta down to a norm of clip; 1 if it is no longer than that."""
    square_sum = 0.0
    for block in _blocks(len(delta)):
        update = delta[block].astype(np.float64) * weight
        square_sum += float(update @ update)
    return min(1.0, clip / math.sqrt(square_sum)) if square_sum else 1.0


def _rounded(update: NDArray[np.float64], step: float, draw: Draw) -> NDArray[np.int64]:
    """update / step, each rounded up with the probability that makes it right on average."""
    uniform = np.frombuffer(draw(8 * len(update)), dtype="<u8") >> np.uint64(11)
    return np.floor(update / step + uniform * 2.0**-53).astype(np.int64)


def report_lanes(report: LocalReport) -> list[int]:
    """The lanes from examples to correct, each inside its range; RefusedError if a loss is not a number."""
    examples, evaluated = min(report.examples, LARGEST_COUNT), min(report.evaluated, LARGEST_COUNT)
    correct = report.correct * evaluated // report.evaluated if report.evaluated else 0
    return [
        examples,
        _loss_lane(report.training_loss_sum, report.examples, examples),
        evaluated,
        _loss_lane(report.evaluation_loss_sum, report.evaluated, evaluated),
        correct,
    ]


def _loss_lane(loss_sum: float, rows: int, counted: int) -> int:
    if math.isnan(loss_sum):
        raise RefusedError("a loss is not a number: training diverged; lower the learning rate")
    counted_sum = loss_sum * (counted / rows) if rows else 0.0
    return round(FIXED_POINT * min(max(counted_sum, 0.0), LARGEST_LOSS * counted))


def checksum_weights(length: int, seed: bytes) -> NDArray[np.uint64]:
    """u_j of that many lanes: every one is odd, so that no change of a single one can vanish mod 2^64 (11.6)."""
    return _stream(length, seed) | np.uint64(1)


def checksum(length: int, integers: Callable[[slice], NDArray[np.int64]], tail: list[int], seed: bytes) -> int:
    """Σ u_j·q_j mod 2^64 over a body and the lanes before the checksum (section 11.6).

    Args:
        length: of the body, padding included.
        integers: the signed integers of a block of it, before any reduction.
        tail: the lanes before the checksum.
        seed: chks(plan hash).
    """
    stream = _stream(length + len(tail), seed)
    total: int = sum((word | 1) * lane for word, lane in zip(stream[length:].tolist(), tail, strict=True))
    for block in _blocks(length):
        odd = stream[block] | np.uint64(1)
        total += int(odd @ integers(block).view(np.uint64))
    return total % (1 << 64)


def _stream(length: int, seed: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(randombytes_buf_deterministic(8 * length, seed), dtype="<u8")


def check_lanes(
    tail: list[int], survivors: int, body_length: int, clip: float, step: float, largest_weight: float
) -> None:
    """Raise OpeningError unless every lane lies in |U| times the range of one device."""
    largest_loss_lane = FIXED_POINT * LARGEST_LOSS * LARGEST_COUNT
    ranges: dict[Lane, tuple[int, float]] = {
        Lane.WEIGHT: (FIXED_POINT, round(FIXED_POINT * largest_weight)),
        Lane.EXAMPLES: (0, LARGEST_COUNT),
        Lane.TRAINING_LOSS: (0, largest_loss_lane),
        Lane.EVALUATED: (0, LARGEST_COUNT),
        Lane.EVALUATION_LOSS: (0, largest_loss_lane),
        Lane.CORRECT: (0, LARGEST_COUNT),
        Lane.NORM: (0, (clip / step + math.sqrt(body_length)) ** 2),
    }
    for lane, (smallest, largest) in ranges.items():
        if not survivors * smallest <= tail[lane] <= survivors * largest:
            raise OpeningError(OpeningReason.LANE_RANGE, f"the lane {lane.name.lower()} is out of its range")


def metrics_of(tail: list[int], norm: float) -> Metrics:
    """The opened lanes in plain numbers, beside the L2 norm of the opened sum."""
    return Metrics(
        examples=tail[Lane.EXAMPLES],
        training_loss=_mean_loss(tail[Lane.TRAINING_LOSS], tail[Lane.EXAMPLES]),
        evaluated=tail[Lane.EVALUATED],
        evaluation_loss=_mean_loss(tail[Lane.EVALUATION_LOSS], tail[Lane.EVALUATED]),
        correct=tail[Lane.CORRECT],
        norm=norm / (tail[Lane.WEIGHT] / FIXED_POINT),
    )


def _mean_loss(lane: int, rows: int) -> float:
    return lane / FIXED_POINT / rows if rows else 0.0


def _norm(integers: NDArray[np.int64]) -> float:
    return math.sqrt(int(integers @ integers))
