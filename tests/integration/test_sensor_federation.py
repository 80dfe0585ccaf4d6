"""Agents that make their rows of what the owner's own broker says: from sensor messages to rounds that are applied."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from broker_tools import DEADLINE
from fleet_fixture import CLASSES, COORDINATOR, Fleet
from paho.mqtt.enums import CallbackAPIVersion

from broker.local import HOST, LocalBroker
from edge_agent.sources.store import ReadingStore
from hushfleet.wire.schema import Schema, Standardised

pytestmark = pytest.mark.integration

STATES = ("empty", "one", "some", "full")
NOISELESS = "noise none: the owners signed noiseless_statistics"
TELLING = 1234.5625
"""A value that can be found again wherever it is written."""


def hushfleet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hushfleet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


class SensorFleet(Fleet):
    """Every device listens to one room of the owner's broker: CO2 in percent, degrees Fahrenheit, and who is in."""

    schema = f"""
[schema]
rate = 1.0
samples = 8
step = 4
missing = 0.25
task = "classes"
classes = {json.dumps(STATES)}
channels = [
    {{ name = "co2", unit = "ppm", low = 0.0, high = 5000.0 }},
    {{ name = "temperature", unit = "degC", low = -40.0, high = 85.0 }},
]
"""
    owner_port = 0

    def source(self, name: str) -> str:
        return f"""
[[feed]]
kind = "mqtt"
broker = {{ host = "{HOST}", port = {self.owner_port} }}

[[feed.json]]
topic = "house/{name}"
time = "/at"

[[sensors.channel]]
name = "co2"
address = "house/{name}#/co2"
unit = "ppb"

[[sensors.channel]]
name = "temperature"
address = "house/{name}#/temperature"
unit = "degF"
hold = 60

[decisions]
broker = {{ host = "{HOST}", port = {self.owner_port} }}

[sensors.label]
address = "house/{name}#/people"
values = {{ 0 = "empty", 1 = "one", 2 = "some", 3 = "full" }}
"""


class Listener:
    """Another program of the owner's, such as Home Assistant: what stands on each topic, and how often it came."""

    def __init__(self, port: int) -> None:
        self.said: dict[str, list[bytes]] = defaultdict(list)
        self._changed = threading.Condition()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.client.on_message = lambda _, __, message: self._heard(message.topic, bytes(message.payload))
        self.client.connect(HOST, port)
        self.client.subscribe([("hushfleet/#", 0), ("homeassistant/device/#", 0)])
        self.client.loop_start()

    def _heard(self, topic: str, payload: bytes) -> None:
        with self._changed:
            self.said[topic].append(payload)
            self._changed.notify_all()

    def wait_for(self, what: Callable[[dict[str, list[bytes]]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: what(self.said), DEADLINE), sorted(self.said)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Rooms:
    """Sensors that report five minutes of the past at once, and then go on once a second."""

    def __init__(self, port: int, names: list[str]) -> None:
        self._names = names
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.connect(HOST, port)
        self._client.loop_start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        now = int(time.time())
        # At once: a device describes itself as soon as it has anything.
        said = [one for moment in range(now - 300, now) for one in self._publish(moment)]
        said[-1].wait_for_publish(DEADLINE)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            self._publish(int(time.time()))

    def _publish(self, moment: int) -> list[mqtt.MQTTMessageInfo]:
        sent = []
        for number, name in enumerate(self._names):
            people = (moment // 20 + number) % CLASSES
            said = {"at": moment, "co2": 1000 * (TELLING * people + 400), "people": people}
            if moment % 30 == 0:
                said["temperature"] = 60 + 10 * people
            sent.append(self._client.publish(f"house/{name}", json.dumps(said), qos=1))
        return sent

    def close(self) -> None:
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()


def _check_statistics(fleet: SensorFleet) -> None:
    """What the fleet's readings come to, beside what the rooms said; nobody has more than a sum."""
    shown = hushfleet("coordinator", "statistics", fleet.configuration(COORDINATOR))
    assert shown.returncode == 0, shown.stderr
    assert NOISELESS in shown.stdout
    *_, told = json.loads(hushfleet("coordinator", "statistics", fleet.configuration(COORDINATOR), "--json").stdout)
    assert told["devices"] == told["labels"]["devices"] == len(fleet.devices)
    co2, temperature = told["channels"]
    # 0 to 3 people, each for twenty seconds in turn, over five minutes and in every room.
    assert co2["mean"] == pytest.approx(TELLING * 1.5 + 400, rel=0.1)
    assert co2["sd"] == pytest.approx(TELLING * 1.25**0.5, rel=0.1)
    assert co2["missing"] < 0.1
    assert temperature["mean"] == pytest.approx((75 - 32) / 1.8, rel=0.15)
    assert all(one["share"] == pytest.approx(0.25, abs=0.1) for one in told["labels"]["classes"].values())
    for name, said in ((COORDINATOR, f"{len(fleet.devices)} devices; {NOISELESS}"), ("part-2", "without noise")):
        role = "coordinator" if name == COORDINATOR else "agent"
        # A status is written every two seconds.
        end = time.monotonic() + DEADLINE
        while said not in (shown := hushfleet(role, "status", fleet.configuration(name))).stdout:
            assert time.monotonic() < end, shown.stdout


def test_sensor_messages_become_rows_and_rounds(tmp_path: Path, owner_broker: LocalBroker) -> None:
    SensorFleet.owner_port = owner_broker.port
    policy, rounds = {"noiseless_statistics": True}, {"collect": 8, "statistics_every": 3}
    with SensorFleet(tmp_path / "all", policy=policy, rounds=rounds) as fleet:
        rooms, home = Rooms(owner_broker.port, fleet.devices), Listener(owner_broker.port)
        try:
            fleet.bring_back(COORDINATOR, *fleet.devices)
            # Nobody has rows yet: every device says so, and the first rounds come to nothing.
            fleet.wait_for(COORDINATOR, "round", outcome="aborted")
            rooms.start()
            fleet.wait_for(COORDINATOR, "round", that=lambda event: event.get("version", 0) > 0)
            # By the next time all that the rooms told has arrived.
            everyone, since = len(fleet.devices), fleet.mark()
            fleet.wait_for(COORDINATOR, "round", since, outcome="applied", statistics=NOISELESS, uploads=everyone)
            _check_statistics(fleet)
            scored = fleet.wait_for(fleet.devices[0], "score")
            assert 0 < scored["rows"] < 20
            name = fleet.devices[0]
            state, there = f"hushfleet/{name}/state", f"hushfleet/{name}/availability"
            home.wait_for(lambda said: len(said[state]) > 1 and json.loads(said[state][-1])["model"] > 0)
            told = json.loads(home.said[state][-1])
            assert told["value"] in STATES
            assert told["personalised"] in (False, True)
            assert 0.25 <= told["confidence"] <= 1
            (config,) = (topic for topic in home.said if topic.endswith(f"_{fleet.index(name)}/config"))
            assert json.loads(home.said[config][0])["state_topic"] == state
            # Home Assistant starts again, and learns of all devices again; a device that dies is offline.
            times = len(home.said[config])
            home.client.publish("homeassistant/status", b"online")
            home.wait_for(lambda said: len(said[config]) > times)
            assert home.said[there][-1] == b"online"
            fleet.kill(name)
            home.wait_for(lambda said: said[there][-1] == b"offline")
            assert fleet.stop("part-2") == [0]
            home.wait_for(lambda said: said["hushfleet/part-2/availability"][-1] == b"offline")
            tested = hushfleet("agent", "test", fleet.configuration("part-2"), "--seconds", "4")
        finally:
            rooms.close()
            home.close()
        kept = ReadingStore.beside(fleet.state("part-2") / "readings.db")
        assert len(kept.readings("co2")[0]) >= 300
        assert len(kept.readings("label/full")[0]) > 0
        page = tmp_path / "report.html"
        reported = hushfleet("agent", "report", fleet.configuration("part-2"), "--html", page)
        assert reported.returncode == 0, reported.stderr
        assert "<h2>temperature <small>degC" in page.read_text()
        settings = fleet.configuration("part-2")
        wrong = settings.with_name("wrong.toml")
        wrong.write_text(settings.read_text().replace('unit = "degF"', 'unit = "hPa"'))
        checked = hushfleet("agent", "check", wrong)
        assert checked.returncode == 2
        assert "channel 'temperature': 'hPa' cannot be converted to 'degC'" in checked.stderr
        assert hushfleet("agent", "check", settings).returncode == 0
        shown = hushfleet("agent", "status", fleet.configuration("part-2")).stdout
        assert re.search(r"decisions +\d+ told|sensors +co2: ", shown), shown
        assert tested.returncode == 0, tested.stdout + tested.stderr
        assert "reading sensors for 4 s" in tested.stdout
        co2, temperature = (
            re.split(r"  +", tested.stdout.split(name)[1].split("\n")[0]) for name in ("\nco2", "\ntemperature")
        )
        assert co2[1] == "house/part-2#/co2"
        assert (int(co2[2]) >= 2, co2[3].endswith(" ppm"), co2[4]) == (True, True, co2[2])
        assert temperature[1] == "house/part-2#/temperature"
        assert re.search(r"rows +\d\d to train on, \d+ kept aside", tested.stdout)
        told_of_all = "\n".join(fleet.lines())
        assert f"{TELLING}"[:6] not in told_of_all
        assert re.search(r'"event": "(not-)?personalised"', told_of_all)


def test_what_statistics_say_is_signed_and_learned_from(tmp_path: Path, owner_broker: LocalBroker) -> None:
    """The owners take over the fleet's means and deviations, under a new model name; all train on that scale then."""
    SensorFleet.owner_port = owner_broker.port
    policy, rounds = {"noiseless_statistics": True}, {"collect": 8, "statistics_every": 1000}
    with SensorFleet(tmp_path / "all", participants=0, policy=policy, rounds=rounds) as fleet:
        rooms, name = Rooms(owner_broker.port, fleet.devices), fleet.devices[0]
        try:
            fleet.bring_back(COORDINATOR, *fleet.devices)
            fleet.wait_for(COORDINATOR, "round", outcome="aborted")
            rooms.start()
            fleet.wait_for(COORDINATOR, "round", outcome="applied", statistics=NOISELESS)
        finally:
            rooms.close()
        said = hushfleet("coordinator", "statistics", fleet.configuration(COORDINATOR), "--schema")
        assert said.returncode == 0, said.stderr
        rules = fleet.owner / "fleet.toml"
        text = re.sub(r"channels = \[\n.*\n\]\n", lambda _: said.stdout, rules.read_text(), flags=re.DOTALL)
        rules.write_text(text.replace('[model]\nname = "small"', '[model]\nname = "standardised"'))
        signed = hushfleet("fleet", "sign", fleet.owner)
        assert signed.returncode == 0, signed.stderr
        fleet.processes[COORDINATOR].signal(signal.SIGHUP)
        fleet.wait_for(COORDINATOR, "round", fleet.mark(), outcome="applied", version=0, statistics=NOISELESS)
        # One of four classes is right in a quarter of the windows by chance.
        fleet.wait_for(COORDINATOR, "round", fleet.mark(), that=lambda event: event.get("accuracy", 0) > 0.7)
        assert fleet.stop(name) == [0]
        known = json.loads((fleet.state(name) / "status.json").read_text())["schema"]
        co2, temperature = Schema.from_body(bytes.fromhex(known)).channels
        assert isinstance(co2, Standardised)
        assert isinstance(temperature, Standardised)
        assert f"mean = {co2.mean:g}, sd = {co2.sd:g}" in said.stdout
        assert 0 < co2.sd < TELLING * 2
