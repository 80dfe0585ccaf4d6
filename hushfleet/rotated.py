"""The rotated codec: from an update to residues mod 2^B and back (docs/protocol.md, sections 5, 6, 11.6, 11.7).

Of its update and residual, rotated, a device takes the coordinates of the round's grid, clips them, rounds them on the
shared dither and lays the tail lanes beside them. The modulus holds the sum most of the time, not always: the checksum
over the integers before reduction tells when a coordinate has wrapped, and where, as long as there are at most two.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hushfleet.codec import (
    FIXED_POINT,
    Lane,
    LocalReport,
    Opened,
    OpeningError,
    OpeningReason,
    check_finite,
    check_lanes,
    check_weight,
    checksum,
    checksum_weights,
    metrics_of,
    report_lanes,
)
from hushfleet.encoding.dither import UNIT, Integers, centred, offset_sum, round_dithered
from hushfleet.encoding.grid import Grid
from hushfleet.encoding.rotation import Floats
from hushfleet.encoding.steps import LARGEST_RATIO
from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.secagg.residues import LARGEST_BITS, Vector, padded, signed, signed_tail, unpack, word_dtype


def check_step(clip: float, step: float) -> None:
    """Raise ConfigurationError unless the clipping norm is a positive number of at most 2^20 steps."""
    if not (math.isfinite(clip) and clip > 0 and math.isfinite(step) and step > 0 and clip <= LARGEST_RATIO * step):
        raise ConfigurationError(f"clip = {clip}, step = {step}: positive numbers, clip at most 2^20 steps")


def encode_rotated(
    rotated: Floats,
    weight: float,
    report: LocalReport,
    *,
    grid: Grid,
    index: int,
    bits: int,
    clip: float,
    step: float,
    checksum_seed: bytes,
) -> Vector:
    """One device's vector before masking, with the tail of a training round (sections 11.6, 11.7).

    Args:
        rotated: weight · delta + residual in the round's basis, as `Grid.rotated` gives it; it is left as it is.
        weight: 1 to 4; the policy may allow less.
        report: the device's own numbers.
        grid: the round's.
        index: the device's roster index.
        bits: B, 2 to 16.
        clip: largest L2 norm of the coordinates sent.
        step: the plan's; `check_step` holds.
        checksum_seed: 32 bytes, chks(plan hash).

    Raises:
        RefusedError: a weight out of range, or an update or a loss that is not a number: nothing may be uploaded.
    """
    check_weight(weight)
    check_finite(rotated)
    values = grid.project(rotated).astype(np.float64)
    norm = math.sqrt(float(values @ values))
    if norm > clip:
        values *= clip / norm
    values /= step
    integers = np.zeros(padded(grid.coords), np.int64)
    integers[: grid.coords] = round_dithered(values, grid.words, index)
    tail = [round(FIXED_POINT * weight), *report_lanes(report), int(integers @ integers)]
    tail.append(checksum(len(integers), lambda block: integers[block], tail, checksum_seed))
    return Vector(integers.astype(word_dtype(bits)), np.array(tail, np.uint64))


def open_rotated(
    total: Vector,
    survivors: Sequence[int],
    *,
    grid: Grid,
    bits: int,
    clip: float,
    step: float,
    largest_weight: float,
    checksum_seed: bytes,
) -> Opened:
    """Read the sum of the survivors' vectors from which every mask is gone, if it keeps every promise (section 5).

    Args:
        total: body of padded(m) words, eight lanes.
        survivors: roster indices, 1 to 16,383 of them.
        grid, bits, clip, step, checksum_seed: as they were encoded with.
        largest_weight: the policy's, 1 to 4.

    Returns:
        The sum; its `bits` are one more than B where wrapped coordinates were put right.

    Raises:
        OpeningError: with the first promise broken, in this order: lane ranges, padding, checksum, norm.
    """
    body = signed(total.body, bits)
    tail = [int(lane) for lane in signed_tail(total.tail)]
    check_lanes(tail, len(survivors), len(body), clip, step, largest_weight)
    if body[grid.coords :].any():
        raise OpeningError(OpeningReason.CHECKSUM, "the padding did not open to 0: the masks do not cancel")
    offsets = offset_sum(survivors, grid.words)
    middle = centred(body[: grid.coords], offsets, bits)
    body[: grid.coords] = (middle + offsets) >> 32
    found = checksum(len(body), lambda block: body[block], tail[: Lane.CHECKSUM], checksum_seed)
    missing = (tail[Lane.CHECKSUM] - found) % (1 << 64)
    if missing:
        if bits == LARGEST_BITS or not _unwrap(middle, bits, missing, checksum_weights(len(body), checksum_seed)):
            raise OpeningError(OpeningReason.CHECKSUM, "the checksum fails: masks do not cancel or coordinates wrapped")
        bits += 1
    if not rotated_norm_holds(middle, len(survivors), clip=clip, step=step):
        raise OpeningError(OpeningReason.NORM, f"the sum is longer than {len(survivors)} clipped updates can make it")
    residues = (middle + offsets) >> 32
    return Opened(residues, bits, tail[Lane.WEIGHT], metrics_of(tail, centred_norm(middle) * step))


def _unwrap(middle: Integers, bits: int, missing: int, weights: NDArray[np.uint64]) -> bool:
    """Put right, in place, the one or two coordinates whose wrapping explains what the checksum lacks.

    A coordinate that wrapped once lies far out on the other side: only those beyond half the range are looked at, and
    an explanation by chance has a probability of about (their number)² / 2^(65−B).
    """
    candidates = np.flatnonzero(np.abs(middle) >= 1 << (bits + 30))
    outward = np.where(middle[candidates] < 0, 1, -1).astype(np.int64) << bits
    changes = weights[candidates] * outward.view(np.uint64)
    lacking = np.uint64(missing) - np.append(changes, np.uint64(0))
    order = np.argsort(changes, kind="stable")
    at = np.searchsorted(changes[order], lacking)
    for first, place in enumerate(at.tolist()):
        if place == len(order) or changes[order[place]] != lacking[first]:
            continue
        wrapped = {first, int(order[place])} - {len(candidates)}
        if len(wrapped) == 1 and first != len(candidates):
            # Twice the same coordinate: no wrap is that long.
            continue
        for position in wrapped:
            middle[candidates[position]] += int(outward[position]) << 32
        return True
    return False


def open_delta(body: bytes, bits: int, survivors: Sequence[int], grid: Grid) -> Integers:
    """The centred sum of a delta message, in units of 2^-32 steps: int64, shape (m,).

    Raises:
        MalformedError: the body has another length, or its padding is not 0.
    """
    residues = signed(unpack(body, bits, padded(grid.coords)), bits)
    if residues[grid.coords :].any():
        raise MalformedError("the padding of a delta's body is not 0")
    return centred(residues[: grid.coords], offset_sum(survivors, grid.words), bits)


def rotated_norm_holds(middle: Integers, survivors: int, *, clip: float, step: float) -> bool:
    """Whether a centred sum can be that of `survivors` clipped updates (section 11.6, norm check)."""
    return centred_norm(middle) <= survivors * clip / step + math.sqrt(survivors * padded(len(middle)))


def centred_norm(middle: Integers) -> float:
    """L2 norm of a centred sum, in steps."""
    values = middle.astype(np.float64)
    return math.sqrt(float(values @ values)) * UNIT
