"""FedAdam on the server: the paper's formula, everyone's bits, and moments that outlast a key frame."""

import math
from dataclasses import replace
from pathlib import Path

import golden_round
import numpy as np
import pytest
from codec_reference import any_delta
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rotated_reference import encoded, name_of, opened, summed

from coordinator.encoding import ServerOptimizer, ServerStep, server_step
from coordinator.planning import RoundSettings
from hushfleet.codec import PLAIN_BITS, pack_opened, plain_step
from hushfleet.configuration import load
from hushfleet.encoding.grid import Grid
from hushfleet.encoding.keyframe import eight_bit, open_eight_bit
from hushfleet.errors import ConfigurationError, MalformedError, RefusedError
from hushfleet.learning.server import model_hash, snapshot
from hushfleet.replay import read_snapshot, replay
from hushfleet.wire.framing import read
from hushfleet.wire.round import PLAIN, ROTATED, Delta, Plan

Floats = NDArray[np.float32]
PARAMETERS, CLIP = 70, 1.0
INDICES = [3, 5, 9]
ADAM = (0.99, 1e-3)


def rotated_delta(version: int, scale: float = 0.02, keep: float = 1.0) -> Delta:
    """The sum of three devices' updates, as it opens."""
    coords, name = PARAMETERS if keep == 1.0 else 64, name_of(version)
    grid, bits, step = Grid(PARAMETERS, coords, name), 6, 0.01
    vectors = [encoded(any_delta(version + index, PARAMETERS, scale), grid, index, bits, step) for index in INDICES]
    found = opened(summed(vectors, coords, bits), INDICES, grid, bits, step)
    body = pack_opened(found.residues, found.bits)
    return Delta(0, version, name, found.bits, body, step, found.weight, 0.03, ROTATED, 0.9, ADAM)


def plain_delta(version: int) -> Delta:
    """The same in sixteen bits."""
    residues = np.random.default_rng(version).integers(-900, 900, PARAMETERS)
    body = pack_opened(np.append(residues, np.zeros(-PARAMETERS % 64, np.int64)), PLAIN_BITS)
    step = plain_step(CLIP, 16)
    return Delta(0, version, name_of(version), PLAIN_BITS, body, step, 3 * 65_536, 0.03, PLAIN, 0.9, ADAM)


def stepped(state: Floats, delta: Delta) -> Floats:
    return replay(state, delta, INDICES, PARAMETERS, CLIP).state


def mean_of(delta: Delta) -> NDArray[np.float64]:
    """The mean update that a delta stands for, by the step of plain averaging."""
    averaged = replace(delta, version=1, adam=(), momentum=0.0, rate=1.0)
    return stepped(np.zeros(PARAMETERS, np.float32), averaged).astype(np.float64)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    plain=st.booleans(),
    momentum=st.floats(0, 0.99),
    beta=st.floats(0, 0.9999),
    tau=st.floats(1e-6, 1.0),
    rate=st.floats(1e-4, 1.0),
)
def test_a_step_is_that_of_the_paper(
    seed: int, plain: bool, momentum: float, beta: float, tau: float, rate: float
) -> None:
    start = any_delta(seed, PARAMETERS)
    state, x = start, start.astype(np.float64)
    m, v = np.zeros(PARAMETERS), np.full(PARAMETERS, tau**2)
    for version in (1, 2, 3):
        delta = plain_delta(seed + version) if plain else rotated_delta(16 * seed + version)
        delta = replace(delta, momentum=momentum, rate=rate, adam=(beta, tau))
        u = mean_of(delta)
        m = momentum * m + (1 - momentum) * u
        v = beta * v + (1 - beta) * u**2
        x = x + rate * m / (np.sqrt(v) + tau)
        state = stepped(state, delta)
    assert state.dtype == np.float32
    assert state.shape == (3 * PARAMETERS,)
    assert np.allclose(state, np.concatenate((x, m, v)), rtol=1e-5, atol=1e-6)


def test_a_step_does_not_depend_on_how_long_the_arrays_are() -> None:
    """Vector units take several numbers at once, and what is left over one by one."""
    state = stepped(any_delta(1, PARAMETERS), plain_delta(1))
    whole = stepped(state, plain_delta(2)).reshape(3, -1)
    delta = plain_delta(2)
    for length in (1, 2, 3, 7, 33):
        residues = np.random.default_rng(2).integers(-900, 900, PARAMETERS)[:length]
        body = pack_opened(np.append(residues, np.zeros(-length % 64, np.int64)), PLAIN_BITS)
        part = state.reshape(3, -1)[:, :length].ravel()
        after = replay(part, replace(delta, body=body), INDICES, length, CLIP).state
        assert np.array_equal(after.reshape(3, -1), whole[:, :length])


# ---- key frames


def wide_moments(seed: int) -> Floats:
    """A state whose coordinates have had updates of very different lengths, as biases and dead inputs have."""
    chance = np.random.default_rng(seed)
    lengths = 10.0 ** chance.uniform(-7, -1, PARAMETERS)
    first = lengths * chance.uniform(-1, 1, PARAMETERS)
    return np.concatenate((chance.standard_normal(PARAMETERS) * 0.1, first, lengths**2)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tau=st.sampled_from([1e-3, 1e-5, 1e-8]))
def test_no_step_grows_by_a_key_frame(seed: int, tau: float) -> None:
    state = wide_moments(seed)
    rounded = open_eight_bit(eight_bit(state, PARAMETERS, 16), PARAMETERS, 16)
    delta = replace(plain_delta(17), body=bytes(2 * 128), adam=(0.99, tau))

    def step(before: Floats) -> Floats:
        moved: Floats = stepped(before, delta)[:PARAMETERS] - before[:PARAMETERS]
        return np.abs(moved)

    without, after = step(state), step(rounded)
    # A step is seen in the float32 of the model, whose last digit is worth 1e-8 here.
    assert (after <= 1.01 * without + 1e-7).all()
    assert (after >= 0.99 * without - 1e-7).all()


def test_moments_of_a_key_frame_are_each_right_to_a_256th() -> None:
    state = wide_moments(1)
    state[PARAMETERS : PARAMETERS + 3] = 0.0, -0.0, 1e-38
    rounded = open_eight_bit(eight_bit(state, PARAMETERS, 16), PARAMETERS, 16)[PARAMETERS:]
    exact = state[PARAMETERS:]
    assert (np.abs(rounded - exact) <= np.abs(exact) / 256).all()
    assert (rounded[PARAMETERS:] > 0).all()


def test_moments_beyond_two_bytes_are_refused() -> None:
    state = np.full(3, np.finfo(np.float32).max)
    state[0] = 0.0
    with pytest.raises(MalformedError, match="infinity"):
        open_eight_bit(eight_bit(state, 1, 16), 1, 16)


def test_whoever_replays_over_a_key_frame_and_whoever_fetches_it_hold_the_same() -> None:
    state = any_delta(5, PARAMETERS)
    for version in range(14, 18):
        after = replay(state, rotated_delta(version), INDICES, PARAMETERS, CLIP)
        if version == 16:
            assert len(after.snapshot) == 5 * PARAMETERS + 5
            assert np.array_equal(read_snapshot(after.snapshot, PARAMETERS, 16, after.hash()), after.state)
        state = after.state
    assert np.array_equal(read_snapshot(snapshot(state), PARAMETERS, 17, model_hash(state)), state)


# ---- from one optimiser to the other


def test_moments_end_with_fedadam_and_a_velocity_does_not_become_one() -> None:
    start, delta = any_delta(5, PARAMETERS), rotated_delta(2)
    with_moments = stepped(start, delta)
    with_velocity = stepped(start, replace(delta, adam=()))
    flat = with_velocity[:PARAMETERS]
    assert np.array_equal(stepped(with_velocity, delta), stepped(flat, delta))
    for optimizer in ({"adam": (), "momentum": 0.9}, {"adam": (), "momentum": 0.0}):
        other = replace(delta, **optimizer)  # type: ignore[arg-type]
        assert np.array_equal(stepped(with_moments, other), stepped(with_moments[:PARAMETERS], other))
    averaged = replace(plain_delta(3), adam=(), momentum=0.0, rate=1.0)
    assert stepped(with_moments, averaged).shape == (PARAMETERS,)


# ---- what is refused


def test_a_device_refuses_fedadam_on_a_part_of_the_coordinates_and_says_why() -> None:
    with pytest.raises(RefusedError, match=r"FedAdam .* part of the coordinates"):
        stepped(any_delta(1, PARAMETERS), rotated_delta(1, keep=0.9))


@pytest.mark.parametrize(
    "adam", [(0.99,), (0.99, 0.001, 1.0), (1.0, 0.001), (-0.1, 0.001), (math.nan, 0.001), (0.99, 0.0), (0.99, math.nan)]
)
def test_numbers_that_make_no_sense_are_refused(adam: tuple[float, ...]) -> None:
    with pytest.raises(MalformedError, match="delta"):
        replace(rotated_delta(1), adam=adam).to_body()


@pytest.mark.parametrize("delta", [plain_delta(1), rotated_delta(1)], ids=["plain", "rotated"])
def test_a_step_out_of_all_bounds_is_refused(delta: Delta) -> None:
    with pytest.raises(RefusedError, match="NaN or infinity"):
        stepped(any_delta(1, PARAMETERS), replace(delta, rate=1e300))


def test_a_second_moment_below_0_is_refused() -> None:
    state = np.concatenate((any_delta(1, 2 * PARAMETERS), np.full(PARAMETERS, -1.0, np.float32)))
    with pytest.raises(RefusedError, match="NaN or infinity"):
        stepped(state, plain_delta(1))


# ---- the coordinator's setting


def settings_of(tmp_path: Path, *lines: str) -> RoundSettings:
    path = tmp_path / "rounds.toml"
    path.write_text("\n".join(lines))
    return load(path, RoundSettings)


@pytest.mark.parametrize("codec", ["plain", "fast"])
def test_the_operator_chooses_it_by_name_or_with_numbers(tmp_path: Path, codec: str) -> None:
    chosen = settings_of(tmp_path, f'codec = "{codec}"', 'server_optimizer = "adam"')
    assert chosen.server_optimizer == ServerOptimizer("adam")
    numbers = settings_of(tmp_path, f'codec = "{codec}"', 'server_optimizer = { kind = "adam", rate = 0.1, tau = 0.5 }')
    assert numbers.server_optimizer == ServerOptimizer("adam", rate=0.1, tau=0.5)


@pytest.mark.parametrize("codec", ["default", "thrift"])
def test_with_a_part_of_the_coordinates_the_file_is_refused_and_says_what_to_choose(tmp_path: Path, codec: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FedAdam .*codec plain or fast"):
        settings_of(tmp_path, f'codec = "{codec}"', 'server_optimizer = "adam"')


@pytest.mark.parametrize("number", ["rate = 0", "momentum = 1.0", "second_momentum = 1", "tau = 0"])
def test_a_number_out_of_range_is_named(tmp_path: Path, number: str) -> None:
    with pytest.raises(ConfigurationError, match=f"server_optimizer: {number.split()[0]}"):
        settings_of(tmp_path, f'server_optimizer = {{ kind = "adam", {number} }}')


def test_a_plan_from_before_the_choice_ends_with_its_own_profile() -> None:
    plan = read(golden_round.played().plan, Plan)
    adam = ServerOptimizer("adam", rate=0.5)
    assert server_step(plan, adam) == ServerStep(0.5, 0.9, (0.99, 0.001))
    assert server_step(plan, ServerOptimizer()) == ServerStep(1.0, 0.0)
    part = replace(plan, codec=ROTATED, keep=0.1)
    assert server_step(part, adam) == server_step(part, ServerOptimizer()) == ServerStep(1.0, 0.0)
