"""From readings to windows: the grid, what is measured and what imputed, targets."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources.quality import Series
from edge_agent.sources.windows import Grid, contents, forecasts, windows
from edge_agent.sources.windows import resample as on_grid
from hushfleet.learning.layers import forward
from hushfleet.wire.layers import Conv1d, GlobalAverage
from hushfleet.wire.schema import Channel, Schema, Standardised

EVEN = 1_800_000_000.0
"""A multiple of every rate and step used here."""


def schema(channels: int = 2, **changed: Any) -> Schema:
    """Windows of four samples, one a second, every two seconds; values 0 to 10."""
    rows = tuple(Channel(f"c{number}", "1", 0.0, 10.0) for number in range(channels))
    windows = {"rate": 1.0, "samples": 4, "step": 2, "missing": 0.0, "mask": 0}
    task: dict[str, Any] = {"task": "anomaly", "classes": (), "target": 0, "horizon": 0}
    return Schema(bytes(16), 0, 1, 1, bytes(32), rows, **(windows | task | changed))


def series(times: list[float], values: list[float]) -> Series:
    return Series(EVEN + np.array(times, np.float64), np.array(values, np.float64))


def resample(rules: Schema, found: list[Series], holds: list[float], begin: float, end: float) -> Grid:
    return on_grid(rules, found, holds, math.ceil(begin * rules.rate), math.ceil(end * rules.rate))


def every_second(count: int, value: float = 5.0) -> Series:
    return series(list(range(count)), [value + number % 2 for number in range(count)])


def test_samples_are_means_of_their_cells_scaled_to_the_range() -> None:
    one = series([0.0, 0.6, 1.2, 2.0], [0.0, 4.0, 6.0, 10.0])
    grid = resample(schema(1), [one], [0.0], EVEN, EVEN + 3)
    assert grid.first == EVEN
    assert grid.values.tolist() == [[-1.0, 0.0, 1.0]]
    assert grid.measured.all()


def test_a_reading_holds_for_a_while_and_then_its_value_is_imputed() -> None:
    grid = resample(schema(1), [series([1.0], [10.0])], [2.0], EVEN, EVEN + 6)
    assert grid.measured.tolist() == [[False, True, True, True, False, False]]
    # Before there was any: the middle of the range.
    assert grid.values.tolist() == [[0.0, 1.0, 1.0, 1.0, 1.0, 1.0]]


def test_a_standardised_channel_is_scaled_and_imputed_by_the_mean() -> None:
    rules = replace(schema(1), channels=(Standardised("c0", "1", 0.0, 10.0, 4.0, 2.0),))
    grid = resample(rules, [series([1.0], [9.0])], [0.0], EVEN, EVEN + 2)
    assert grid.values.tolist() == [[0.0, 2.5]]


def test_without_readings_everything_is_imputed() -> None:
    grid = resample(schema(1), [series([], [])], [1e9], EVEN, EVEN + 3)
    assert not grid.measured.any()
    assert not grid.values.any()


def test_windows_begin_at_multiples_of_the_step_whenever_one_looks() -> None:
    full = [every_second(20), every_second(20)]
    ends = {}
    for begin in (0, 1, 3):
        grid = resample(schema(), full, [0.0, 0.0], EVEN + begin, EVEN + 20)
        ends[begin] = [int(end - EVEN) for end in windows(schema(), grid).ends]
    assert ends == {
        0: [3, 5, 7, 9, 11, 13, 15, 17, 19],
        1: [5, 7, 9, 11, 13, 15, 17, 19],
        3: [7, 9, 11, 13, 15, 17, 19],
    }


def test_a_window_is_one_channel_after_the_other_and_then_its_mask() -> None:
    rules = schema(mask=1, missing=0.5)
    grid = resample(rules, [series([0, 1, 2, 3], [0, 10, 0, 10]), series([0, 1], [5, 10])], [0.0, 0.0], EVEN, EVEN + 4)
    x = contents(rules, grid, windows(rules, grid).ends)
    assert x.dtype == np.float32
    assert x.tolist() == [[-1, 1, -1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]
    assert x.shape == (1, rules.inputs())


def test_a_layer_along_time_reads_a_window_as_the_schema_has_it() -> None:
    rules = schema(mask=1, missing=0.5)
    grid = resample(rules, [series([0, 1, 2, 3], [0, 10, 0, 10]), series([0, 1], [5, 10])], [0.0, 0.0], EVEN, EVEN + 4)
    # Four filters over one step that each pass on a channel: two of values, two of masks; then their means.
    layers = (Conv1d(4, 4, 4, 1), GlobalAverage(4, 4))
    x = contents(rules, grid, windows(rules, grid).ends)
    means = forward(np.concatenate([np.eye(4).ravel(), np.zeros(4)]), layers, x)
    assert means.tolist() == [[0.0, 0.75, 1.0, 0.5]]


@pytest.mark.parametrize(("missing", "used"), [(0.0, 0), (0.24, 0), (0.25, 1), (0.9, 1)])
def test_a_window_with_too_much_imputed_is_not_used(missing: float, used: int) -> None:
    """Two of eight samples are imputed."""
    rules = schema(missing=missing)
    grid = resample(rules, [every_second(4), series([0, 1], [5, 5])], [0.0, 0.0], EVEN, EVEN + 4)
    found = windows(rules, grid)
    assert (len(found.ends), found.refused) == (used, 1 - used)


def test_a_long_grid_is_made_in_parts_that_fit_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [series([0.4, 0.6, 1.2, 7.0], [1, 2, 3, 4]), series([2.4, 2.5, 5.49], [5, 6, 7])]
    whole = resample(schema(), found, [1.5, 0.0], EVEN - 2, EVEN + 12)
    monkeypatch.setattr("edge_agent.sources.windows._AT_ONCE", 3)
    parts = resample(schema(), found, [1.5, 0.0], EVEN - 2, EVEN + 12)
    assert parts.values.tolist() == whole.values.tolist()
    assert parts.measured.tolist() == whole.measured.tolist()


def test_too_short_a_time_has_no_window() -> None:
    for count in (0, 1, 3):
        grid = resample(schema(), [every_second(count), every_second(count)], [0.0, 0.0], EVEN, EVEN + count)
        found = windows(schema(), grid)
        assert (contents(schema(), grid, found.ends).shape, found.refused) == ((0, 8), 0)


def test_a_forecast_is_the_target_channel_some_samples_later() -> None:
    rules = schema(task="forecast", target=1, horizon=3)
    later = series(list(range(12)), [float(number % 10) for number in range(12)])
    grid = resample(rules, [every_second(12), later], [0.0, 0.0], EVEN, EVEN + 12)
    ends = windows(rules, grid).ends
    values, measured = forecasts(rules, grid, ends)
    assert [int(end - EVEN) for end in ends] == [3, 5, 7, 9, 11]
    assert measured.tolist() == [True, True, True, False, False]
    assert values[:3].tolist() == pytest.approx([6 / 5 - 1, 8 / 5 - 1, 0 / 5 - 1])


@given(
    st.lists(st.tuples(st.floats(0, 60), st.floats(0, 10)), max_size=60),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([0.25, 1.0, 4.0]),
    st.floats(0, 5),
)
def test_no_window_holds_what_was_not_there(
    readings: list[tuple[float, float]], samples: int, step: int, rate: float, hold: float
) -> None:
    """A sample that counts as measured lies between the least and the greatest reading of its hold or cell."""
    rules = schema(1, samples=samples, step=step, rate=rate)
    ordered = dict(sorted(readings))
    one = series(list(ordered), list(ordered.values()))
    grid = resample(rules, [one], [hold], EVEN, EVEN + 60)
    found = windows(rules, grid)
    x = contents(rules, grid, found.ends)
    assert np.isfinite(x).all()
    assert (np.abs(x) <= 1 + 1e-6).all()
    for window, end in zip(x, found.ends, strict=True):
        assert (end - samples + 1) % step == 0
        for value, sample in zip(window, range(int(end) - samples + 1, int(end) + 1), strict=True):
            moment = sample / rate - EVEN
            near = [v for t, v in ordered.items() if moment - max(hold, 0.5 / rate) <= t <= moment + 0.5 / rate + 1e-6]
            assert near
            assert min(near) - 1e-3 <= (value + 1) * 5 <= max(near) + 1e-3
