"""Zigbee2MQTT, Home Assistant discovery, Tasmota: messages in the forms that their documentation gives."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference import Topics, discovery
from edge_agent.sources.decoders import home_assistant, zigbee2mqtt
from edge_agent.sources.decoders.decoder import Decoder, Message
from edge_agent.sources.decoders.home_assistant import HomeAssistant
from edge_agent.sources.decoders.tasmota import Tasmota
from edge_agent.sources.decoders.zigbee2mqtt import Zigbee2Mqtt
from edge_agent.sources.readings import Quantity
from hushfleet.errors import MalformedError
from hushfleet.wire.schema import Channel, Schema


def message(topic: str, content: Any, retained: bool = False) -> Message:
    payload = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Message(topic, payload, 1000.0, retained)


def found(decoder: Decoder, topic: str, content: Any) -> dict[str, float | str]:
    """The values by address."""
    assert decoder.covers(topic)
    return {reading.address: reading.value for reading in decoder.decode(message(topic, content)).readings}


# Zigbee2MQTT.

# A list as `bridge/devices` gives it: a coordinator without definition, a climate sensor in a room, a plug, a bulb.
BRIDGE: list[dict[str, Any]] = [
    {"ieee_address": "0x00124b00120144ae", "type": "Coordinator", "friendly_name": "Coordinator", "definition": None},
    {
        "ieee_address": "0x00158d00018255df",
        "type": "EndDevice",
        "friendly_name": "kitchen/sensor",
        "definition": {
            "model": "WSDCGQ11LM",
            "vendor": "Aqara",
            "description": "Temperature and humidity sensor",
            "exposes": [
                {
                    "type": "numeric",
                    "name": "temperature",
                    "property": "temperature",
                    "unit": "°C",
                    "access": 1,
                    "value_min": -20,
                    "value_max": 60,
                },
                {"type": "numeric", "name": "humidity", "property": "humidity", "unit": "%", "access": 1},
                {"type": "enum", "name": "identify", "property": "identify", "values": ["blink", "okay"], "access": 2},
                {"type": "binary", "property": "occupancy", "value_on": True, "value_off": False, "access": 1},
                {
                    "type": "list",
                    "property": "no_occupancy_since",
                    "access": 1,
                    "item_type": {"access": 3, "name": "x", "type": "numeric"},
                },
            ],
        },
    },
    {
        "friendly_name": "bulb",
        "definition": {
            "model": "7146060PH",
            "vendor": "Philips",
            "exposes": [
                {
                    "type": "light",
                    "features": [
                        {"type": "binary", "property": "state", "value_on": "ON", "value_off": "OFF", "access": 7},
                        {"type": "numeric", "property": "brightness", "value_min": 0, "value_max": 254, "access": 7},
                        {
                            "type": "composite",
                            "name": "color_xy",
                            "property": "color",
                            "features": [
                                {"type": "numeric", "property": "x", "access": 7},
                                {"type": "numeric", "property": "y", "access": 7},
                            ],
                        },
                    ],
                },
                {"type": "enum", "property": "power_on", "values": ["off", "on", "previous"], "access": 7},
            ],
        },
    },
]


@pytest.fixture
def zigbee() -> Zigbee2Mqtt:
    decoder = Zigbee2Mqtt("zigbee2mqtt")
    decoder.decode(message("zigbee2mqtt/bridge/devices", BRIDGE, retained=True))
    return decoder


def test_what_zigbee_devices_expose_is_known() -> None:
    decoded = Zigbee2Mqtt("z").decode(message("z/bridge/devices", BRIDGE, retained=True))
    assert list(decoded.quantities) == [
        Quantity("z/kitchen/sensor#/temperature", "°C", -20.0, 60.0, (), "Aqara WSDCGQ11LM"),
        Quantity("z/kitchen/sensor#/humidity", "%", about="Aqara WSDCGQ11LM"),
        Quantity("z/kitchen/sensor#/occupancy", values=("false", "true"), about="Aqara WSDCGQ11LM"),
        Quantity("z/bulb#/state", values=("OFF", "ON"), about="Philips 7146060PH"),
        Quantity("z/bulb#/brightness", None, 0.0, 254.0, (), "Philips 7146060PH"),
        Quantity("z/bulb#/color/x", about="Philips 7146060PH"),
        Quantity("z/bulb#/color/y", about="Philips 7146060PH"),
        Quantity("z/bulb#/power_on", values=("off", "on", "previous"), about="Philips 7146060PH"),
    ]


def test_states_of_zigbee_devices_are_read_where_the_name_has_slashes(zigbee: Zigbee2Mqtt) -> None:
    state = {"temperature": 27.34, "humidity": 44.7, "occupancy": True, "update": {"state": "idle"}, "identify": None}
    assert found(zigbee, "zigbee2mqtt/kitchen/sensor", state) == {
        "zigbee2mqtt/kitchen/sensor#/temperature": 27.34,
        "zigbee2mqtt/kitchen/sensor#/humidity": 44.7,
        "zigbee2mqtt/kitchen/sensor#/occupancy": "true",
    }
    assert found(zigbee, "zigbee2mqtt/bulb", {"state": "ON", "color": {"x": 0.3, "hue": 2}}) == {
        "zigbee2mqtt/bulb#/state": "ON",
        "zigbee2mqtt/bulb#/color/x": 0.3,
    }


def test_with_output_attribute_each_property_has_its_topic(zigbee: Zigbee2Mqtt) -> None:
    assert found(zigbee, "zigbee2mqtt/kitchen/sensor/temperature", b"21.5") == {
        "zigbee2mqtt/kitchen/sensor#/temperature": 21.5
    }


def test_only_states_are_read(zigbee: Zigbee2Mqtt) -> None:
    for topic in ("kitchen/sensor/set", "kitchen/sensor/availability", "bridge/state", "bridge/info", "unknown"):
        assert found(zigbee, f"zigbee2mqtt/{topic}", {"temperature": 1, "state": "online"}) == {}


def test_last_seen_is_the_time_and_lets_a_kept_state_be_read(zigbee: Zigbee2Mqtt) -> None:
    for last_seen in (1_700_000_000_000, "2023-11-14T22:13:20.000Z", "2023-11-14T23:13:20+01:00"):
        state = {"temperature": 20, "last_seen": last_seen}
        decoded = zigbee.decode(message("zigbee2mqtt/kitchen/sensor", state, retained=True))
        assert [reading.time for reading in decoded.readings] == [1_700_000_000.0]
    assert not zigbee.decode(message("zigbee2mqtt/kitchen/sensor", {"temperature": 20}, retained=True)).readings


def test_a_large_zigbee_network_is_known() -> None:
    padded = [{**device, "endpoints": {"1": "x" * 5_000}} for device in BRIDGE * 100]
    assert len(json.dumps(padded)) > 10**6
    assert len(Zigbee2Mqtt("z").decode(message("z/bridge/devices", padded)).quantities) == 800
    with pytest.raises(MalformedError, match="more than 4194304 bytes"):
        Zigbee2Mqtt("z").decode(message("z/bridge/devices", BRIDGE * 10_000))


def test_a_zigbee_network_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zigbee2mqtt, "MOST_DEVICES", 2)
    monkeypatch.setattr(zigbee2mqtt, "MOST_PROPERTIES", 3)
    exposes = [{"type": "numeric", "property": str(number), "access": 1} for number in range(9)]
    devices = [{"friendly_name": str(number), "definition": {"exposes": exposes}} for number in range(5)]
    decoded = Zigbee2Mqtt("z").decode(message("z/bridge/devices", devices))
    assert (len(decoded.quantities), decoded.refused) == (6, ["more than 2 Zigbee devices"])
    deep: Any = exposes
    for _ in range(50):
        deep = [{"type": "composite", "property": "c", "features": deep}]
    assert (
        not Zigbee2Mqtt("z")
        .decode(message("z/bridge/devices", [{"friendly_name": "a", "definition": {"exposes": deep}}]))
        .quantities
    )
    with pytest.raises(MalformedError, match="list of Zigbee devices"):
        Zigbee2Mqtt("z").decode(message("z/bridge/devices", {}))


# Home Assistant.


def announced(topic: str, content: Any) -> tuple[HomeAssistant, list[Quantity]]:
    decoder = HomeAssistant("homeassistant")
    decoded = decoder.decode(message(topic, content, retained=True))
    assert not decoded.refused
    return decoder, list(decoded.quantities)


DEVICE = {
    "device": {"identifiers": "ea334450945afc", "name": "Kitchen", "manufacturer": "Bla electronics"},
    "origin": {"name": "bla2mqtt", "sw_version": "2.1"},
    "components": {
        "some_unique_component_id1": {
            "platform": "sensor",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "value_template": "{{ value_json.temperature}}",
            "unique_id": "temp01ae_t",
        },
        "some_unique_id2": {
            "platform": "binary_sensor",
            "state_topic": "other",
            "unique_id": "x",
            "name": "Door",
            "payload_on": "open",
            "payload_off": "shut",
        },
        "button": {"platform": "button", "command_topic": "c", "unique_id": "b"},
        "gone": {"platform": "sensor"},
    },
    "state_topic": "sensorBedroom/state",
    "qos": 2,
}


def abbreviated() -> dict[str, Any]:
    text = json.dumps(DEVICE)
    for long, short in (
        ("device", "dev"),
        ("origin", "o"),
        ("components", "cmps"),
        ("platform", "p"),
        ("unit_of_measurement", "unit_of_meas"),
        ("value_template", "val_tpl"),
        ("state_topic", "stat_t"),
        ("payload_on", "pl_on"),
        ("payload_off", "pl_off"),
        ("unique_id", "uniq_id"),
    ):
        text = text.replace(f'"{long}"', f'"{short}"')
    assert '"state_topic"' not in text
    return dict(json.loads(text))


@pytest.mark.parametrize("content", [DEVICE, abbreviated()], ids=["long", "short"])
def test_a_device_announces_its_components(content: dict[str, Any]) -> None:
    decoder, quantities = announced("homeassistant/device/ea334450945afc/config", content)
    assert [(one.address, one.unit, one.values, one.about) for one in quantities] == [
        ("sensorBedroom/state#/temperature", "°C", (), "Kitchen temperature"),
        ("other#", None, ("shut", "open"), "Kitchen Door"),
    ]
    assert {"sensorBedroom/state", "other"} <= decoder.filters
    assert found(decoder, "other", b"open") == {"other#": "open"}
    assert decoder.filters >= {"homeassistant/+/+/config", "homeassistant/+/+/+/config"}


def test_a_single_component_with_a_base_topic() -> None:
    decoder, (quantity,) = announced(
        "homeassistant/number/garden/pump/config",
        {"~": "garden", "name": "Pump", "stat_t": "~/pump/state", "cmd_t": "~/set", "min": 0, "max": 9.5},
    )
    assert (quantity.address, quantity.low, quantity.high) == ("garden/pump/state#", 0.0, 9.5)
    assert found(decoder, "garden/pump/state", b"4") == {"garden/pump/state#": 4.0}
    _, (other,) = announced("homeassistant/sensor/x/config", {"~": "/state", "stat_t": "a~"})
    assert other.address == "a/state#"


def test_what_agents_announce_is_not_read() -> None:
    rules = Schema(
        bytes(16), 0, 1, 1, bytes(32), (Channel("t", "degC", 0.0, 1.0),), 1.0, 2, 1, 0.0, 0, "value", (), 0, 0
    )
    topics = Topics("hushfleet", "homeassistant", "pump", "hushfleet_1")
    decoder, quantities = announced(topics.config, json.loads(discovery(rules, topics)))
    assert list(quantities) == []
    assert not decoder.covers(topics.state)


def test_esphome_announces_itself_so() -> None:
    # As ESPHome's MQTT client component publishes it for a sensor, with its own state topic.
    content = {
        "unit_of_meas": "°C",
        "stat_cla": "measurement",
        "name": "Outside Temperature",
        "stat_t": "livingroom/sensor/outside_temperature/state",
        "avty_t": "livingroom/status",
        "uniq_id": "ESPsensoroutside_temperature",
        "dev": {"ids": "84f3eb1a2b3c", "name": "livingroom", "sw": "esphome v2026.6.0", "mdl": "nodemcuv2"},
    }
    decoder, (quantity,) = announced("homeassistant/sensor/livingroom/outside_temperature/config", content)
    assert quantity.unit == "°C"
    topic = "livingroom/sensor/outside_temperature/state"
    assert found(decoder, topic, b"23.8") == {f"{topic}#": 23.8}
    with pytest.raises(MalformedError, match="not finite"):
        decoder.decode(message(topic, b"nan"))


@pytest.mark.parametrize(
    ("template", "pointer"),
    [
        ("{{ value_json.temperature }}", "/temperature"),
        ("{{value_json['BME280'].Temperature}}", "/BME280/Temperature"),
        ('{{ value_json["a/b"][0] | float }}', "/a~1b/0"),
        ("{{ value_json.x | is_defined }}", "/x"),
        ("{{ value }}", ""),
        ("{{- value_json.x -}}", "/x"),
        ("{{ value_json.x * 2 }}", None),
        ("{{ value_json.x | float(0) | round(1) }}", "/x"),
        ("{{ value_json.x|int }}", "/x"),
        ("{{ value | default(none) | float(default=0) }}", ""),
        ("{{ value_json.x | float / 10 }}", None),
        ("{{ value_json.x | float(states('sensor.y')) }}", None),
        ("{{ value_json.x }} {{ value_json.y }}", None),
        ("{% if value_json.x %}1{% endif %}", None),
        ("{{ value_json.x.y() }}", None),
        ("{{ valueless }}", None),
        ("{{ value_json.x" + " " * 300 + "}}", None),
    ],
)
def test_templates_that_only_pick_a_value_are_understood(template: str, pointer: str | None) -> None:
    content = {"name": "S", "state_topic": "t", "value_template": template}
    decoder, (quantity,) = announced("homeassistant/sensor/s/config", content)
    assert quantity.readable == (pointer is not None)
    if pointer is None:
        assert "not understood" in quantity.about
        assert not decoder.covers("t")
    else:
        assert quantity.address == f"t#{pointer}"


def test_numbers_in_quotes_and_what_is_no_state() -> None:
    decoder, _ = announced(
        "homeassistant/sensor/s/config", {"state_topic": "t", "value_template": "{{ value_json.x }}"}
    )
    assert found(decoder, "t", {"x": "21.5"}) == {"t#/x": 21.5}
    nothings: tuple[object, ...] = ({"x": "unknown"}, {"x": None}, {"y": 1}, [], 3)
    for nothing in nothings:
        assert found(decoder, "t", nothing) == {}
    assert not decoder.decode(message("t", {"x": 1}, retained=True)).readings


def test_an_entity_goes_with_its_last_announcement() -> None:
    decoder, _ = announced("homeassistant/sensor/a/config", {"state_topic": "t"})
    decoder.decode(message("homeassistant/device/b/config", {"cmps": {"x": {"p": "sensor", "stat_t": "t"}}}))
    decoder.decode(message("homeassistant/sensor/a/config", b""))
    assert decoder.covers("t")
    decoder.decode(message("homeassistant/device/b/config", {"cmps": {"x": {"p": "sensor", "stat_t": "u"}}}))
    assert (decoder.covers("t"), decoder.covers("u")) == (False, True)
    decoder.decode(message("homeassistant/device/b/config", b""))
    assert "u" not in decoder.filters


def test_announcements_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_assistant, "MOST_ENTITIES", 3)
    decoder = HomeAssistant("homeassistant")
    for number in range(9):
        content = {"state_topic": "t", "value_template": f"{{{{ value_json.x{number} }}}}"}
        decoded = decoder.decode(message(f"homeassistant/sensor/{number}/config", content))
    assert decoded.refused == ["more than 3 entities"]
    assert len(found(decoder, "t", {f"x{number}": number for number in range(9)})) == 3
    for topic in ("#", "a/+", "$SYS/x", "", "a\0"):
        decoded = HomeAssistant("h").decode(message("h/sensor/s/config", {"state_topic": topic}))
        assert (decoded.refused, decoded.quantities) == (["a state topic that is none"], [])


# Tasmota.


def test_tasmota_sensors() -> None:
    decoder = Tasmota("tele/+/SENSOR")
    content = {
        "Time": "2026-11-30T12:00:00",
        "BME280": {"Temperature": 21.4, "Humidity": 50.3, "DewPoint": 10.6, "Pressure": 1013.2},
        "ENERGY": {"TotalStartTime": "2026-01-01T00:00:00", "Total": 12.3, "Power": [20, 30], "Factor": 0.98},
        "PressureUnit": "hPa",
        "TempUnit": "C",
    }
    decoded = decoder.decode(message("tele/plug/SENSOR", content))
    assert {one.address.partition("#")[2]: (one.unit, one.about) for one in decoded.quantities} == {
        "/BME280/Temperature": ("°C", "BME280"),
        "/BME280/Humidity": ("%", "BME280"),
        "/BME280/DewPoint": ("°C", "BME280"),
        "/BME280/Pressure": ("hPa", "BME280"),
        "/ENERGY/Total": ("kWh", "ENERGY"),
        "/ENERGY/Power/0": ("W", "ENERGY"),
        "/ENERGY/Power/1": ("W", "ENERGY"),
        "/ENERGY/Factor": (None, "ENERGY"),
    }
    assert {reading.time for reading in decoded.readings} == {1000.0}
    assert not decoder.decode(message("tele/plug/SENSOR", content, retained=True)).readings
    assert found(decoder, "tele/plug/SENSOR", {"ANALOG": {"A0": 5}}) == {"tele/plug/SENSOR#/ANALOG/A0": 5.0}
    for odd in ({"": 1}, {"Temperature": 1}, {"0": {"1": 2}}):
        found(decoder, "tele/plug/SENSOR", odd)
    with pytest.raises(MalformedError, match="no JSON object"):
        decoder.decode(message("tele/plug/SENSOR", [1]))


# Hostile.

VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ZIGBEE = ["friendly_name", "definition", "exposes", "features", "property", "access", "type", "values", "last_seen"]
ASSISTANT = ["components", "~", "state_topic", "value_template", "stat_t", "device", "name", "options", "min", "p"]
KEYS = st.sampled_from([*ZIGBEE, *ASSISTANT])
ANYTHING = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)
TOPICS = ["z/bridge/devices", "z/a", "h/device/a/config", "h/sensor/a/b/config", "tele/a/SENSOR"]


@given(st.lists(st.tuples(st.sampled_from(TOPICS), ANYTHING), max_size=6))
def test_nothing_brings_a_decoder_down(contents: list[tuple[str, Any]]) -> None:
    decoders: list[Decoder] = [Zigbee2Mqtt("z"), HomeAssistant("h"), Tasmota("tele/+/SENSOR")]
    for topic, content in contents:
        for decoder in decoders:
            if decoder.covers(topic):
                with suppress(MalformedError):
                    decoder.decode(message(topic, content))
