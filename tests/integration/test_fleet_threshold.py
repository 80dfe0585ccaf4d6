"""An alarm by the whole fleet's threshold: from readings to a masked statistics round and back to the owner."""

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from broker_tools import DEADLINE
from fleet_fixture import COORDINATOR, Fleet
from paho.mqtt.enums import CallbackAPIVersion
from test_sensor_federation import Listener, hushfleet

from broker.local import HOST, LocalBroker
from edge_agent.sources.sensors import readings_path
from edge_agent.sources.store import Keep, ReadingStore

pytestmark = pytest.mark.integration

RATE, SAMPLES = 4.0, 8
WATCHED = "both-1"


def level(moment: float) -> float:
    """A pump's ordinary day: up and down in five seconds."""
    return 50 + 30 * math.sin(2 * math.pi * moment / 5)


class PumpFleet(Fleet):
    """Every device watches a pump and learns to write its windows anew from two numbers."""

    layers = (f'{{ in = {SAMPLES}, out = 2, act = "none" }}', f'{{ in = 2, out = {SAMPLES}, act = "none" }}')
    schema = f"""
[schema]
rate = {RATE}
samples = {SAMPLES}
step = 1
missing = 0.25
task = "anomaly"
channels = [{{ name = "level", unit = "cm", low = 0.0, high = 100.0 }}]
"""
    owner_port = 0

    def source(self, name: str) -> str:
        broker = f'broker = {{ host = "{HOST}", port = {self.owner_port} }}'
        return f"""
[[feed]]
kind = "mqtt"
{broker}

[[feed.json]]
topic = "pump/{name}"
time = "/at"

[[sensors.channel]]
name = "level"
address = "pump/{name}#/level"
unit = "cm"

[decisions]
{broker}
alarm = 0.95
"""

    def keep_past(self, name: str, now: float) -> None:
        """Two minutes of readings, as an agent has kept them."""
        path = readings_path(self.store_path(name))
        path.parent.mkdir(mode=0o700)
        store = ReadingStore(path, Keep())
        for number in range(int(120 * RATE)):
            moment = now - 120 + number / RATE
            store.add("level", moment, level(moment))
        store.close()


class Pump:
    """Reports four times a second; out of order, it trembles."""

    def __init__(self, port: int, name: str) -> None:
        self.broken = threading.Event()
        self._topic, self._ended = f"pump/{name}", threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.connect(HOST, port)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(1 / RATE):
            moment, number = time.time(), number + 1
            said = 95.0 * (number % 2) if self.broken.is_set() else level(moment)
            self._client.publish(self._topic, json.dumps({"at": moment, "level": said}), qos=1)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()


def test_an_odd_window_is_above_the_threshold_of_the_whole_fleet(tmp_path: Path, owner_broker: LocalBroker) -> None:
    PumpFleet.owner_port = owner_broker.port
    policy = {"noiseless_statistics": True, "clip": 20.0}
    rounds = {"statistics_every": 1, "total": 2, "steps": 200, "batch": 32, "rate": 0.1}
    with PumpFleet(tmp_path / "all", both=4, participants=0, policy=policy, rounds=rounds) as fleet:
        for name in fleet.devices:
            fleet.keep_past(name, time.time())
        home, pump = Listener(owner_broker.port), Pump(owner_broker.port, WATCHED)
        state = f"hushfleet/{WATCHED}/state"

        def told() -> list[dict[str, Any]]:
            return [json.loads(payload) for payload in home.said[state]]

        try:
            fleet.bring_back(COORDINATOR, *fleet.devices)
            home.wait_for(lambda said: any("threshold" in one and not one["alarm"] for one in told()))
            pump.broken.set()
            home.wait_for(lambda said: told()[-1].get("alarm", False))
            (config,) = (topic for topic in home.said if topic.endswith(f"_{fleet.index(WATCHED)}/config"))
            announced = json.loads(home.said[config][-1])["components"]["alarm"]
        finally:
            pump.close()
            home.close()
        odd = told()[-1]
        # The status is written every two seconds; a newer round may have opened since.
        end = time.monotonic() + DEADLINE
        while "held against how model version" not in hushfleet("agent", "status", fleet.configuration(WATCHED)).stdout:
            assert time.monotonic() < end
        page = tmp_path / "report.html"
        assert hushfleet("agent", "report", fleet.configuration(WATCHED), "--html", page).returncode == 0
        assert f"in the fleet: {len(fleet.devices)} devices, each counts once" in page.read_text()
        assert odd["value"] > odd["threshold"]
        assert all("alarm" in one or "threshold" not in one for one in told())
        assert announced["device_class"] == "problem"
        shown = hushfleet("coordinator", "statistics", fleet.configuration(COORDINATOR), "--json")
        rounds_told = {one["model"]["version"]: one for one in json.loads(shown.stdout)}
        judged = rounds_told[odd["judged"]]["model"]
        assert judged["devices"] == len(fleet.devices)
        assert judged["quantiles"]["0.95"] == pytest.approx(odd["threshold"], rel=1e-4)
