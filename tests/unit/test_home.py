"""The simulated homes: plausible air, and the windows that an agent makes of what their Zigbee2MQTT says."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from edge_agent.sources.decoders.decoder import Message
from edge_agent.sources.decoders.zigbee2mqtt import Zigbee2Mqtt
from edge_agent.sources.readings import Quantity
from edge_agent.sources.sensors import ChannelSettings, Sensors, SensorSettings
from edge_agent.sources.store import Keep, ReadingStore
from hushfleet.errors import HushfleetError
from hushfleet.wire.schema import FORECAST, Schema
from hushfleet_demo.federation import Course
from hushfleet_demo.home import NEW, NOW, TASK, SimulatedHomes
from hushfleet_demo.home_assistant import rendered
from hushfleet_demo.home_devices import speech
from hushfleet_demo.home_federation import Home
from hushfleet_demo.home_life import HOUSEHOLDS, MINUTES_A_DAY, OUTSIDE, Household, live
from hushfleet_demo.home_rows import CHANNELS, HORIZON, PERIOD, SAMPLES, recording
from hushfleet_demo.home_zigbee import BASE, announced, states
from hushfleet_demo.task import Rows

BEGIN = 1_790_000_100
DAYS = 3
END = BEGIN + DAYS * 86_400
SCHEMA = Schema(bytes(16), 0, 1, 1, bytes(32), CHANNELS, 1 / PERIOD, SAMPLES, 1, 0.9, 0, FORECAST, (), 0, HORIZON)


@pytest.mark.parametrize("home", HOUSEHOLDS, ids=lambda home: home.name)
def test_people_make_the_air_worse_and_an_open_window_better(home: Household) -> None:
    life = live(home, 14 * MINUTES_A_DAY, NOW)
    for values, low, high in ((life.co2, OUTSIDE - 40, 2000), (life.temperature, 15, 28), (life.humidity, 10, 90)):
        assert low < values.min() < values.max() < high
    rise = np.diff(life.co2)
    busy = np.convolve(life.moved, np.ones(20), "same")[1:] >= 3
    assert rise[busy & ~life.opened[1:]].mean() > 0 > rise[(busy < 1) & ~life.opened[1:]].mean()
    assert rise[life.opened[1:]].mean() < -1
    assert 0.02 < life.moved.mean() < 0.5
    assert life.opened.any()
    assert np.array_equal(life.co2, live(home, 14 * MINUTES_A_DAY, NOW).co2), "every run sees the same lives"


@pytest.mark.parametrize("home", [HOUSEHOLDS[0], HOUSEHOLDS[2]], ids=["one sensor for the air", "two"])
def test_the_agent_makes_the_same_windows_of_it(home: Household, tmp_path: Path) -> None:
    spoken = speech(home, live(home, DAYS * MINUTES_A_DAY, NOW))
    decoder, quantities = Zigbee2Mqtt(BASE), dict[str, Quantity]()
    for topic, payload, retained in announced(spoken):
        described = decoder.decode(Message(topic, payload.encode(), END, retained)).quantities
        quantities |= {one.address: one for one in described}
    wanted = dict(zip(Home(spoken, BEGIN, BEGIN).addresses(), CHANNELS, strict=True))
    settings = SensorSettings(
        tuple(
            ChannelSettings(
                channel.name,
                address,
                quantities[address].unit,
                hold=9e4,
                values={text: number for number, text in enumerate(quantities[address].values)},
            )
            for address, channel in wanted.items()
        ),
        keep=Keep(days=30),
        holdout=0.0,
    )
    here, store = settings.addresses(), ReadingStore(tmp_path / "readings.db", settings.keep)
    for _, topic, payload in states(spoken, BEGIN, BEGIN, END):
        for reading in decoder.decode(Message(topic, payload.encode(), END, False)).readings:
            for channel in here.get(reading.address, ()):
                number = channel.number(reading.value)
                assert number is not None
                store.add(channel.name, reading.time, number)
    made = Sensors(settings, store).rows(SCHEMA, END).data.training
    expected = recording(home.name, spoken, BEGIN, DAYS * 86_400 // PERIOD).rows
    # The agent begins with the first sample by which every sensor has said something.
    assert len(expected) - 2 <= len(made) <= len(expected)
    same(Rows(expected.x[-len(made) :], expected.y[-len(made) :]), made.x, made.y)


def same(rows: Rows, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    assert_allclose(x, rows.x, atol=1e-5)
    assert_allclose(y, rows.y, atol=1e-5)


def test_who_joins_late_says_at_once_what_it_has_said_last() -> None:
    spoken = speech(HOUSEHOLDS[0], live(HOUSEHOLDS[0], DAYS * MINUTES_A_DAY, NOW))
    joined = BEGIN + 86_400 + 1
    first = [next(states({what: one}, BEGIN, joined, END)) for what, one in spoken.items()]
    assert [moment for moment, _, _ in first] == [joined] * len(spoken)
    later = [moment for moment, _, _ in states(spoken, BEGIN, joined, END)]
    assert later == sorted(later)


def test_six_homes_one_of_them_new_and_judging(tmp_path: Path) -> None:
    homes = SimulatedHomes()
    parts = homes.federation(tmp_path, 1, lambda _: None).plan.parts
    assert [part.role for part in parts] == ["both"] * 5 + ["participant"]
    assert [part.name for part in parts if part.judge] == [NEW]
    days = {part.name: (len(part.training or ()) * PERIOD / 86_400, len(part.aside or ())) for part in parts}
    assert {aside for _, aside in days.values()} == {4 * 288 - HORIZON}
    assert 1.9 < days.pop(NEW)[0] < 2
    assert all(15.9 < training < 16 for training, _ in days.values())


def test_templates_as_home_assistant_renders_them() -> None:
    assert rendered("{{ value_json.value }}", {"value": 771.5}) == "771.5"
    assert rendered("{{ value_json.value }}", {}) == "unknown"
    chosen = [rendered("{{ 'ON' if value_json.own else 'OFF' }}", {"own": own}) for own in (True, False)]
    assert chosen == ["ON", "OFF"]
    with pytest.raises(HushfleetError, match="does not understand"):
        rendered("{{ value_json.value * 2 }}", {"value": 1})


def test_errors_are_in_rated_values() -> None:
    rows = Rows(np.zeros((2, len(CHANNELS) * SAMPLES), np.float32), np.array([[1.0], [-1.0]], np.float32))
    # A model of zeros says the channel's mean: both rows are a standard deviation off, 250 ppm of 1000.
    assert TASK.judge(TASK.start() * 0, rows) == pytest.approx(0.25)


def test_the_rule_to_beat_stands_beside_the_forecast() -> None:
    found = SimulatedHomes().finding(TASK.start(), Course(rounds=[{"evaluation_loss": 0.12}]))
    assert found.rows[0][1].startswith("0.030, ")
    assert 0.02 < float(found.rows[1][1].split()[0]) < 0.06
