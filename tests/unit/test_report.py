"""The page about a device's readings."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.report import Fleet, page
from edge_agent.sources.clock import SET
from edge_agent.sources.labels import LabelSettings, Rule
from edge_agent.sources.quality import Cleaning
from edge_agent.sources.sensors import ChannelSettings, Sensors, SensorSettings
from edge_agent.sources.store import ReadingStore
from hushfleet.errors import ConfigurationError
from hushfleet.judgement import length
from hushfleet.statistics import Numbers
from hushfleet.wire.schema import Channel, Schema

NOW = 1_800_000_000.0
SCHEMA = Schema(
    bytes(16),
    0,
    1,
    1,
    bytes(32),
    (Channel("co2 <in>", "ppm", 0.0, 2000.0), Channel("noise", "dB", 0.0, 140.0)),
    rate=1 / 60,
    samples=4,
    step=2,
    missing=0.5,
    mask=0,
    task="classes",
    classes=("empty", "taken", "full"),
    target=0,
    horizon=0,
)


@pytest.fixture
def sensors(tmp_path: Path) -> Sensors:
    """Four hours, one reading a minute, an hour without any, two spikes; nothing of the second channel."""
    rule = Rule("taken", channel="co2 <in>", above=600.0)
    settings = SensorSettings(
        (ChannelSettings("co2 <in>", "a#", cleaning=Cleaning(spikes=6)), ChannelSettings("noise", "b#")),
        LabelSettings(rule=(rule,), otherwise="empty"),
    )
    store = ReadingStore(tmp_path / "readings.db", settings.keep)
    for minute in range(240):
        if not 60 <= minute < 120:
            spike = 1000 if minute in (30, 200) else 0
            store.add("co2 <in>", NOW - 60 * (240 - minute), 500 + minute % 7 + 2 * max(0, minute - 150) + spike)
    return Sensors(settings, store)


def test_it_shows_what_is_there_and_what_is_wrong(sensors: Sensors) -> None:
    assert "clock was set" not in page("gate & way", sensors, SCHEMA, NOW)
    sensors.store.add(SET, NOW - 60 * 100 - 1, 0.0)
    text = page("gate & way", sensors, SCHEMA, NOW)
    assert "<h1>Readings of gate &amp; way</h1>" in text
    assert "<h2>co2 &lt;in&gt; <small>ppm, 0 to 2000</small></h2>" in text
    assert re.search(r"<td>times that the device&#x27;s clock was set meanwhile</td><td class=number>1</td>", text)
    assert re.search(r"<td>readings</td><td class=number>180</td>", text)
    assert re.search(r'class="bad"><td>left out: spikes</td><td class=number>2</td>', text)
    assert re.search(r'class="bad"><td>full</td><td class=number>0</td>', text)
    assert "<p class=bad>No reading is kept." in text.split("<h2>noise")[1]
    # One line before the gap, one after it; nothing is fetched from anywhere.
    assert text.count("<polyline") == 2
    assert "http" not in text
    assert "src=" not in text


@pytest.mark.parametrize(("high", "far"), [(0.0, False), (1.0, True)])
def test_what_is_usual_in_the_fleet_stands_beside_it(
    sensors: Sensors, monkeypatch: pytest.MonkeyPatch, high: float, far: bool
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    own = sensors.describe(SCHEMA, lambda _: np.zeros(length(SCHEMA)))
    (here, nothing) = Numbers.split(SCHEMA, own).histograms()
    assert nothing is None
    usual = np.array(here) * (1 - high) + high * np.eye(16)[15]
    alone, text = (page("gateway", sensors, SCHEMA, NOW, fleet) for fleet in (None, Fleet(7, [usual.tolist(), None])))
    assert "in the fleet" not in alone
    assert text.count("in the fleet: 7 devices, each counts once") == 1
    assert len(re.findall("<rect ", text)) - len(re.findall("<rect ", alone)) == np.count_nonzero(usual)
    row = re.search(r'<tr class="(bad)?"><td>distance from the fleet [^<]*</td><td class=number>([0-9.]+)</td>', text)
    assert row is not None
    assert (row[1] == "bad", float(row[2]) > 0.25) == (far, far)


def test_it_shows_what_feeds_dropped_and_what_hinders_them(sensors: Sensors) -> None:
    told = {"trouble": {"feed 1": "no broker answers at <here>"}, "dropped": {"a payload that is not JSON": 3}}
    text = page("gateway", sensors, SCHEMA, NOW, told=told).split("<h2>Feeds</h2>")[1]
    assert "<p class=bad>feed 1: no broker answers at &lt;here&gt;</p>" in text
    assert "<td>a payload that is not JSON</td><td class=number>3</td>" in text
    text = page("gateway", sensors, SCHEMA, NOW, told={"trouble": {}, "dropped": {}})
    assert "Nothing was dropped since the agent's last start" in text
    assert "<h2>Feeds" not in page("gateway", sensors, SCHEMA, NOW)


def test_windows_that_memory_does_not_hold_are_counted(sensors: Sensors, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "more than memory holds" not in page("gateway", sensors, SCHEMA, NOW)
    monkeypatch.setattr("edge_agent.sources.sensors.rows_in", lambda memory, inputs: 7 if inputs > 2 else 10_000)
    found = sensors.rows(SCHEMA, NOW)
    assert found.spare > 0
    text = page("gateway", sensors, SCHEMA, NOW)
    assert f"<td>not used: more than memory holds</td><td class=number>{found.spare}</td>" in text


def test_a_page_about_nothing_says_so(tmp_path: Path) -> None:
    settings = SensorSettings((ChannelSettings("co2 <in>", "a#"), ChannelSettings("noise", "b#")), None)
    store = ReadingStore(tmp_path / "readings.db", settings.keep)
    anomaly = replace(SCHEMA, task="anomaly", classes=())
    text = page("gateway", Sensors(settings, store), anomaly, NOW)
    assert text.count("No reading is kept.") == 2
    assert 'class="bad"><td>to train on</td><td class=number>0</td>' in text


def test_another_process_s_readings_are_only_looked_at(sensors: Sensors, tmp_path: Path) -> None:
    path = tmp_path / "readings.db"
    with pytest.raises(ConfigurationError, match="no readings can be read from"):
        ReadingStore.beside(tmp_path / "none.db")
    sensors.store.flush()
    before = path.read_bytes()
    assert len(ReadingStore.beside(path).readings("co2 <in>")[0]) == 180
    assert path.read_bytes() == before
