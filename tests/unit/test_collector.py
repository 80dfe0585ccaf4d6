"""The collector: what the feeds of a device have is kept once, over restarts too."""

import time
from pathlib import Path

import pytest

from edge_agent.collector import Collector
from edge_agent.sources.csv_feed import CsvFeedSettings
from edge_agent.sources.labels import LabelSettings
from edge_agent.sources.sensors import ChannelSettings, SensorSettings
from edge_agent.sources.store import ReadingStore
from hushfleet.journal import Journal

DEADLINE = 20.0


def collected(path: Path, count: int) -> dict[str, list[float]]:
    """The values by channel, after a collector has run until there are so many."""
    sensors = SensorSettings(
        channel=(ChannelSettings("flow", f"{path}#flow"),),
        label=LabelSettings(address=f"{path}#pump", values={"ON": "running", "OFF": "idle"}),
    )
    store = ReadingStore(path.with_name("readings.db"), sensors.keep)
    collector = Collector([CsvFeedSettings(path, time="at")], sensors, store, Journal("text"))
    end = time.monotonic() + DEADLINE
    while sum(len(store.readings(name)[0]) for name in store.channels()) < count:
        assert time.monotonic() < end, f"{store.channels()}"
        time.sleep(0.01)
    # One more look at the file: what it gives twice would come now.
    collector.step(time.time())
    found = {name: store.readings(name)[1].tolist() for name in store.channels()}
    collector.close()
    return found


def test_a_file_is_read_once_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    begin = time.time() - 1000
    path.write_text(f"at,flow,pump\n{begin},1,ON\n{begin + 1},2,OFF\n")
    assert collected(path, 4) == {"flow": [1, 2], "label/idle": [1], "label/running": [1]}
    with path.open("a") as file:
        file.write(f"{begin + 2},3,ON\n")
    assert collected(path, 6) == {"flow": [1, 2, 3], "label/idle": [1], "label/running": [1, 1]}
    # A time ahead of the clock, once kept, hides nothing that comes later.
    ahead = time.time() + 10**5
    with path.open("a") as file:
        file.write(f"{ahead},4,\n")
    assert collected(path, 7)["flow"] == [1, 2, 3, 4]
    with path.open("a") as file:
        file.write(f"{ahead + 1},5,\n")
    assert collected(path, 8)["flow"][-1] == 5


def test_what_is_older_than_what_is_kept_is_not_written_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    now = time.time()
    path.write_text(f"at,flow\n{now - 40 * 86_400},1\n{now - 1000},2\n")
    sensors = SensorSettings(channel=(ChannelSettings("flow", f"{path}#flow"),))
    store = ReadingStore(path.with_name("readings.db"), sensors.keep)
    collector = Collector([CsvFeedSettings(path, time="at")], sensors, store, Journal("text"))
    end = time.monotonic() + DEADLINE
    while not len(store.readings("flow")[0]):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert store.readings("flow")[1].tolist() == [2]
    assert collector.view()["dropped"] == {"a time longer ago than keep says": 1}
    collector.close()


def test_what_fails_in_an_unforeseen_way_is_told_without_what_was_measured_and_ends_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.collector._SETTLING", 0.0)
    path = tmp_path / "pump.csv"
    path.write_text("at,flow\n")
    sensors = SensorSettings(channel=(ChannelSettings("flow", f"{path}#flow"),))
    store = ReadingStore(path.with_name("readings.db"), sensors.keep)

    def broken(now: float) -> tuple[float, str | None]:
        raise ValueError("21.75")

    collector = Collector([CsvFeedSettings(path, time="at")], sensors, store, Journal("text"), broken)
    end = time.monotonic() + DEADLINE
    while not collector.trouble:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert collector.trouble == {"decisions": "failed: ValueError"}
    with path.open("a") as file:
        file.write(f"{time.time()},1\n")
    while not len(store.readings("flow")[0]):
        assert time.monotonic() < end
        time.sleep(0.01)
    collector.close()


def test_a_sensor_that_announces_another_unit_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.collector._SETTLING", 0.0)
    path = tmp_path / "pump.csv"
    path.write_text(f"at,flow,heat\n{time.time() - 9},1,2\n")
    mapped = (
        ChannelSettings("flow", f"{path}#flow", unit="m3/h"),
        ChannelSettings("heat", f"{path}#heat", unit="degC"),
    )
    feed, sensors = CsvFeedSettings(path, time="at", units={"flow": "L/min", "heat": "°C"}), SensorSettings(mapped)
    collector = Collector([feed], sensors, ReadingStore(tmp_path / "readings.db", sensors.keep), Journal("text"))
    end = time.monotonic() + DEADLINE
    while not collector.trouble:
        assert time.monotonic() < end
        time.sleep(0.01)
    said = (
        "pump.csv#flow is announced in L/min, the settings say 'm3/h'; correct unit, unless the announcement is wrong"
    )
    assert list(collector.trouble) == ["unit of flow"]
    assert said in collector.trouble["unit of flow"]
    collector.close()
