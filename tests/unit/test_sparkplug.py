"""Sparkplug B as a listener: payloads built by another implementation, in the orders that a real network has them."""

import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sparkplub_b_packets.core.sparkplug_b import MetricDataType, addMetric, addNullMetric
from sparkplub_b_packets.core.sparkplug_b_pb2 import Payload

from edge_agent.sources.decoders import sparkplug
from edge_agent.sources.decoders.decoder import Decoded, Message
from edge_agent.sources.decoders.sparkplug import Sparkplug
from edge_agent.sources.mqtt import MqttFeedSettings
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.errors import ConfigurationError, MalformedError

GAP = "a gap in the sequence of a Sparkplug node"
THEN = 1_700_000_000_000


class Node:
    """An edge node that numbers its messages."""

    def __init__(self, decoder: Sparkplug, name: str = "Edge1") -> None:
        self.decoder = decoder
        self.name = name
        self.sequence = 0

    def send(self, kind: str, payload: Any, device: str = "", retained: bool = False) -> Decoded:
        if kind == "NBIRTH":
            self.sequence = 0
        if kind != "NDEATH":
            payload.seq = self.sequence
            self.sequence = (self.sequence + 1) % 256
        topic = "/".join(filter(None, ("spBv1.0", "Plant", kind, self.name, device)))
        assert self.decoder.covers(topic)
        return self.decoder.decode(Message(topic, payload.SerializeToString(), 5.0, retained))

    def birth(self, number: int = 0, *metrics: tuple[Any, ...]) -> Decoded:
        payload = content(*metrics)
        addMetric(payload, "bdSeq", None, MetricDataType.Int64, number)
        return self.send("NBIRTH", payload)

    def death(self, number: int = 0) -> Decoded:
        payload = Payload()
        addMetric(payload, "bdSeq", None, MetricDataType.Int64, number)
        return self.send("NDEATH", payload)


def content(*metrics: tuple[Any, ...]) -> Any:
    """A payload of (name, alias, data type, value)."""
    payload = Payload()
    payload.timestamp = THEN + 5000
    for name, alias, kind, value in metrics:
        addMetric(payload, name, alias, kind, value, timestamp=THEN)
    return payload


@pytest.fixture
def node() -> Node:
    return Node(Sparkplug("Plant"))


TEMPERATURE = ("Inputs/Temperature", 7, MetricDataType.Double, 20.5)


def test_births_name_what_data_calls_by_alias(node: Node) -> None:
    born = node.birth(0, TEMPERATURE, ("Node Control/Rebirth", None, MetricDataType.Boolean, False))
    address = "spBv1.0/Plant/Edge1#Inputs/Temperature"
    assert list(born.readings) == [Reading(address, THEN / 1000, 20.5)]
    assert list(born.quantities) == [Quantity(address)]
    payload = content(("Pump/Speed", 8, MetricDataType.Int32, -3), ("Pump/On", 9, MetricDataType.Boolean, True))
    device = node.send("DBIRTH", payload, "Pump1")
    assert list(device.quantities)[1].values == ("false", "true")
    data = node.send("NDATA", content((None, 7, MetricDataType.Double, 21.0)))
    assert list(data.readings) == [Reading(address, THEN / 1000, 21.0)]
    data = node.send(
        "DDATA", content((None, 8, MetricDataType.Int32, -4), (None, 9, MetricDataType.Boolean, False)), "Pump1"
    )
    assert [(one.address, one.value) for one in data.readings] == [
        ("spBv1.0/Plant/Edge1/Pump1#Pump/Speed", -4.0),
        ("spBv1.0/Plant/Edge1/Pump1#Pump/On", "false"),
    ]
    assert list(data.refused) == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (MetricDataType.Int8, -128),
        (MetricDataType.Int16, -2),
        (MetricDataType.Int32, -(2**31)),
        (MetricDataType.Int64, -(2**62)),
        (MetricDataType.UInt8, 255),
        (MetricDataType.UInt16, 65_535),
        (MetricDataType.UInt32, 2**32 - 1),
        (MetricDataType.UInt64, 2**63),
        (MetricDataType.Float, 0.5),
        (MetricDataType.Double, -1e300),
        (MetricDataType.Boolean, True),
        (MetricDataType.String, "running"),
        (MetricDataType.Text, "on"),
    ],
)
def test_every_data_type_of_one_value(node: Node, kind: int, value: Any) -> None:
    (reading,) = node.birth(0, ("x", 1, kind, value)).readings
    assert reading.value == ("true" if value is True else value)


def test_a_small_signed_number_in_full_width_is_read_too(node: Node) -> None:
    # Some senders extend the sign to all 32 bits of the field.
    payload = content(("x", 1, MetricDataType.Int8, 0))
    payload.metrics[0].int_value = 2**32 - 5
    (reading,) = node.send("NBIRTH", payload).readings
    assert reading.value == -5.0


def test_units_and_ranges_are_properties(node: Node) -> None:
    payload = content(TEMPERATURE)
    said = payload.metrics[0].properties
    for key, name, value in (
        ("engUnit", "string_value", "°C"),
        ("engLow", "int_value", 3),
        ("engHigh", "double_value", 85.5),
    ):
        said.keys.append(key)
        setattr(said.values.add(), name, value)
    (quantity,) = node.send("NBIRTH", payload).quantities
    assert (quantity.unit, quantity.low, quantity.high) == ("°C", 3.0, 85.5)


@pytest.mark.parametrize(("code", "used"), [(192, True), (0, False), (500, False)])
def test_what_its_node_calls_bad_or_stale_is_not_read_and_counted(node: Node, code: int, used: bool) -> None:
    node.birth(0, TEMPERATURE)
    payload = content((None, 7, MetricDataType.Double, 21.0))
    payload.metrics[0].properties.keys.append("Quality")
    quality = payload.metrics[0].properties.values.add()
    quality.type, quality.int_value = MetricDataType.Int32, code
    data = node.send("NDATA", payload)
    assert [one.value for one in data.readings] == [21.0] * used
    assert list(data.refused) == ([] if used else ["a Sparkplug metric that its node calls bad or stale"])


def test_an_alias_means_the_metric_of_the_device_that_sends_it(node: Node) -> None:
    """Though a node may not use one twice."""
    node.birth(0, TEMPERATURE)
    node.send("DBIRTH", content(("Pump/Speed", 7, MetricDataType.Double, 3.0)), "Pump1")
    (own,) = node.send("NDATA", content((None, 7, MetricDataType.Double, 21.0))).readings
    (speed,) = node.send("DDATA", content((None, 7, MetricDataType.Double, 4.0)), "Pump1").readings
    assert own.address.endswith("Edge1#Inputs/Temperature")
    assert speed.address.endswith("Pump1#Pump/Speed")
    node.send("DDEATH", Payload(), "Pump1")
    assert len(node.send("NDATA", content((None, 7, MetricDataType.Double, 22.0))).readings) == 1
    assert not node.send("DDATA", content((None, 7, MetricDataType.Double, 5.0)), "Pump1").readings


def test_nothing_is_understood_before_a_birth_or_after_a_death(node: Node) -> None:
    unread = "data of a Sparkplug node whose birth was not seen"
    with pytest.raises(MalformedError, match=unread):
        node.send("NDATA", content(TEMPERATURE))
    node.birth(3, TEMPERATURE)
    node.send("DBIRTH", content(("y", 9, MetricDataType.Float, 1.0)), "D")
    assert node.send("DDATA", content((None, 9, MetricDataType.Float, 2.0)), "D").readings
    node.send("DDEATH", Payload(), "D")
    assert not node.send("DDATA", content((None, 9, MetricDataType.Float, 2.0)), "D").readings
    assert node.send("NDATA", content((None, 7, MetricDataType.Double, 2.0))).readings
    node.death(3)
    with pytest.raises(MalformedError, match=unread):
        node.send("NDATA", content(TEMPERATURE))


def test_the_will_of_an_earlier_connection_ends_nothing(node: Node) -> None:
    node.birth(1, TEMPERATURE)
    node.birth(2, TEMPERATURE)
    node.death(1)
    assert node.send("NDATA", content((None, 7, MetricDataType.Double, 2.0))).readings


def test_a_rebirth_gives_aliases_anew(node: Node) -> None:
    node.birth(0, TEMPERATURE)
    node.birth(0, ("Flow", 7, MetricDataType.Float, 1.0))
    (reading,) = node.send("NDATA", content((None, 7, MetricDataType.Float, 2.0))).readings
    assert reading.address.endswith("#Flow")


def test_gaps_in_the_sequence_are_counted_and_read_on(node: Node) -> None:
    node.birth(0, TEMPERATURE)
    for _ in range(300):
        assert not node.send("NDATA", content((None, 7, MetricDataType.Double, 2.0))).refused
    node.sequence += 1
    data = node.send("NDATA", content((None, 7, MetricDataType.Double, 2.0)))
    assert (list(data.refused), len(data.readings)) == ([GAP], 1)
    assert not node.send("NDATA", content()).refused


def test_null_missing_and_endless_values_are_no_readings(node: Node) -> None:
    payload = content(("a", 1, MetricDataType.Float, float("inf")), ("b", 2, MetricDataType.Float, 1.0))
    payload.metrics[1].ClearField("float_value")
    addNullMetric(payload, "c", 3, MetricDataType.Int32)
    payload.metrics[-1].is_null = True
    payload.metrics[-1].int_value = 5
    born = node.send("NBIRTH", payload)
    assert (list(born.readings), list(born.refused)) == ([], ["a number that is not finite"])
    assert len(born.quantities) == 3
    assert not node.send("NDATA", content((None, 2, MetricDataType.Float, 1.0)), retained=True).readings


def test_a_network_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkplug, "MOST_NODES", 2)
    monkeypatch.setattr(sparkplug, "MOST_METRICS", 3)
    decoder = Sparkplug("+")
    for name in ("a", "b"):
        Node(decoder, name).birth(0, TEMPERATURE)
    with pytest.raises(MalformedError, match="more than 2 Sparkplug nodes"):
        Node(decoder, "c").birth(0)
    known = Node(decoder, "a")
    known.birth(0, ("x", 1, MetricDataType.Float, 1.0))
    known.send("DBIRTH", content(), "C")
    with pytest.raises(MalformedError, match="more than 3 devices and metrics"):
        known.send(
            "DBIRTH", content(*((f"y{number}", 9 + number, MetricDataType.Float, 1.0) for number in range(2))), "D"
        )


def test_a_payload_has_bounds(node: Node) -> None:
    with pytest.raises(MalformedError, match="more than 262144 bytes"):
        node.decoder.decode(Message("spBv1.0/Plant/NBIRTH/E", b"\0" * (2**18 + 1), 1.0))


def test_only_topics_of_the_group_are_heard() -> None:
    decoder = Sparkplug("Plant")
    topics = ["NBIRTH/E", "DDATA/E/D", "NCMD/E", "DCMD/E/D", "NDATA/E/D", "DDATA/E", "NDATA"]
    assert [decoder.covers(f"spBv1.0/Plant/{topic}") for topic in topics] == [True, True, *[False] * 5]
    assert not decoder.covers("spBv1.0/Other/NBIRTH/E")
    assert not decoder.covers("spBv1.0/STATE/host")
    assert len(decoder.filters) == 6


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edge_agent.sources.decoders.sparkplug")
    monkeypatch.setitem(sys.modules, "edge_agent.sources.decoders.sparkplug_payload", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'hushfleet\[sparkplug\]'"):
        MqttFeedSettings(sparkplug="+")


@given(st.binary(max_size=80), st.sampled_from(["NBIRTH/E", "NDATA/E", "DBIRTH/E/D", "DDATA/E/D", "NDEATH/E"]))
def test_any_bytes_are_a_payload_or_refused(noise: bytes, topic: str) -> None:
    node = Node(Sparkplug("Plant"), "E")
    node.birth(0, TEMPERATURE)
    whole = content(TEMPERATURE, ("s", 3, MetricDataType.String, "é")).SerializeToString()
    for payload in (noise, whole + noise, whole[: len(noise)] + noise + whole[len(noise) :]):
        with suppress(MalformedError):
            node.decoder.decode(Message(f"spBv1.0/Plant/{topic}", payload, 1.0))
