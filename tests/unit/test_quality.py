"""What of a channel's readings is used, and why the rest is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources.quality import AHEAD, Cleaning, Counts, clean, drift
from edge_agent.sources.quality import Series as Used

NOW = 1_800_000_000.0
ALL = Cleaning()


def cleaned(
    values: list[float], times: list[float] | None = None, cleaning: Cleaning = ALL
) -> tuple[list[float], list[float], Counts]:
    moments = NOW - 1000 + np.array(times if times is not None else range(len(values)), np.float64)
    series, counts = clean(moments, np.array(values, np.float64), -100.0, 100.0, cleaning, NOW)
    return list(series.times - (NOW - 1000)), list(series.values), counts


def test_good_readings_are_all_used() -> None:
    times, values, counts = cleaned([1.0, 2.0, 3.0])
    assert (times, values, counts) == ([0, 1, 2], [1, 2, 3], Counts(readings=3))


def test_nothing_is_nothing() -> None:
    assert cleaned([], cleaning=Cleaning(stuck=1, spikes=3)) == ([], [], Counts())


def test_late_readings_are_put_in_their_place() -> None:
    times, values, counts = cleaned([1.0, 3.0, 2.0, 4.0], [0, 2, 1, 3])
    assert (times, values, counts) == ([0, 1, 2, 3], [1, 2, 3, 4], Counts(readings=4, late=1))


def test_of_two_readings_of_one_time_the_first_is_used() -> None:
    times, values, counts = cleaned([1.0, 2.0, 9.0], [0, 1, 1])
    assert (times, values, counts) == ([0, 1], [1, 2], Counts(readings=3, duplicate=1))


def test_readings_from_the_future_are_left_out() -> None:
    inside, outside = 1000 + AHEAD, 1000 + AHEAD + 1
    times, _, counts = cleaned([1.0, 2.0, 3.0, 4.0], [0, outside, inside, float("nan")])
    assert (times, counts) == ([0, inside], Counts(readings=4, future=2))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -100.5, 1e9])
def test_values_that_no_working_sensor_gives_are_left_out(wrong: float) -> None:
    _, values, counts = cleaned([-100.0, wrong, 100.0])
    assert (values, counts) == ([-100, 100], Counts(readings=3, out_of_range=1))


def test_a_spike_is_left_out_if_that_is_asked_for() -> None:
    values = [10 + 0.1 * (at % 3) for at in range(40)]
    values[20] = 60.0
    assert cleaned(values)[2].spikes == 0
    _, used, counts = cleaned(values, cleaning=Cleaning(spikes=6))
    assert (counts.spikes, 60.0 in used, len(used)) == (1, False, 39)


def test_a_step_is_no_spike() -> None:
    """The floor is the whole series' spread: a quiet sensor may move."""
    values = [10.0] * 20 + [12.0] * 20 + [10.0, 12.0] * 10
    assert cleaned(values, cleaning=Cleaning(spikes=6))[2].spikes == 0


def test_a_sensor_is_stuck_after_a_while_until_it_moves() -> None:
    values = [1.0] * 10 + [2.0] * 3
    times, _, counts = cleaned(values, cleaning=Cleaning(stuck=4))
    assert (times, counts.stuck) == ([0, 1, 2, 3, 4, 10, 11, 12], 5)


def test_counts_add_up() -> None:
    assert Counts(1, 2, 3, 4, 5, 6, 7, 8) + Counts(1, 1, 1, 1, 1, 1, 1, 1) == Counts(2, 3, 4, 5, 6, 7, 8, 9)
    assert Counts(100, 2, 3, 4, 5, 6, 7, 8).left_out() == 33


def test_what_was_read_at_a_time_that_there_was_twice_is_left_out() -> None:
    times, values = np.array([0.0, 10, 20, 30, 15, 25, 35]), np.arange(7.0)
    series, counts = clean(times, values, 0, 10, Cleaning(), 100.0, [(15.0, 32.0)])
    assert (series.times.tolist(), series.values.tolist()) == ([0, 10, 35], [0, 1, 6])
    assert counts == Counts(readings=7, late=0, clock_set_back=4)


@given(
    st.lists(
        st.tuples(st.floats(-2000, 2000) | st.just(float("nan")), st.floats(allow_nan=True, allow_infinity=True)),
        max_size=40,
    ),
    st.sampled_from([ALL, Cleaning(stuck=30), Cleaning(spikes=4), Cleaning(stuck=5, spikes=3)]),
)
def test_whatever_comes_every_reading_is_used_or_counted(
    readings: list[tuple[float, float]], cleaning: Cleaning
) -> None:
    times, values, counts = cleaned([value for _, value in readings], [time for time, _ in readings], cleaning)
    assert len(times) == len(values) == len(readings) - counts.left_out()
    assert times == sorted(set(times))
    assert all(-100 <= value <= 100 for value in values)


def test_drift_is_told_in_deviations_of_the_time_before() -> None:
    chance = np.random.default_rng(7)
    times = np.arange(NOW, NOW + 5 * 86_400, 900, dtype=np.float64)
    values = chance.normal(20, 2, len(times))
    assert abs(drift(Used(times, values)) or 9) < 0.5
    values[-96:] += 6
    assert drift(Used(times, values)) == pytest.approx(3, abs=0.5)


def test_drift_is_unknown_without_a_time_before() -> None:
    for end in (NOW, NOW + 3_000, NOW + 5 * 86_400):
        times = np.arange(NOW, end, 60, dtype=np.float64)
        assert drift(Used(times, np.ones(len(times)))) is None
