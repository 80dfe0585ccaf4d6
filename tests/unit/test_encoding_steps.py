"""Bits and steps: the formulas, the guards, and a controller that does not run away; profiles and key frames."""

import math

import numpy as np
import pytest
from codec_reference import any_delta
from hypothesis import given, settings
from hypothesis import strategies as st
from rotated_reference import encoded, name_of, opened, summed, textbook_rotate, textbook_rotate_back

from hushfleet.codec import OpeningError
from hushfleet.encoding import steps
from hushfleet.encoding.grid import Grid
from hushfleet.encoding.keyframe import eight_bit, open_eight_bit
from hushfleet.encoding.profiles import PROFILES, EncodingProfile, check_server
from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.hashing import digest


@pytest.mark.parametrize(
    ("expected", "bits"), [(1, 2), (2, 3), (4, 3), (5, 4), (10, 4), (16, 4), (17, 5), (64, 5), (65, 6), (16_383, 9)]
)
def test_bits_are_half_the_logarithm_of_the_survivors(expected: int, bits: int) -> None:
    assert steps.bits_for(expected) == bits == 2 + math.ceil(math.log2(expected) / 2)


@pytest.mark.parametrize(("expected", "spare"), [(10, -2), (100, -2), (1, -1), (0, 0), (100, 11)])
def test_bits_with_which_the_step_would_run_away_are_refused(expected: int, spare: int) -> None:
    with pytest.raises(ConfigurationError):
        steps.bits_for(expected, spare)


@settings(max_examples=200)
@given(step=st.floats(1e-9, 1e9), rms=st.floats(0, 1e6), bits=st.integers(2, 16))
def test_a_step_changes_within_bounds(step: float, rms: float, bits: int) -> None:
    first = 1.0
    after = steps.next_step(step, first, rms, bits, 1000)
    assert 2.0**-12 <= after <= 4.0
    if 2.0**-12 < after < 4.0:
        assert 0.25 * step <= after <= 2.5 * step


def test_a_step_leaves_room_for_residuals_that_pile_up() -> None:
    assert [steps.growth(opened, 0.1) for opened in (1, 2, 4, 20)] == [2.0, 1.5, 1.25, 1.1]
    assert steps.growth(1, 1.0) == 1.5


def test_where_sums_are_uneven_a_step_that_has_settled_narrows_slowly() -> None:
    assert [steps.smallest_change(opened, 1.0) for opened in (1, 8, 9, 1000)] == [0.25, 0.25, 0.9, 0.9]
    assert steps.smallest_change(1000, 0.1) == 0.25
    assert steps.next_step(1.0, 1.0, 1e-3, 6, 1000, 1.5, 0.9) == 0.9


def test_a_step_doubles_after_a_round_lost_to_wrapping_but_not_for_ever() -> None:
    step = 1.0
    for _ in range(10):
        step = steps.after_wrapping(step, 1.0)
    assert step == 4.0


@pytest.mark.parametrize(("devices", "shared"), [(2, 0.0), (10, 0.3), (16, 0.0), (64, 0.0), (100, 0.05)])
def test_the_step_follows_updates_that_shrink_and_grow(devices: int, shared: float) -> None:
    """Updates a hundred times shorter, then ten times longer, at once: few rounds are lost, then none."""
    parameters, bits, indices = 512, steps.bits_for(devices), list(range(3, 3 + devices))
    first = steps.first_step(1.0, devices, bits, parameters)
    step, lost, errors = first, [], []
    chance = np.random.default_rng(devices)
    for number in range(60):
        scale = (0.4 if number < 20 else 0.004 if number < 40 else 0.04) / math.sqrt(parameters)
        common = chance.standard_normal(parameters) * math.sqrt(shared)
        updates = [
            ((common + chance.standard_normal(parameters) * math.sqrt(1 - shared)) * scale).astype(np.float32)
            for _ in indices
        ]
        grid = Grid(parameters, parameters, name_of(number))
        total = summed(
            [encoded(update, grid, index, bits, step) for update, index in zip(updates, indices, strict=True)],
            parameters,
            bits,
        )
        try:
            result = opened(total, indices, grid, bits, step)
        except OpeningError:
            lost.append(number)
            step = steps.after_wrapping(step, first)
            continue
        norm = result.metrics.norm * result.weight / 65_536 / step
        exact = np.linalg.norm(np.sum(updates, axis=0))
        errors.append((number, (result.metrics.norm * devices) ** 2 / exact**2 - 1))
        step = steps.next_step(step, first, norm / math.sqrt(parameters), bits, parameters)
    assert all(40 <= number < 50 for number in lost), lost
    settled = [error for number, error in errors if 10 <= number < 20 or 30 <= number < 40 or number >= 50]
    assert np.mean(settled) < 3


def test_profiles_are_those_that_were_measured() -> None:
    assert {name: (profile.keep, profile.server_momentum) for name, profile in PROFILES.items()} == {
        "thrift": (0.05, 0.0),
        "default": (0.1, 0.0),
        "fast": (1.0, 0.9),
    }


@pytest.mark.parametrize(
    ("keep", "rate", "momentum", "why"),
    [(0.1, 0.3, 0.9, "diverges"), (0.0, 1.0, 0.0, "keep"), (1.5, 1.0, 0.0, "keep"), (1.0, 0.0, 0.0, "server_rate")],
)
def test_combinations_that_diverge_are_refused_with_the_reason(
    keep: float, rate: float, momentum: float, why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        EncodingProfile(keep, 0, rate, momentum)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, math.nan])
def test_a_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(ConfigurationError, match="momentum"):
        check_server(momentum, adam=False, everything=True)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fedadam_with_a_part_of_the_coordinates_is_refused_with_what_to_choose(momentum: float) -> None:
    with pytest.raises(ConfigurationError, match=r"FedAdam .*codec plain or fast"):
        check_server(momentum, adam=True, everything=False)
    check_server(momentum, adam=True, everything=True)


# ---- key frames


@settings(max_examples=40, deadline=None)
@given(parameters=st.integers(1, 700), parts=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_a_key_frame_is_close_and_taken_by_whoever_fetches_it(parameters: int, parts: int, seed: int) -> None:
    state = any_delta(seed, parts * parameters)
    data = eight_bit(state, parameters, 16)
    assert len(data) == {1: parameters + 5, 2: 2 * parameters + 9, 3: 5 * parameters + 5}[parts]
    restored = open_eight_bit(data, parameters, 16)
    for part, found in zip(state.reshape(parts, -1), restored.reshape(parts, -1), strict=True):
        assert np.linalg.norm(part - found) <= 0.5 / 127 * math.sqrt(parameters) * np.abs(part).sum() + 1e-5


def test_a_key_frame_is_what_the_book_says() -> None:
    state = any_delta(3, 75)
    name = digest("keyf", (48).to_bytes(4, "little"))
    rotated = textbook_rotate(list(state), name)
    scale = max(map(abs, rotated)) / np.float32(127)
    levels = [round(float(value / scale)) for value in rotated]
    expected = b"\x08" + scale.astype("<f4").tobytes() + bytes(level % 256 for level in levels)
    assert eight_bit(state, 75, 48) == expected
    restored = textbook_rotate_back([np.float32(level) * scale for level in levels], name)
    assert np.array_equal(restored, open_eight_bit(expected, 75, 48))


def test_an_empty_model_has_a_key_frame() -> None:
    assert not open_eight_bit(eight_bit(np.zeros(10, np.float32), 10, 16), 10, 16).any()


@pytest.mark.parametrize(
    "data",
    [b"", bytes(15), b"\x07" + bytes(14), b"\x08" + bytes(13), b"\x08" + bytes(15), b"\x08\0\0\x80\x7f" + b"\x01" * 10],
)
def test_what_is_no_eight_bit_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        open_eight_bit(data, 10, 16)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(2.0**-100, 2.0**100, width=32))
def test_a_float32_quotient_by_way_of_float64_is_the_float32_quotient(seed: int, scale: float) -> None:
    """Key frames and FedAdam rely on it: what the specification calls float32 is the same either way."""
    values = np.random.default_rng(seed).integers(0, 2**32, 500, np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    with np.errstate(all="ignore"):
        direct, wide = values / np.float32(scale), (values.astype(np.float64) / scale).astype(np.float32)
    normal = np.abs(direct) >= np.finfo(np.float32).tiny
    assert np.array_equal(direct[normal], wide[normal])
