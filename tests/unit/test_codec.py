"""The plain codec: against its second writing, and against liars."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from codec_reference import (
    REPORT,
    VECTORS,
    always,
    any_delta,
    encode,
    golden_examples,
    opened,
    seeded,
    textbook_checksum,
    textbook_encode,
    with_checksum,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import randombytes_buf_deterministic
from numpy.typing import NDArray

from hushfleet import codec
from hushfleet.codec import Lane, LocalReport, OpeningError, OpeningReason
from hushfleet.errors import ConfigurationError, MalformedError, RefusedError
from hushfleet.secagg.residues import Vector, add_into, padded, signed, subtract_from
from hushfleet.wire import round as wire_round

seeds = st.integers(0, 2**32 - 1)


# ---- step and lanes


@pytest.mark.parametrize("largest", [1, 2, 100, 10_000, 16_383])
def test_the_step_leaves_room_for_every_device(largest: int) -> None:
    assert codec.plain_step(0.7, largest) == 0.7 * largest / (32767 - largest)


@pytest.mark.parametrize(
    ("clip", "largest"),
    [(1.0, 0), (1.0, -1), (1.0, 16_384), (0.0, 8), (-1.0, 8), (math.nan, 8), (math.inf, 8), (5e-324, 1)],
)
def test_a_step_that_cannot_be_is_refused(clip: float, largest: int) -> None:
    with pytest.raises(ConfigurationError, match=r"largest_survivor_set|clip"):
        codec.plain_step(clip, largest)


def test_tails_have_their_lanes() -> None:
    assert (codec.lanes(0), codec.lanes(1)) == (8, 2)
    with pytest.raises(MalformedError, match="tail 2"):
        codec.lanes(2)


def test_reasons_are_those_of_a_result() -> None:
    for reason in OpeningReason:
        assert reason == getattr(wire_round, reason.name)


# ---- encoding


@settings(max_examples=60)
@given(
    coords=st.integers(1, 200),
    seed=seeds,
    scale=st.sampled_from([0.0, 1e-30, 1e-3, 0.1, 1.0, 1e30]),
    weight=st.floats(1.0, 4.0),
    largest=st.sampled_from([1, 2, 7, 100, 16_383]),
)
def test_a_device_encodes_as_the_book_says(coords: int, seed: int, scale: float, weight: float, largest: int) -> None:
    delta = any_delta(seed, coords, scale)
    step = codec.plain_step(0.5, largest)
    vector = encode(delta, largest, seeded(seed + 1), weight=weight, clip=0.5, step=step)
    randomness = seeded(seed + 1)(8 * coords)
    expected = textbook_encode(delta.tolist(), weight, REPORT, 0.5, step, largest, randomness)
    assert vector.to_bytes(codec.PLAIN_BITS) == expected


@pytest.mark.parametrize("coords", [codec.BLOCK, 2 * codec.BLOCK + 70])
def test_a_vector_of_many_blocks_is_what_the_book_says(coords: int) -> None:
    delta, step, rest = any_delta(1, coords), codec.plain_step(0.5, 100), seeded(2)(8 * coords)

    def draw(size: int) -> bytes:
        nonlocal rest
        taken, rest = rest[:size], rest[size:]
        return taken

    vector = encode(delta, 100, draw, weight=1.5, clip=0.5, step=step)
    expected = textbook_encode(delta.tolist(), 1.5, REPORT, 0.5, step, 100, seeded(2)(8 * coords))
    assert vector.to_bytes(codec.PLAIN_BITS) == expected
    assert not rest


def test_expanded_randomness_takes_32_fresh_bytes_for_each_request() -> None:
    taken: list[bytes] = []

    def draw(size: int) -> bytes:
        taken.append(bytes([len(taken)]) * size)
        return taken[-1]

    source = codec.expanded(draw)
    assert source(100) == randombytes_buf_deterministic(100, taken[0])
    assert source(8) == randombytes_buf_deterministic(8, taken[1])
    assert taken == [bytes(32), bytes([1]) * 32]


@pytest.mark.parametrize("fraction", [-0.75, -0.5, -0.01, 0.0, 0.1, 0.5, 0.999])
def test_rounding_is_right_on_average_and_wrong_by_less_than_one(fraction: float) -> None:
    coords, step = 40_000, codec.plain_step(1.0, 100)
    delta = np.full(coords, fraction * step / 10, np.float32)
    exact = np.float64(delta[0]) / (step / 10)
    q = signed(encode(delta, 100, seeded(3), step=step / 10).body, codec.PLAIN_BITS)[:coords]
    assert set(q.tolist()) <= {math.floor(exact), math.floor(exact) + 1}
    assert abs(q.mean() - exact) < 6 * 0.5 / math.sqrt(coords)


def test_rounding_down_leaves_the_grid_where_it_is() -> None:
    step = 2.0**-12
    delta = (np.arange(-30, 30) * step).astype(np.float32)
    assert signed(encode(delta, 100, always(0), step=step).body, codec.PLAIN_BITS)[:60].tolist() == [*range(-30, 30)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 64, 69])
def test_a_diverged_update_is_refused(bad: float, place: int) -> None:
    delta = any_delta(1, 70)
    delta[place] = bad
    with pytest.raises(RefusedError, match="diverged"):
        encode(delta, 10, seeded(1))


@pytest.mark.parametrize(
    "report", [replace(REPORT, training_loss_sum=math.nan), replace(REPORT, evaluation_loss_sum=math.nan)]
)
def test_a_loss_that_is_no_number_is_refused(report: LocalReport) -> None:
    with pytest.raises(RefusedError, match="diverged"):
        encode(any_delta(1, 70), 10, seeded(1), report=report)


@pytest.mark.parametrize("weight", [0.0, 0.999, 4.001, -1.0, math.nan, math.inf])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(RefusedError, match="weight"):
        encode(any_delta(1, 70), 10, seeded(1), weight=weight)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (LocalReport(0, 0.0, 0, 0.0, 0), [0, 0, 0, 0, 0]),
        (LocalReport(3, math.inf, 2, 1e300, 2), [3, 3 * 2**22, 2, 2 * 2**22, 2]),
        (LocalReport(3, -1.0, 2, -math.inf, 0), [3, 0, 2, 0, 0]),
        (LocalReport(2**21, 2.0**21, 2**22, 2.0**20, 2**21), [2**20, 2**36, 2**20, 2**34, 2**19]),
    ],
)
def test_a_report_is_brought_into_the_lanes_ranges(report: LocalReport, expected: list[int]) -> None:
    vector = encode(any_delta(1, 5), 10, seeded(1), report=report)
    assert vector.tail[Lane.EXAMPLES : Lane.NORM].tolist() == expected
    opened(vector, 1, 5, 10)


# ---- sums


@settings(max_examples=40)
@given(coords=st.integers(1, 150), devices=st.integers(1, 7), seed=seeds, spare=st.integers(0, 100))
def test_masked_vectors_open_to_the_exact_sum(coords: int, devices: int, seed: int, spare: int) -> None:
    largest = devices + spare
    weights = [1.0 + (seed + i) % 4 for i in range(devices)]
    vectors = [
        encode(any_delta(seed + i, coords), largest, seeded(seed + 100 + i), weight=weights[i]) for i in range(devices)
    ]
    exact = sum(signed(vector.body, codec.PLAIN_BITS) for vector in vectors)
    assert isinstance(exact, np.ndarray)

    total, mask_sum = Vector.zeros(coords, codec.PLAIN_BITS, 8), Vector.zeros(coords, codec.PLAIN_BITS, 8)
    length = len(total.to_bytes(codec.PLAIN_BITS))
    for i, vector in enumerate(vectors):
        mask = Vector.from_bytes(seeded(seed + 200 + i)(length), codec.PLAIN_BITS, coords, 8)
        add_into(mask_sum, mask)
        add_into(vector, mask)
        add_into(total, Vector.from_bytes(vector.to_bytes(codec.PLAIN_BITS), codec.PLAIN_BITS, coords, 8))
    subtract_from(total, mask_sum)

    result = opened(total, devices, coords, largest, largest_weight=4.0)
    assert result.residues.tolist() == exact[:coords].tolist()
    assert result.weight == sum(weights) * 65_536
    step = codec.plain_step(1.0, largest)
    metrics = result.metrics
    assert metrics.examples == devices * REPORT.examples
    assert metrics.training_loss == pytest.approx(REPORT.training_loss_sum / REPORT.examples)
    assert metrics.evaluated == devices * REPORT.evaluated
    assert metrics.evaluation_loss == pytest.approx(REPORT.evaluation_loss_sum / REPORT.evaluated)
    assert metrics.correct == devices * REPORT.correct
    assert metrics.norm == pytest.approx(float(np.linalg.norm(exact * step / sum(weights))))


@pytest.mark.parametrize("largest", [1, 2, 3, 100, 10_000, 16_383])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_sum_of_all_devices_at_their_bound_wraps(largest: int, sign: int) -> None:
    delta = np.array([1e6 * sign], np.float32)
    # A device that ignores the step still cannot go beyond its bound.
    vector = encode(delta, largest, always(255 if sign > 0 else 0), step=codec.plain_step(1.0, largest) / 2)
    bound = 32767 // largest
    assert signed(vector.body, codec.PLAIN_BITS)[0] == sign * bound
    total = vector.body * np.uint16(largest)
    assert signed(total, codec.PLAIN_BITS)[0] == sign * bound * largest


@pytest.mark.parametrize("coords", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("value", [0.0, 1e-3, -1.0])
def test_constant_updates_of_any_length_come_back(coords: int, value: float) -> None:
    delta = np.full(coords, value, np.float32)
    total = encode(delta, 4, seeded(5))
    add_into(total, encode(delta, 4, seeded(6)))
    result = opened(total, 2, coords, 4)
    step = codec.plain_step(1.0, 4)
    body = codec.pack_opened(result.residues, 16)
    after = codec.apply_delta(np.zeros(coords, np.float32), body, bits=16, step=step, weight=result.weight, rate=1.0)
    expected = value * min(1.0, 1 / (abs(value) * math.sqrt(coords))) if value else 0.0
    np.testing.assert_allclose(after, expected, atol=step)


# ---- what must not open

COORDS, LARGEST, SURVIVORS = 70, 10, 3


def reason_of(total: Vector, survivors: int, coords: int, largest: int, **changed: Any) -> OpeningReason:
    with pytest.raises(OpeningError) as refused:
        opened(total, survivors, coords, largest, **changed)
    return refused.value.reason


def honest_sum() -> Vector:
    total = Vector.zeros(COORDS, codec.PLAIN_BITS, 8)
    for i in range(SURVIVORS):
        add_into(total, encode(any_delta(i, COORDS), LARGEST, seeded(i)))
    return total


def honest_tail() -> list[int]:
    return [int(lane) for lane in honest_sum().tail[: Lane.CHECKSUM]]


def refusal(total: Vector) -> OpeningReason:
    return reason_of(total, SURVIVORS, COORDS, LARGEST)


@settings(max_examples=100)
@given(place=st.integers(0, 127), change=st.integers(1, 65_535))
def test_one_changed_coordinate_never_opens(place: int, change: int) -> None:
    total = honest_sum()
    total.body[place : place + 1] += np.uint16(change)
    assert refusal(total) == OpeningReason.CHECKSUM


@pytest.mark.parametrize("lane", [lane for lane in Lane if lane is not Lane.WEIGHT])
def test_one_changed_lane_inside_its_range_never_opens(lane: Lane) -> None:
    total = honest_sum()
    total.tail[lane] -= np.uint64(1)
    assert refusal(total) == OpeningReason.CHECKSUM


def test_another_rounds_checksum_never_opens() -> None:
    assert reason_of(honest_sum(), SURVIVORS, COORDS, LARGEST, checksum_seed=bytes(32)) == OpeningReason.CHECKSUM


@pytest.mark.parametrize("places", [[0], [69], [0, 1], [*range(COORDS)]])
def test_a_sum_that_wraps_never_opens(places: list[int]) -> None:
    integers = [0] * COORDS
    for place in places:
        integers[place] = 20_000
    one = with_checksum(integers, [65_536, 0, 0, 0, 0, 0, 0])
    total = Vector.zeros(COORDS, codec.PLAIN_BITS, 8)
    add_into(total, one)
    add_into(total, one)
    assert reason_of(total, 2, COORDS, 1) == OpeningReason.CHECKSUM


def test_a_body_mask_that_stays_never_opens() -> None:
    total = honest_sum()
    mask = np.frombuffer(seeded(9)(2 * COORDS), np.uint16)
    np.add(total.body[:COORDS], mask, out=total.body[:COORDS])
    assert refusal(total) == OpeningReason.CHECKSUM


def test_a_mask_that_stays_or_an_upload_that_is_missing_never_opens() -> None:
    total = honest_sum()
    add_into(total, Vector.from_bytes(seeded(9)(128 * 2 + 64), codec.PLAIN_BITS, COORDS, 8))
    assert refusal(total) == OpeningReason.LANE_RANGE
    total = honest_sum()
    subtract_from(total, encode(any_delta(0, COORDS), LARGEST, seeded(0)))
    assert refusal(total) == OpeningReason.LANE_RANGE


def test_padding_that_is_not_zero_never_opens() -> None:
    integers = [0] * COORDS + [0, 0, 1]
    with pytest.raises(OpeningError, match="padding") as refused:
        opened(with_checksum(integers, honest_tail()), SURVIVORS, COORDS, LARGEST)
    assert refused.value.reason == OpeningReason.CHECKSUM


NORM_LANE = SURVIVORS * (1.0 / codec.plain_step(1.0, LARGEST) + math.sqrt(128)) ** 2
RANGES = {
    Lane.WEIGHT: (SURVIVORS * 65_536, SURVIVORS * 163_840),
    Lane.EXAMPLES: (0, SURVIVORS << 20),
    Lane.TRAINING_LOSS: (0, SURVIVORS << 42),
    Lane.EVALUATED: (0, SURVIVORS << 20),
    Lane.EVALUATION_LOSS: (0, SURVIVORS << 42),
    Lane.CORRECT: (0, SURVIVORS << 20),
    Lane.NORM: (0, math.floor(NORM_LANE)),
}


@pytest.mark.parametrize("lane", RANGES)
@pytest.mark.parametrize("side", [0, 1])
def test_every_lane_opens_up_to_its_range_and_not_beyond(lane: Lane, side: int) -> None:
    tail = honest_tail()
    tail[lane] = RANGES[lane][side]
    opened(with_checksum([0] * COORDS, tail), SURVIVORS, COORDS, LARGEST, largest_weight=2.5)
    tail[lane] = (tail[lane] + (1 if side else -1)) % 2**64
    signed_tail = [value - 2**64 if value >= 2**63 else value for value in tail]
    total = with_checksum([0] * COORDS, tail)
    total.tail[Lane.CHECKSUM] = textbook_checksum([0] * 128 + signed_tail)
    assert reason_of(total, SURVIVORS, COORDS, LARGEST, largest_weight=2.5) == OpeningReason.LANE_RANGE


def test_a_sum_that_is_too_long_never_opens() -> None:
    step = codec.plain_step(1.0, LARGEST)
    bound = SURVIVORS / step + math.sqrt(SURVIVORS * 128)
    within = with_checksum([0, -math.floor(bound)], [SURVIVORS * 65_536, 0, 0, 0, 0, 0, 0])
    opened(within, SURVIVORS, COORDS, LARGEST)
    beyond = with_checksum([0, -math.floor(bound) - 1], [SURVIVORS * 65_536, 0, 0, 0, 0, 0, 0])
    assert refusal(beyond) == OpeningReason.NORM


def test_the_first_broken_promise_is_named() -> None:
    too_long, padding = [32_767] * COORDS, [0, 1]
    out_of_range = [0] * 7
    assert refusal(with_checksum(too_long + padding, out_of_range)) == OpeningReason.LANE_RANGE
    assert refusal(with_checksum(too_long + padding, honest_tail())) == OpeningReason.CHECKSUM
    assert refusal(with_checksum(too_long, honest_tail())) == OpeningReason.NORM


# ---- the next version


def some_delta(seed: int, coords: int, bits: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    integers = np.frombuffer(seeded(seed)(8 * coords), np.int64) >> np.int64(64 - bits)
    return any_delta(seed + 1, coords), integers


@settings(max_examples=30)
@given(blocks=st.integers(1, 4), last=st.integers(1, 64), seed=seeds, rate=st.sampled_from([1.0, 0.3]))
def test_every_device_computes_the_same_bits_in_pieces_or_whole(blocks: int, last: int, seed: int, rate: float) -> None:
    coords = 64 * (blocks - 1) + last
    flat, integers = some_delta(seed, coords, 16)
    step, weight = 1e-4 / 3, 7 * 65_536 + seed % 65_536
    fields: dict[str, Any] = {"bits": 16, "step": step, "weight": weight, "rate": rate}
    before = flat.copy()
    whole = codec.apply_delta(flat, codec.pack_opened(integers, 16), **fields)
    pieces = [
        codec.apply_delta(flat[start : start + 64], codec.pack_opened(integers[start : start + 64], 16), **fields)
        for start in range(0, coords, 64)
    ]
    one_by_one = [
        np.float32(x + np.float32(float(q) * step / (weight / 65_536) * rate))
        for x, q in zip(flat, integers.tolist(), strict=True)
    ]
    assert whole.dtype == np.float32
    assert whole.tobytes() == np.concatenate(pieces).tobytes() == np.array(one_by_one, np.float32).tobytes()
    assert flat.tobytes() == before.tobytes()


def test_nobody_regroups_the_operations() -> None:
    # Among float64's smallest numbers another order is off by a third or more, not by a last bit that float32 swallows.
    body = codec.pack_opened(np.array([1, 2, 3, 4]), 16)
    after = codec.apply_delta(np.zeros(4, np.float32), body, bits=16, step=5e-324, weight=3 * 65_536, rate=1e300)
    np.testing.assert_allclose(after, np.array([0, 1, 1, 1]) * 5e-324 * 1e300, rtol=1e-6)


@settings(max_examples=30)
@given(coords=st.integers(1, 200), bits=st.integers(2, 16), seed=seeds)
def test_an_opened_sum_travels_in_its_packed_form(coords: int, bits: int, seed: int) -> None:
    _, integers = some_delta(seed, coords, bits)
    body = codec.pack_opened(integers, bits)
    assert len(body) == padded(coords) * bits // 8
    assert codec.unpack_opened(body, bits, coords).tolist() == integers.tolist()


def test_a_delta_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    flat, integers = some_delta(1, 70, 16)
    body = codec.pack_opened(integers, 16)
    fields: dict[str, Any] = {"bits": 16, "step": 1e-4, "weight": 65_536, "rate": 1.0}
    for wrong in (body[:-1], body + b"\0", b""):
        with pytest.raises(MalformedError, match="bytes"):
            codec.apply_delta(flat, wrong, **fields)
    with pytest.raises(MalformedError, match="weight is 0"):
        codec.apply_delta(flat, body, **(fields | {"weight": 0}))
    padding = bytearray(body)
    padding[70] = 1
    with pytest.raises(MalformedError, match="padding"):
        codec.apply_delta(flat, bytes(padding), **fields)
    for huge in ({"step": 1e300}, {"step": 1e300, "rate": 1e300}):
        with pytest.raises(RefusedError, match="NaN or infinity"):
            codec.apply_delta(flat, body, **(fields | huge))


# ---- golden vectors


def test_the_golden_vectors_are_what_the_code_does() -> None:
    assert json.loads(VECTORS.read_text()) == golden_examples()


def test_the_golden_encodings_are_what_the_book_says() -> None:
    for example in json.loads(VECTORS.read_text())["encoding"]:
        delta = np.frombuffer(bytes.fromhex(example["delta"]), "<f4").tolist()
        expected = textbook_encode(
            delta,
            example["weight"],
            REPORT,
            example["clip"],
            example["clip"] * example["largest_survivor_set"] / (32767 - example["largest_survivor_set"]),
            example["largest_survivor_set"],
            bytes.fromhex(example["randomness"]),
        )
        assert expected.hex() == example["vector"]
