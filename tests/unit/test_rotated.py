"""The rotated codec: against its second writing, for any survivors, and where its modulus is too small."""

import json
import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from codec_reference import REPORT, SEED, any_delta
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rotated_reference import (
    CASES,
    LARGE,
    VECTORS,
    encoded,
    golden_rotated,
    large_hashes,
    name_of,
    opened,
    summed,
    textbook_centred,
    textbook_encode,
    textbook_offsets,
    textbook_rotate,
    textbook_rotate_back,
    textbook_subset,
    textbook_update,
)

from hushfleet.codec import Lane, OpeningError, OpeningReason
from hushfleet.encoding.dither import centred, offset_sum, round_dithered, starts
from hushfleet.encoding.grid import Grid, update_of
from hushfleet.encoding.rotation import Rotation
from hushfleet.encoding.steps import bits_for, first_step
from hushfleet.encoding.subset import coordinates, subset
from hushfleet.errors import ConfigurationError, MalformedError, RefusedError
from hushfleet.rotated import check_step, encode_rotated, open_delta
from hushfleet.secagg.residues import Vector, pack, padded, signed

seeds = st.integers(0, 2**32 - 1)
fleets = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20, unique=True)
keeps = st.sampled_from([0.05, 0.1, 0.5, 1.0])
SETTINGS = settings(max_examples=60, deadline=None)


def floats(data: str) -> NDArray[np.float32]:
    return np.frombuffer(bytes.fromhex(data), "<f4").astype(np.float32)


# ---- the golden vectors, and the second writing


def test_the_golden_vectors_are_what_the_codec_makes() -> None:
    assert json.loads(VECTORS.read_text()) == golden_rotated()


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text())["rounds"], ids=[str(case[0]) for case in CASES])
def test_the_golden_rounds_are_what_the_book_says(case: dict[str, Any]) -> None:
    name, parameters, coords, bits = (
        bytes.fromhex(case["plan_hash"]),
        case["parameters"],
        case["coords"],
        case["bits"],
    )
    first = floats(case["devices"][0]["update"])
    rotated = textbook_rotate(list(first), name)
    assert np.array_equal(rotated, floats(case["rotated"]))
    kept = textbook_subset(parameters, coords, name)
    assert kept == case["subset"]
    left = [np.float32(0) if at in kept else value for at, value in enumerate(rotated)]
    assert np.array_equal(textbook_rotate_back(left, name), floats(case["dropped"]))
    for device in case["devices"]:
        update = floats(device["update"]).tolist()
        vector = textbook_encode(update, name, coords, device["index"], bits, case["clip"], case["step"], 1.0)
        assert vector.hex() == device["vector"]
    total = Vector.from_bytes(bytes.fromhex(case["total"]), bits, coords, 8)
    residues = [int(residue) for residue in total.body[:coords]]
    indices = [device["index"] for device in case["devices"]]
    middle = textbook_centred(residues, indices, name, bits)
    assert middle == case["centred"]
    update = textbook_update(middle, parameters, name, case["step"], case["weight"] / 65_536)
    assert np.array_equal(update, floats(case["update"]))


@pytest.mark.parametrize(("parameters", "keep"), LARGE)
def test_large_models_decode_to_the_same_bits_in_every_thread(parameters: int, keep: float) -> None:
    (golden,) = [case for case in json.loads(VECTORS.read_text())["large"] if case["parameters"] == parameters]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: large_hashes(parameters, keep), range(4)):
            assert golden == {"parameters": parameters, "keep": keep, **found}


# ---- rotation, subset, dither


@SETTINGS
@given(parameters=st.integers(1, 3000), seed=seeds)
def test_a_rotation_keeps_lengths_and_is_undone(parameters: int, seed: int) -> None:
    vector = any_delta(seed, parameters)
    rotation = Rotation.seeded(parameters, name_of(seed))
    rotated = rotation.forward(vector)
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector), rel=1e-5)
    assert np.allclose(rotation.inverse(rotated.copy()), vector, atol=1e-5)


def test_a_rotation_spreads_a_single_coordinate() -> None:
    """The modulus is sized for coordinates that are nearly Gaussian, whatever the update looks like."""
    vector = np.zeros(5000, np.float32)
    vector[17] = 1.0
    rotated = Rotation.seeded(5000, name_of(1)).forward(vector)
    assert np.abs(rotated).max() * math.sqrt(5000) < 6


@SETTINGS
@given(parameters=st.integers(1, 5000), keep=keeps, seed=seeds)
def test_a_subset_is_ascending_and_of_the_size_agreed(parameters: int, keep: float, seed: int) -> None:
    coords = coordinates(parameters, keep)
    assert coords == parameters or (coords % 64 == 0 and 0 <= coords - keep * parameters < 64)
    kept = subset(parameters, coords, name_of(seed))
    assert len(kept) == coords
    assert (np.diff(kept) > 0).all()
    assert kept[0] >= 0
    assert kept[-1] < parameters
    assert kept.tolist() == textbook_subset(parameters, coords, name_of(seed))


def test_every_coordinate_is_sent_equally_often() -> None:
    counts = np.zeros(1000, int)
    for seed in range(1000):
        counts[subset(1000, 128, name_of(seed))] += 1
    assert counts.sum() == 128_000
    assert counts.min() > 80
    assert counts.max() < 190


@SETTINGS
@given(indices=fleets, seed=seeds)
def test_known_offsets_come_off_exactly(indices: list[int], seed: int) -> None:
    words = starts(70, name_of(seed))
    each = [textbook_offsets(70, name_of(seed), index) for index in indices]
    assert offset_sum(indices, words).tolist() == [sum(of) for of in zip(*each, strict=True)]


@SETTINGS
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=64), index=st.integers(0, 2**32 - 1), seed=seeds)
def test_a_value_is_rounded_to_a_neighbour(values: list[float], index: int, seed: int) -> None:
    rounded = round_dithered(np.array(values), starts(len(values), name_of(seed)), index)
    assert all(abs(q - value) <= 1 for q, value in zip(rounded.tolist(), values, strict=True))


def test_rounding_is_right_on_average_for_every_device() -> None:
    words = starts(200_000, name_of(3))
    for index in (0, 1, 77, 2**32 - 1):
        for value in (-0.75, -0.5, 0.0, 0.1, 2.4):
            rounded = round_dithered(np.full(200_000, value), words, index)
            assert abs(rounded.mean() - value) < 6 * 0.5 / math.sqrt(200_000)


def test_similar_updates_round_to_a_sum_that_is_hardly_wrong() -> None:
    """Evenly spread offsets: 64 equal values are wrong together by less than four steps, where chance would make 18."""
    words = starts(5000, name_of(4))
    for indices in (range(64), range(5, 133, 2), range(1000, 1640, 10)):
        total = sum(round_dithered(np.full(5000, 0.3), words, index) for index in indices)
        middle = centred(np.asarray(total), offset_sum(list(indices), words), 16) / 2.0**32
        assert np.abs(middle - 64 * 0.3).max() < 4


# ---- sums


@SETTINGS
@given(
    parameters=st.integers(1, 300),
    keep=keeps,
    indices=fleets,
    scale=st.sampled_from([0.0, 1e-3, 1.0, 1e20]),
    seed=seeds,
)
def test_the_sum_of_any_survivors_opens_to_the_sum_of_their_integers(
    parameters: int, keep: float, indices: list[int], scale: float, seed: int
) -> None:
    coords, step = coordinates(parameters, keep), 0.01
    grid = Grid(parameters, coords, name_of(seed))
    vectors = [
        encoded(any_delta(seed + n, parameters, scale), grid, index, 16, step) for n, index in enumerate(indices)
    ]
    survivors = [n for n in range(len(indices)) if (seed >> n) & 1] or [0]
    total = summed([vectors[n] for n in survivors], coords, 16)
    result = opened(total, [indices[n] for n in survivors], grid, 16, step)
    exact = np.sum([signed(vectors[n].body, 16)[:coords] for n in survivors], axis=0)
    assert np.array_equal(result.residues, exact)
    assert result.weight == 65_536 * len(survivors)
    assert result.bits == 16


@pytest.mark.parametrize("parameters", [1, 2, 63, 64, 65, 500])
@pytest.mark.parametrize("value", [0.0, 0.01, -0.3])
def test_constant_and_empty_updates_come_back(parameters: int, value: float) -> None:
    """The mean is right but for rounding and clipping, here of all coordinates."""
    update = np.full(parameters, value / math.sqrt(parameters), np.float32)
    name, indices, bits = name_of(parameters), list(range(10)), 14
    grid, step = Grid(parameters, parameters, name), 0.001
    total = summed([encoded(update, grid, index, bits, step) for index in indices], parameters, bits)
    result = opened(total, indices, grid, bits, step)
    middle = open_delta(pack(total.body, bits), bits, indices, grid)
    mean = grid.expand(update_of(middle, step, result.weight / 65_536))
    assert np.abs(mean - update).max() <= 10 * step


def test_an_update_longer_than_the_clipping_norm_is_shortened_to_it() -> None:
    update, grid = np.full(100, 7.0, np.float32), Grid(100, 100, name_of(1))
    vector = encoded(update, grid, 3, 16, 0.0001, clip=0.5)
    assert math.sqrt(int(vector.tail[Lane.NORM])) * 0.0001 == pytest.approx(0.5, abs=0.002)


def test_the_mean_of_many_rounds_is_the_mean_update() -> None:
    """Unbiased: with all coordinates sent, what rounds differ by averages out."""
    update, indices = any_delta(1, 40, 0.05), [3, 5, 8]
    bits, means = bits_for(3) + 2, []
    step = first_step(1.0, 3, bits, 40)
    for seed in range(400):
        grid = Grid(40, 40, name_of(seed))
        total = summed([encoded(update, grid, index, bits, step) for index in indices], 40, bits)
        middle = open_delta(pack(total.body, bits), bits, indices, grid)
        means.append(grid.expand(update_of(middle, step, 3.0)))
    spread = np.std(means, axis=0).max()
    assert np.abs(np.mean(means, axis=0) - update).max() < 5 * spread / 20


def test_projection_and_what_it_drops_make_the_whole() -> None:
    vector = any_delta(2, 700)
    grid = Grid(700, coordinates(700, 0.1), name_of(9))
    rotated = grid.rotated(vector)
    assert np.allclose(grid.expand(grid.project(rotated)) + grid.dropped(rotated), vector, atol=1e-5)
    assert not Grid(700, 700, name_of(9)).dropped(vector).any()


def test_an_upload_takes_no_more_memory_than_a_few_vectors() -> None:
    parameters, coords = 100_000, coordinates(100_000, 0.1)
    update = any_delta(3, parameters)

    def upload() -> None:
        rotated = Grid(parameters, coords, name_of(10)).rotated(update)
        encode_rotated(
            rotated,
            1.0,
            REPORT,
            grid=Grid(parameters, coords, name_of(10)),
            index=1,
            bits=6,
            clip=1.0,
            step=0.01,
            checksum_seed=SEED,
        ).to_bytes(6)
        Grid(parameters, coords, name_of(10)).dropped(rotated)

    upload()
    tracemalloc.start()
    try:
        upload()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Rotated, what is left of it, two vectors of signs, and a piece to work in: one copy more is one too many.
    assert peak < 5.5 * update.nbytes


# ---- wraps


@SETTINGS
@given(number=st.integers(0, 6), seed=seeds, bits=st.integers(5, 10))
def test_every_provoked_wrap_is_put_right_or_refused(number: int, seed: int, bits: int) -> None:
    """Up to two coordinates a little beyond the modulus are found; more are refused; no wrong sum ever opens."""
    parameters, indices, step = 256, [1, 2, 3], 0.01
    grid = Grid(parameters, parameters, name_of(seed))
    chance = np.random.default_rng(seed)
    rotated = np.zeros(parameters, np.float32)
    outliers = chance.choice(parameters, number, replace=False)
    beyond = (1 << (bits - 1)) * chance.uniform(1.2, 1.35, number)
    rotated[outliers] = beyond * chance.choice((-1, 1), number) * step / len(indices)
    update = grid.rotation.inverse(rotated)
    clip = 1000 * step * 2**bits
    vectors = [encoded(update, grid, index, bits, step, clip=clip) for index in indices]
    wide = [encoded(update, grid, index, 16, step, clip=clip) for index in indices]
    exact = np.sum([signed(vector.body, 16) for vector in wide], axis=0)
    total = summed(vectors, parameters, bits)
    if number > 2:
        with pytest.raises(OpeningError) as refusal:
            opened(total, indices, grid, bits, step, clip=clip)
        assert refusal.value.reason == OpeningReason.CHECKSUM
        return
    result = opened(total, indices, grid, bits, step, clip=clip)
    assert np.array_equal(result.residues, exact)
    assert result.bits == bits + bool(number)
    middle = open_delta(pack(result.residues.astype(np.uint16), result.bits), result.bits, indices, grid)
    wanted = (exact << 32) - offset_sum(indices, grid.words)
    assert np.array_equal(middle, wanted)


def test_a_mask_that_stays_in_the_sum_never_opens() -> None:
    grid, indices = Grid(256, 256, name_of(2)), [1, 2]
    total = summed([encoded(any_delta(n, 256, 0.01), grid, n, 4, 0.05) for n in indices], 256, 4)
    for seed in range(50):
        spoilt = Vector(total.body.copy(), total.tail.copy())
        spoilt.body[:] += np.random.default_rng(seed).integers(0, 16, 256, np.uint8)
        with pytest.raises(OpeningError):
            opened(spoilt, indices, grid, 4, 0.05)


def test_one_changed_coordinate_never_opens() -> None:
    grid, indices = Grid(128, 128, name_of(2)), [1, 2]
    total = summed([encoded(any_delta(n, 128, 0.01), grid, n, 5, 0.05) for n in indices], 128, 5)
    for at in range(128):
        for change in (1, 2, 15, 16, 31):
            spoilt = Vector(total.body.copy(), total.tail.copy())
            spoilt.body[at] += np.uint8(change)
            with pytest.raises(OpeningError):
                opened(spoilt, indices, grid, 5, 0.05)


def test_a_sum_that_is_too_long_and_padding_that_is_not_empty_are_refused() -> None:
    grid = Grid(70, 70, name_of(5))
    vector = encoded(any_delta(1, 70), grid, 4, 16, 0.001, clip=1.0)
    vector.tail[Lane.NORM] = 0
    vector.tail[Lane.CHECKSUM] = 0
    with pytest.raises(OpeningError):
        opened(summed([vector], 70, 16), [4], grid, 16, 0.001)
    longer = encoded(any_delta(1, 70), grid, 4, 16, 0.001, clip=9.0)
    with pytest.raises(OpeningError) as refusal:
        opened(summed([longer], 70, 16), [4], grid, 16, 0.001)
    assert refusal.value.reason == OpeningReason.LANE_RANGE
    stuffed = encoded(any_delta(1, 70, 0.01), grid, 4, 16, 0.001)
    stuffed.body[100] = 1
    with pytest.raises(OpeningError, match="padding"):
        opened(summed([stuffed], 70, 16), [4], grid, 16, 0.001)
    with pytest.raises(MalformedError, match="padding"):
        open_delta(pack(stuffed.body, 16), 16, [4], grid)


# ---- what is refused


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 3e38])
def test_what_is_no_number_or_would_overflow_is_refused(wrong: float) -> None:
    update = np.full(100, wrong, np.float32)
    with pytest.raises(RefusedError, match="NaN or infinity"):
        encoded(update, Grid(100, 64, name_of(1)), 1, 4, 0.01)


@pytest.mark.parametrize("weight", [0.0, 0.99, 4.01, math.nan])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(RefusedError, match="weight"):
        encode_rotated(
            np.zeros(5, np.float32),
            weight,
            REPORT,
            grid=Grid(5, 5, name_of(1)),
            index=1,
            bits=4,
            clip=1.0,
            step=0.1,
            checksum_seed=SEED,
        )


@pytest.mark.parametrize(
    ("clip", "step"), [(1.0, 0.0), (0.0, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, 2.0**-21), (-1.0, 0.1)]
)
def test_a_step_that_cannot_be_is_refused(clip: float, step: float) -> None:
    with pytest.raises(ConfigurationError, match="step"):
        check_step(clip, step)


def test_the_smallest_step_is_taken() -> None:
    check_step(1.0, 2.0**-20)
    assert padded(1) == 64
