"""The numbers of statistics rounds: from readings to residues, exact sums of them, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
from codec_reference import always, seeded
from described_statistics import schema_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hushfleet.codec import PLAIN_BITS, OpeningError, OpeningReason, checksum_weights
from hushfleet.errors import RefusedError
from hushfleet.judgement import judge
from hushfleet.secagg.residues import Vector, add_into, signed, subtract_from
from hushfleet.statistics import (
    BINS,
    Digits,
    Numbers,
    coordinates,
    describe,
    encode_statistics,
    length,
    open_statistics,
)

SEED = bytes(range(32))
SCHEMA = schema_of(2, 3)


def described(seed: int, readings: int = 20, windows: int = 40) -> NDArray[np.float64]:
    words = np.frombuffer(seeded(seed)(16 * readings), "<u8") / 2.0**64
    labels = (words[: min(readings, 9)] * 3).astype(np.int64)
    missing = [0.0, words.mean() if readings else 1]
    judged = judge(SCHEMA, [(words[: 3 * len(labels)].reshape(-1, 3), labels)] if 3 * len(labels) <= len(words) else [])
    return describe(SCHEMA, windows, labels, [words[:readings], words[readings:]], missing, judged)


def encoded(numbers: NDArray[np.float64], digits: Digits, draw: Any) -> Vector:
    return encode_statistics(numbers, digits=digits, checksum_seed=SEED, draw=draw)


def opened(total: Vector, devices: int, digits: Digits) -> NDArray[np.int64]:
    return open_statistics(total, devices, SCHEMA, digits=digits, checksum_seed=SEED)


def shifted(vector: Vector, place: int, by: int) -> Vector:
    """One residue by so much more, with a checksum that fits."""
    weights = checksum_weights(len(vector.body) + 1, SEED)
    vector.body[place] = np.uint16((int(vector.body[place]) + by) % 2**16)
    vector.tail[1] = np.uint64((int(vector.tail[1]) + by * int(weights[place])) % 2**64)
    return vector


@pytest.mark.parametrize("largest", [1, 2, 31, 100, 128, 129, 1_000, 10_000, 16_383])
def test_no_sum_of_digits_wraps_and_every_fleet_has_16_million_steps(largest: int) -> None:
    digits = Digits.of(largest)
    assert largest * (digits.base - 1) <= 32_767
    assert 2**24 - 1 <= digits.top < 2**36
    assert digits.base ** (digits.count - 1) < 2**24
    everyone = np.ones(length(SCHEMA))
    assert (
        signed(encoded(everyone, digits, always(255)).body, PLAIN_BITS)[: coordinates(SCHEMA, digits)]
        == (digits.base - 1)
    ).all()


@settings(max_examples=40)
@given(devices=st.integers(1, 6), spare=st.integers(0, 16_377), seed=st.integers(0, 2**32))
def test_masked_numbers_open_to_their_exact_sum(devices: int, spare: int, seed: int) -> None:
    digits = Digits.of(devices + spare)
    numbers = [described(seed + one, readings=(seed + one) % 4 * 10) for one in range(devices)]
    vectors = [encoded(one, digits, seeded(seed + at)) for at, one in enumerate(numbers)]
    places = [signed(one.body, PLAIN_BITS)[: coordinates(SCHEMA, digits)] for one in vectors]
    powers = [digits.base**place for place in range(digits.count)]
    exact = [int(one) for one in sum(at.reshape(-1, digits.count) @ powers for at in places)]
    zeros = Vector.zeros(coordinates(SCHEMA, digits), PLAIN_BITS, 2)
    total, mask_sum = zeros, Vector(zeros.body.copy(), zeros.tail.copy())
    size = len(total.to_bytes(PLAIN_BITS))
    for at, vector in enumerate(vectors):
        mask = Vector.from_bytes(seeded(seed + 100 + at)(size), PLAIN_BITS, coordinates(SCHEMA, digits), 2)
        add_into(mask_sum, mask)
        add_into(vector, mask)
        add_into(total, Vector.from_bytes(vector.to_bytes(PLAIN_BITS), PLAIN_BITS, coordinates(SCHEMA, digits), 2))
    subtract_from(total, mask_sum)
    sums = opened(total, devices, digits)
    assert sums.tolist() == exact
    assert np.abs(sums / digits.top - sum(numbers)).max() <= devices / digits.top


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.999])
def test_rounding_is_right_on_average(fraction: float) -> None:
    digits, count = Digits.of(100), 40_000
    numbers = np.full(count, (1000 + fraction) / digits.top)
    exact = numbers[0] * digits.top
    body = signed(encoded(numbers, digits, seeded(3)).body, PLAIN_BITS)[: digits.count * count]
    whole = body.reshape(-1, digits.count) @ digits.base ** np.arange(digits.count)
    assert set(whole.tolist()) <= {math.floor(exact), math.floor(exact) + 1}
    assert abs(whole.mean() - exact) < 6 * 0.5 / math.sqrt(count)


def test_what_a_device_says_of_itself() -> None:
    values = [np.array([0.0, 0.5, 1.0, 1.0]), np.zeros(0)]
    numbers = Numbers.split(SCHEMA, describe(SCHEMA, 99, np.array([2, 2, 0, 2]), values, [0.25, 1.0]))
    assert numbers.rows.tolist() == [0, 1, 0, 0, 0]
    assert (numbers.labelled.tolist(), numbers.shares.tolist()) == ([1], [0.25, 0, 0.75])
    assert numbers.squares.tolist() == [0.0625, 0, 0.5625]
    first, second = numbers.channels
    assert first[:5].tolist() == [1, 0.25, 0.625, 0.5625, 0.625**2]
    assert first[5:].tolist() == [0.25, *[0] * 7, 0.25, *[0] * 6, 0.5]
    assert second.tolist() == [0, 1, 0, 0, 0, *[0] * BINS]
    assert numbers.flat().tolist() == describe(SCHEMA, 99, np.array([2, 2, 0, 2]), values, [0.25, 1.0]).tolist()


def test_values_beyond_the_range_stand_at_its_ends() -> None:
    numbers = describe(schema_of(1, 0), 5, np.zeros(0, np.int64), [np.array([-0.1, 1.0000001])], [0.0])
    assert numbers[5:10].tolist() == [1, 0, 0.5, 0.5, 0.25]
    assert numbers[10:26].tolist() == [0.5, *[0] * 14, 0.5]


@pytest.mark.parametrize(
    ("windows", "kind"), [(0, 0), (9, 0), (10, 1), (99, 1), (100, 2), (999, 2), (1000, 3), (9999, 3), (10_000, 4)]
)
def test_the_number_of_windows_falls_into_one_class(windows: int, kind: int) -> None:
    rows = Numbers.split(SCHEMA, described(1, windows=windows)).rows
    assert rows.tolist() == [float(kind == one) for one in range(5)]


@pytest.mark.parametrize("wrong", [-1e-9, 1.0 + 1e-9, math.nan, math.inf])
def test_numbers_that_are_not_from_0_to_1_are_not_sent(wrong: float) -> None:
    numbers = described(1)
    numbers[-1] = wrong
    with pytest.raises(RefusedError, match="not from 0 to 1"):
        encoded(numbers, Digits.of(31), always(0))


@pytest.mark.parametrize(
    ("what", "place", "by", "reason"),
    [
        ("out of the range", 0, 5_000, OpeningReason.LANE_RANGE),
        # The mean of the first channel, which is no share of anything.
        ("out of the range", 42, -3_000, OpeningReason.LANE_RANGE),
        ("out of the range", 44, 5_000, OpeningReason.LANE_RANGE),
        ("shares do not add up", 1, 3, OpeningReason.LANE_RANGE),
        # What the model takes rows for, and the odds of the second class: behind 54 numbers of readings.
        ("shares do not add up", 3 * (54 + 1) + 1, 3, OpeningReason.LANE_RANGE),
        ("shares do not add up", 3 * (54 + 1 + 6 + 32) + 1, 3, OpeningReason.LANE_RANGE),
        ("padding", 511, 1, OpeningReason.CHECKSUM),
    ],
)
def test_sums_that_break_a_promise_are_not_opened(what: str, place: int, by: int, reason: OpeningReason) -> None:
    digits = Digits.of(31)
    total = encoded(described(1), digits, always(0))
    add_into(total, encoded(described(2), digits, always(0)))
    assert len(opened(total, 2, digits)) == length(SCHEMA)
    with pytest.raises(OpeningError, match=what) as refusal:
        opened(shifted(total, place, by), 2, digits)
    assert refusal.value.reason == reason


def test_masks_that_do_not_cancel_and_weights_other_than_one_are_not_opened() -> None:
    digits = Digits.of(31)
    for lane, reason in ((0, OpeningReason.LANE_RANGE), (1, OpeningReason.CHECKSUM)):
        total = encoded(described(1), digits, always(0))
        total.tail[lane] += np.uint64(1)
        with pytest.raises(OpeningError) as refusal:
            opened(total, 1, digits)
        assert refusal.value.reason == reason
    total = encoded(described(1), digits, always(0))
    total.body[3] += 1
    with pytest.raises(OpeningError, match="checksum"):
        opened(total, 1, digits)
    with pytest.raises(OpeningError, match="weight"):
        opened(encoded(described(1), digits, always(0)), 2, digits)
