"""The feed of an owner's broker against a real Mosquitto: plain, with passwords, with TLS, gone and back."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from broker_tools import DEADLINE
from paho.mqtt.enums import CallbackAPIVersion
from sparkplub_b_packets.core.sparkplug_b import MetricDataType, addMetric
from sparkplub_b_packets.core.sparkplug_b_pb2 import Payload

from broker.local import HOST, LocalBroker, free_port
from edge_agent import local_mqtt
from edge_agent.local_mqtt import LocalBroker as Address
from edge_agent.local_mqtt import LocalMqtt
from edge_agent.sources.decoders.json_topics import JsonTopic
from edge_agent.sources.mqtt import MqttFeed, MqttFeedSettings
from edge_agent.sources.readings import Reading
from fleet.transport import create_authority, issue_broker, write_file, write_key_pair
from hushfleet.errors import ConfigurationError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """An owner's broker as it is after installing: no password, no TLS, this machine only."""
    port = free_port()
    configuration = f"listener {port} {HOST}\nallow_anonymous true\n"
    with LocalBroker(tmp_path_factory.mktemp("owner"), port, configuration) as process:
        yield process


class Device:
    """Something that publishes what it measures."""

    def __init__(self, port: int) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.connect(HOST, port)
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(DEADLINE)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def device(broker: LocalBroker) -> Iterator[Device]:
    made = Device(broker.port)
    yield made
    made.close()


def wait(happened: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def collect(feed: MqttFeed, until: str) -> list[Reading]:
    """All readings up to the first of the address `until`."""
    found: list[Reading] = []

    def ended() -> bool:
        found.extend(feed.poll(time.time()))
        return any(reading.address == until for reading in found)

    wait(ended, f"no reading of {until}")
    return found


def connected(settings: MqttFeedSettings, wanted: dict[str, float] | None = None) -> MqttFeed:
    feed = settings.open(wanted)
    wait(lambda: feed.trouble is None, "the feed does not connect")
    return feed


def on(port: int, *topics: str) -> MqttFeedSettings:
    return MqttFeedSettings(broker=Address(HOST, port), json=tuple(map(JsonTopic, topics)))


def tells(feed: MqttFeed, trouble: str) -> bool:
    return trouble in (feed.trouble or "")


def settle(feed: MqttFeed, device: Device) -> None:
    """Wait until the feed's subscriptions are in force, and nothing sent before is under way any longer."""

    def hears() -> bool:
        device.publish("settle", b"1")
        return bool(feed.poll(time.time()))

    wait(hears, "the feed hears nothing")
    device.publish("settle", b"settled")
    wait(lambda: any(reading.value == "settled" for reading in feed.poll(time.time())), "the feed hears no end")


def test_readings_arrive_in_order_with_their_rates(broker: LocalBroker, device: Device) -> None:
    feed = connected(on(broker.port, "settle", "house/#"))
    settle(feed, device)
    for number in range(20):
        device.publish("house/kitchen", b'{"temperature": %d}' % number)
    device.publish("house/end", b"x")
    found = [reading.value for reading in collect(feed, "house/end#") if reading.address.startswith("house/kitchen")]
    assert found == [float(number) for number in range(20)]
    rate = next(one.rate for one in feed.quantities() if one.address == "house/kitchen#/temperature")
    assert rate is not None
    feed.close()


def test_what_is_hostile_is_counted_and_the_rest_goes_on(broker: LocalBroker, device: Device) -> None:
    feed = connected(on(broker.port, "settle", "h/#"))
    settle(feed, device)
    for payload in (b"[" * 50_000, b"\xff", b"1e999", b"x" * (2**18 + 1), b"y" * 2**23, b'{"a": NaN}', b""):
        device.publish("h/x", payload)
    device.publish("h/" + "x" * 1100, b"1")
    device.publish("h/end", b"1")
    assert [reading.value for reading in collect(feed, "h/end#")] == [1.0]
    assert feed.refused == {
        "a JSON document nested too deeply": 1,
        "a payload that is not UTF-8": 1,
        "a number that is not finite": 2,
        "a text that is too long or cannot be printed": 1,
        "an empty payload": 1,
        "a topic of more than 1024 characters": 1,
    }
    assert feed.trouble is None
    feed.close()


def test_what_nobody_asks_for_is_not_kept_for_ever(
    broker: LocalBroker, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = connected(on(broker.port, "settle", "many/#"))
    settle(feed, device)
    monkeypatch.setattr(local_mqtt, "MOST_WAITING", 5)
    for number in range(30):
        device.publish("many/x", b"%d" % number)
    wait(lambda: feed.refused["more messages than are read"] == 25, "nothing is dropped")
    assert [reading.value for reading in feed.poll(time.time())] == [25, 26, 27, 28, 29]
    feed.close()


def test_only_what_the_owner_names_is_read(broker: LocalBroker, device: Device) -> None:
    feed = connected(on(broker.port, "own/#"), {"own/a#/x": 0.0, "own/end#": time.time() + 99})
    found: list[Reading] = []
    end = time.monotonic() + DEADLINE
    while not any(reading.address == "own/end#" for reading in found):
        assert time.monotonic() < end
        device.publish("own/a", b'{"x": 1, "secret": 2}')
        device.publish("own/end", b"1")
        found += feed.poll(time.time())
    assert {reading.address for reading in found} == {"own/a#/x", "own/end#"}
    assert [quantity.address for quantity in feed.quantities()] == ["own/a#/x", "own/end#"]
    feed.close()


def test_a_broker_that_goes_and_comes_back_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    feed = on(port, "settle").open(None)
    wait(lambda: "no broker answers at 127.0.0.1" in (feed.trouble or ""), "no trouble is told")
    with LocalBroker(tmp_path, port, f"listener {port} {HOST}\nallow_anonymous true\n") as process:
        wait(lambda: feed.trouble is None, "the feed does not connect")
        process.restart()
        wait(lambda: feed.trouble is None, "the feed does not connect again")
        device = Device(port)
        settle(feed, device)
        device.close()
    feed.close()


def test_passwords_and_tls_and_their_mistakes(tmp_path: Path) -> None:
    authority, port = create_authority("home"), free_port()
    write_file(tmp_path / "ca.pem", authority.certificate_pem, mode=0o644)
    write_key_pair(tmp_path, "broker", issue_broker(authority, [HOST]))
    passwords = tmp_path / "passwords"
    passwords.write_text("hushfleet:open sesame\n")
    subprocess.run(["mosquitto_passwd", "-U", passwords], check=True, timeout=60)
    (tmp_path / "password").write_text("open sesame\n")
    (tmp_path / "wrong").write_text("close sesame\n")
    (tmp_path / "empty").write_text("")
    lines = [
        f"listener {port} {HOST}",
        "allow_anonymous false",
        f"password_file {passwords}",
        f"user {tmp_path.owner()}",
        *(f"{key} {tmp_path / name}" for key, name in (("certfile", "broker.pem"), ("keyfile", "broker.key"))),
    ]

    def at(name: str | None, ca: str | None = "ca.pem") -> MqttFeedSettings:
        user, file = ("hushfleet", tmp_path / name) if name else (None, None)
        address = Address(HOST, port, user, file, tmp_path / ca if ca else None)
        return MqttFeedSettings(broker=address, json=(JsonTopic("#"),))

    with LocalBroker(tmp_path, port, "\n".join(lines)):
        connected(at("password")).close()
        for settings, trouble in (
            (at("wrong"), "set user and password_file"),
            (at(None), "set user and password_file"),
            (at("password", ca=None), "has the port TLS"),
        ):
            feed = settings.open(None)
            wait(partial(tells, feed, trouble), "no trouble")
            assert "sesame" not in str(feed.trouble)
            feed.close()
    with pytest.raises(ConfigurationError, match="is empty"):
        at("empty").open(None)
    with pytest.raises(ConfigurationError, match="cannot read the password file"):
        at("none").open(None)
    with pytest.raises(ConfigurationError, match="no certificate in PEM form"):
        at("password", "password").open(None)


def test_discover_lists_what_is_there_and_stores_nothing(broker: LocalBroker, device: Device, tmp_path: Path) -> None:
    device.publish("shed/meter", b'{"power": 815}', retain=True)
    config = tmp_path / "agent.toml"
    config.write_text(
        f'bundle = "b"\nvault = "v"\n[[feed]]\nkind = "mqtt"\nbroker = {{ host = "{HOST}", port = {broker.port} }}\n'
        '[[feed.json]]\ntopic = "shed/#"\nunits = { "/power" = "W" }\n'
    )
    command = [sys.executable, "-m", "hushfleet", "agent", "discover", str(config), "--seconds"]
    for seconds in ("1", "2", "4", "8", "16"):
        ended = subprocess.run([*command, seconds], capture_output=True, text=True, timeout=60)
        if "shed/meter" in ended.stdout:
            break
    assert ended.returncode == 0, ended.stderr
    assert '\nname = "power"\naddress = "shed/meter#/power"\nunit = "W"\n' in ended.stdout
    assert "815" not in ended.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.toml"]
    config.write_text(config.read_text().replace("shed/#", "shade/#"))
    # A number that is none does not listen for ever.
    assert subprocess.run([*command, "nan"], capture_output=True, text=True, timeout=60).returncode in (0, 1)
    ended = subprocess.run([*command, "3"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "0 quantities\nnothing yet; listen longer (--seconds), or correct what this feed names" in ended.stdout
    config.write_text(config.read_text().replace(str(broker.port), str(free_port())))
    ended = subprocess.run([*command, "1"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.count("feed 1, mqtt")) == (1, 1)
    assert "no broker answers" in ended.stderr


def test_zigbee2mqtt_and_home_assistant_find_their_topics_by_themselves(broker: LocalBroker, device: Device) -> None:
    exposes = [{"type": "numeric", "property": "temperature", "unit": "°C", "access": 1}]
    devices = [{"friendly_name": "attic/north", "definition": {"vendor": "V", "model": "M", "exposes": exposes}}]
    # As ESPHome announces a sensor, and as Home Assistant's documentation announces a device with all its components.
    entity: dict[str, object] = {
        "unit_of_meas": "L/min",
        "name": "Flow",
        "stat_t": "pool/sensor/flow/state",
        "avty_t": "pool/status",
    }
    entity |= {"uniq_id": "ESPsensorflow", "dev": {"ids": "84f3eb1a2b3c", "name": "pool", "sw": "esphome v2026.6.0"}}
    level = {"p": "sensor", "unit_of_meas": "cm", "val_tpl": "{{ value_json.level }}", "uniq_id": "l1"}
    whole = {"dev": {"ids": "a1"}, "o": {"name": "tank"}, "cmps": {"level": level}, "stat_t": "tank/state"}
    bridged = {"state_topic": "zigbee2mqtt/attic/north", "value_template": "{{ value_json.temperature }}"}
    device.publish("zigbee2mqtt/bridge/devices", json.dumps(devices).encode(), retain=True)
    device.publish("homeassistant/sensor/pool/flow/config", json.dumps(entity).encode(), retain=True)
    device.publish("homeassistant/device/tank/config", json.dumps(whole).encode(), retain=True)
    address = Address(HOST, broker.port)
    settings = MqttFeedSettings(
        broker=address, zigbee2mqtt="zigbee2mqtt", home_assistant="homeassistant", tasmota="tele/+/SENSOR"
    )
    feed = connected(settings)
    found: list[Reading] = []

    def all_read() -> bool:
        device.publish("homeassistant/sensor/attic/config", json.dumps(bridged).encode())
        device.publish("zigbee2mqtt/attic/north", b'{"temperature": 5}')
        device.publish("pool/sensor/flow/state", b"12.5")
        device.publish("tank/state", b'{"level": 80}')
        device.publish("tele/plug/SENSOR", b'{"ENERGY": {"Power": 7}}')
        found.extend(feed.poll(time.time()))
        return len({reading.address for reading in found}) == 4

    wait(all_read, "not everything is read")
    assert {(one.address, one.unit) for one in feed.quantities()} == {
        ("zigbee2mqtt/attic/north#/temperature", "°C"),
        ("pool/sensor/flow/state#", "L/min"),
        ("tank/state#/level", "cm"),
        ("tele/plug/SENSOR#/ENERGY/Power", "W"),
    }
    times = [reading.time for reading in found if reading.address.startswith("zigbee2mqtt")]
    assert len(times) == len(set(times)), "each message is read once, whoever announced its topic"
    feed.close()


def test_a_sparkplug_node_is_read_from_its_birth_on(broker: LocalBroker, device: Device) -> None:
    feed = connected(MqttFeedSettings(broker=Address(HOST, broker.port), sparkplug="Plant"))
    birth, data = Payload(seq=0), Payload(seq=1)
    addMetric(birth, "Speed", 1, MetricDataType.Int16, -5, timestamp=1_700_000_000_000)
    addMetric(data, None, 1, MetricDataType.Int16, -6, timestamp=1_700_000_001_000)
    found: list[Reading] = []

    def read() -> bool:
        device.publish("spBv1.0/Plant/NBIRTH/Edge", birth.SerializeToString())
        device.publish("spBv1.0/Plant/NDATA/Edge", data.SerializeToString())
        found.extend(feed.poll(time.time()))
        return len(found) >= 2

    wait(read, "nothing is read")
    address = "spBv1.0/Plant/Edge#Speed"
    assert found[:2] == [Reading(address, 1.7e9, -5.0), Reading(address, 1_700_000_001.0, -6.0)]
    feed.close()


def test_only_the_filters_asked_for_last_are_listened_to(broker: LocalBroker, device: Device) -> None:
    link = LocalMqtt(Address(HOST, broker.port))

    def hears(topic: str) -> bool:
        device.publish(topic, b"1")
        return any(message.topic == topic for message in iter(link.take, None))

    for topic in ("first", "second"):
        link.listen(frozenset({topic, "end"}))
        wait(partial(hears, topic), f"{topic} is not heard")
    for topic in ("first", "end"):
        device.publish(topic, b"last")
    heard: list[str] = []

    def ended() -> bool:
        heard.extend(message.topic for message in iter(link.take, None) if message.payload == b"last")
        return "end" in heard

    wait(ended, "the end is not heard")
    assert heard == ["end"]
    link.close()


def test_a_name_that_is_none_is_told_and_does_not_end_the_feed() -> None:
    feed = MqttFeedSettings(broker=Address("a" * 70 + ".example"), json=(JsonTopic("#"),)).open(None)
    wait(partial(tells, feed, "correct host and port"), "no trouble is told")
    feed.close()


def test_a_topic_that_the_owner_names_is_read_as_the_owner_says(broker: LocalBroker, device: Device) -> None:
    for name, template in (("a", "{{ value_json.a }}"), ("b", "{{ value_json.b * 2 }}")):
        entity = {"state_topic": "named/state", "value_template": template, "unit_of_measurement": "V"}
        device.publish(f"homeassistant/sensor/{name}/config", json.dumps(entity).encode(), retain=True)
    topics = (JsonTopic("named/state", units={"/b": "A"}), JsonTopic("named/#", ("/nothing",)))
    feed = connected(MqttFeedSettings(broker=Address(HOST, broker.port), home_assistant="homeassistant", json=topics))
    found: set[str] = set()

    def read() -> bool:
        device.publish("named/state", b'{"a": 1, "b": 2}')
        found.update(reading.address for reading in feed.poll(time.time()))
        return len(found) == 2

    wait(read, "not both are read")
    units = {one.address: one.unit for one in feed.quantities() if one.address.startswith("named")}
    assert units == {"named/state#/a": None, "named/state#/b": "A"}
    feed.close()
