"""A clock that is set while readings come in."""

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.collector import Collector
from edge_agent.hearing import sensor_lines
from edge_agent.sources.clock import SET, SMALLEST, ClockWatch, Moved, running, twice
from edge_agent.sources.sensors import ChannelSettings, SensorSettings
from edge_agent.sources.store import ReadingStore
from hushfleet.errors import ConfigurationError
from hushfleet.journal import Journal

NOON = 1_800_000_000.0


def test_a_clock_that_is_set_back_shows_a_time_twice_and_one_that_is_set_ahead_does_not() -> None:
    watch = ClockWatch()
    assert watch.look(NOON, 0.0) is None
    assert watch.look(NOON + 7200, 7200.0) is None
    back = watch.look(NOON + 3610, 7210.0)
    assert back == Moved(-3600.0, NOON + 3610, NOON + 7210)
    assert watch.look(NOON + 3620, 7220.0) is None
    assert watch.look(NOON + 9999, 7230.0) == Moved(6369.0, NOON + 9999, NOON + 9999)
    assert twice([back.begin, NOON + 9999], [back.end - back.begin, 0.0]) == [(NOON + 3610, NOON + 7210)]


def test_years_ahead_it_has_shown_no_more_than_what_passed() -> None:
    watch, year = ClockWatch(), 365 * 86_400.0
    watch.look(NOON + year, 50.0)
    assert watch.look(NOON, 80.0) == Moved(-year - 30, NOON + year, NOON + year + 30)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-0.9 * SMALLEST / 2, 0.9 * SMALLEST / 2)), max_size=50))
def test_sleep_and_adjustments_are_no_jumps(looks: list[tuple[float, float]]) -> None:
    watch, since = ClockWatch(), 0.0
    for pause, adjusted in looks:
        since += pause
        assert watch.look(NOON + since + adjusted, since) is None


def test_the_time_since_the_start_runs_on() -> None:
    first = running()
    assert running() >= first > 0


def test_it_is_kept_told_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sensors = SensorSettings((ChannelSettings("flow", "a#flow"),))
    store = ReadingStore(tmp_path / "readings.db", sensors.keep)
    ended, since = threading.Event(), [0.0]

    def after(now: float) -> tuple[float, str | None]:
        ended.set()
        return 3600.0, None

    collector = Collector([], sensors, store, Journal("json"), after, since_start=lambda: since[0])
    # Its own thread has looked once; the looks that follow are ours.
    assert ended.wait(20)
    collector.step(NOON)
    told = collector.view()["clock_set"]
    for since[0], now in ((100.0, NOON + 100), (101.0, NOON - 899), (102.0, NOON - 898)):
        collector.step(now)
    view = collector.view()
    assert view["clock_set"] == {"times": 2 if told else 1, "seconds": -1000.0}
    assert [float(one[-1]) for one in store.readings(SET)] == [NOON, 101.0]
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["event"], one["seconds"]) for one in said][-1] == ("clock-set", -1000.0)
    lines = sensor_lines({"sensors": view, "decisions": None}, NOON)
    assert any("the clock was set" in line and "-1000 s" in line for line in lines)
    collector.close()


def test_no_channel_takes_its_place() -> None:
    with pytest.raises(ConfigurationError, match="no channel can be called 'clock'"):
        SensorSettings((ChannelSettings("clock", "a#flow"),))
