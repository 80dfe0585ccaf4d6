"""Scores on a real broker while versions come and go: every window is told, once."""

import json
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from broker_tools import DEADLINE
from paho.mqtt.enums import CallbackAPIVersion

from broker.local import HOST, LocalBroker, free_port
from edge_agent.collector import Collector
from edge_agent.decisions import Decisions, DecisionSettings
from edge_agent.hearing import sensor_lines
from edge_agent.inference import Model
from edge_agent.local_mqtt import LocalBroker as Address
from edge_agent.score_guard import WINDOWS
from edge_agent.sources.sensors import ChannelSettings, Sensors, SensorSettings
from edge_agent.sources.store import ReadingStore
from hushfleet.journal import Journal
from hushfleet.wire.layers import Dense, Layer
from hushfleet.wire.schema import Channel, Schema

pytestmark = pytest.mark.integration

LAYERS: tuple[Layer, ...] = (Dense(2, 1),)
BEGIN, COUNT = 1_000, 2 * WINDOWS + 20


def test_no_window_is_lost_or_told_twice_while_versions_are_swapped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task: dict[str, Any] = {"task": "value", "classes": (), "target": 0, "horizon": 0}
    schema = Schema(bytes(16), 0, 1, 1, bytes(32), (Channel("flow", "L/min", 0.0, 100.0),), 1.0, 2, 1, 0.0, 0, **task)
    settings = SensorSettings((ChannelSettings("flow", "pump#flow"),))
    store = ReadingStore(tmp_path / "readings.db", settings.keep)
    values = np.random.default_rng(1).uniform(0, 100, COUNT + 2)
    for number, value in enumerate(values):
        store.add("flow", float(BEGIN + number), float(value))
    port, heard, all_heard = free_port(), list[dict[str, Any]](), threading.Event()

    def on_message(_: mqtt.Client, __: object, message: mqtt.MQTTMessage) -> None:
        heard.append(json.loads(message.payload))
        if heard[-1]["at"] == BEGIN + COUNT:
            all_heard.set()

    with LocalBroker(tmp_path, port, f"listener {port} {HOST}\nallow_anonymous true\n"):
        home = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        subscribed = threading.Event()
        home.on_subscribe = lambda *_: subscribed.set()
        home.on_message = on_message
        home.connect(HOST, port)
        home.loop_start()
        home.subscribe("hushfleet/pump/state")
        assert subscribed.wait(DEADLINE)
        journal = Journal("json")
        decisions = Decisions(DecisionSettings(Address(HOST, port)), Sensors(settings, store), "pump", "pump", journal)
        end = time.monotonic() + DEADLINE
        while trouble := decisions.step(0.0)[1]:
            assert time.monotonic() < end, trouble
            time.sleep(0.01)
        for number in range(1, COUNT + 1):
            # The first one, one that is as good, and one whose scores are others.
            if number in (1, 21, 121):
                offset = {1: 0.0, 21: 0.01, 121: 2.0}[number]
                model = Model(number, np.array([0.5, 0.5, offset], np.float32), LAYERS)
                swap = threading.Thread(target=decisions.use, args=(model, schema, []))
                swap.start()
                swap.join()
            for part in (0.5, 0.75):
                decisions.step(BEGIN + number + part)
        view = decisions.view()
        assert all_heard.wait(DEADLINE)
        decisions.close()
        home.disconnect()
        home.loop_stop()
    store.close()
    assert all(later["at"] == earlier["at"] + 1 for earlier, later in pairwise(heard))
    assert (len(heard), view["told"], view["model"]) == (COUNT, COUNT, 21)
    assert [one["model"] for one in heard] == [1] * 20 + [21] * 100 + [121] * (WINDOWS - 1) + [21]
    (back,) = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (back["event"], back["version"], back["stays"]) == ("model-back", 121, 21)
    (_, line) = sensor_lines({"sensors": None, "decisions": view}, 0.0)
    assert "went back from model version 121: " in line
    assert view["back"] == {"version": 121, "stays": 21, "why": back["why"]}


def test_decisions_that_nobody_hears_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = SensorSettings((ChannelSettings("flow", "pump#flow"),))
    store = ReadingStore(tmp_path / "readings.db", settings.keep)
    journal, port = Journal("json"), free_port()
    decisions = Decisions(DecisionSettings(Address(HOST, port)), Sensors(settings, store), "pump", "pump", journal)
    collector = Collector([], settings, store, journal, decisions.step)
    end = time.monotonic() + DEADLINE
    while "decisions" not in collector.trouble:
        assert time.monotonic() < end
        time.sleep(0.05)
    collector.close()
    decisions.close()
    (told,) = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (told["event"], told["what"]) == ("sensors-hindered", "decisions")
    assert f"no broker answers at {HOST}, port {port}; start it" in told["why"]
    lines = list(sensor_lines({"sensors": collector.view(), "decisions": None}, 0.0))
    assert lines[0].endswith("flow: 0 readings, none since the start")
    assert "MB written to the disk in" in lines[1]
    assert "no broker answers" in lines[2]
