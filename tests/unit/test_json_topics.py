"""Numbers, texts and JSON on topics that the owner names; and what a feed keeps of it."""

from pathlib import Path

import pytest

from edge_agent.discovery import proposal, rate, table
from edge_agent.settings import AgentSettings
from edge_agent.sources import catalogue
from edge_agent.sources.catalogue import Catalogue
from edge_agent.sources.decoders.decoder import Message
from edge_agent.sources.decoders.json_topics import JsonTopic, JsonTopics
from edge_agent.sources.readings import Quantity, Reading
from edge_agent.sources.sensors import ChannelSettings, SensorSettings
from hushfleet.configuration import load
from hushfleet.errors import ConfigurationError


def test_every_value_of_a_document_is_found() -> None:
    decoder = JsonTopics((JsonTopic("plant/+/status"),))
    payload = b'{"pump": {"on": true, "amps": [1.5, 2]}, "a/b": "idle"}'
    decoded = decoder.decode(Message("plant/3/status", payload, 100.0))
    assert list(decoded.readings) == [
        Reading("plant/3/status#/pump/on", 100.0, "true"),
        Reading("plant/3/status#/pump/amps/0", 100.0, 1.5),
        Reading("plant/3/status#/pump/amps/1", 100.0, 2.0),
        Reading("plant/3/status#/a~1b", 100.0, "idle"),
    ]
    assert decoder.filters == {"plant/+/status"}
    assert decoder.covers("plant/4/status")
    assert not decoder.covers("plant/4")


def test_pointers_units_and_the_time_are_the_owners() -> None:
    topic = JsonTopic("meter", ("/power", "/none"), time="/at", units={"/power": "W"})
    decoded = JsonTopics((topic,)).decode(Message("meter", b'{"at": 1700000000000, "power": 230, "junk": 1}', 5.0))
    assert list(decoded.readings) == [Reading("meter#/power", 1_700_000_000.0, 230.0)]
    assert list(decoded.quantities) == [Quantity("meter#/power", "W")]


def test_a_time_without_a_zone_is_of_the_one_that_is_named() -> None:
    for zone, seconds in (("UTC", 0), ("Asia/Tokyo", 9 * 3600)):
        decoder = JsonTopics((JsonTopic("meter", ("/x",), time="/at", zone=zone),))
        (reading,) = decoder.decode(Message("meter", b'{"at": "2023-11-14T22:13:20", "x": 1}', 5.0)).readings
        assert reading.time == 1_700_000_000.0 - seconds
    with pytest.raises(ConfigurationError, match="'Mars' is not known here"):
        JsonTopic("meter", zone="Mars")


def test_a_plain_number_stands_at_the_empty_pointer() -> None:
    decoded = JsonTopics((JsonTopic("t", units={"": "°C"}),)).decode(Message("t", b"21.5", 5.0))
    assert list(decoded.readings) == [Reading("t#", 5.0, 21.5)]
    assert list(decoded.quantities) == [Quantity("t#", "°C")]


def test_a_quoted_number_is_a_number_and_a_comma_is_none() -> None:
    decoder = JsonTopics((JsonTopic("meter"),))
    decoded = decoder.decode(Message("meter", b'{"power": "230.5", "state": "ON", "flow": "21,5"}', 5.0))
    assert [one.value for one in decoded.readings] == [230.5, "ON", "21,5"]


def test_what_the_broker_had_kept_is_no_measurement_unless_it_says_when() -> None:
    kept = Message("t", b'{"at": 1700000000, "x": 1}', 1_800_000_000.0, retained=True)
    without = JsonTopics((JsonTopic("t", ("/x",)),)).decode(kept)
    assert (len(without.readings), len(without.quantities)) == (0, 1)
    timed = JsonTopics((JsonTopic("t", ("/x",), time="/at"),)).decode(kept)
    assert [reading.time for reading in timed.readings] == [1_700_000_000.0]


def test_no_repr_shows_what_was_measured() -> None:
    assert "4711" not in repr(Reading("a", 0.0, 4711.0))
    assert "4711" not in repr(Message("a", b"4711", 0.0))


def test_a_catalogue_counts_rates_and_passes_what_is_wanted() -> None:
    every = Catalogue(None)
    every.take(Reading("a", float(time), 1.0) for time in range(11))
    every.take([Reading("b", 3.0, "ON")])
    assert every.quantities() == [Quantity("a", rate=1.0), Quantity("b", about="texts")]
    picky = Catalogue({"a": 1.0})
    assert picky.take([Reading("b", 2.0, 1.0), Reading("a", 1.0, 1.0), Reading("a", 2.0, 1.0)]) == [
        Reading("a", 2.0, 1.0)
    ]
    picky.describe([Quantity("b", "V")])
    assert [quantity.address for quantity in picky.quantities()] == ["a"]


def test_a_catalogue_is_bounded_and_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "LARGEST_CATALOGUE", 10)
    kept = Catalogue(None)
    passed = kept.take(Reading(str(number), 0.0, 1.0) for number in range(1000))
    assert (len(passed), len(kept.quantities())) == (10, 10)
    assert kept.take([Reading("\x1b[2J", 0.0, 1.0), Reading("x" * 513, 0.0, 1.0)]) == []
    assert kept.refused == {
        "more than 10 quantities": 990,
        "an address that is not printable or longer than 512 characters": 2,
    }
    kept.describe([Quantity("1", "\x07", values=("ON", "\x07"), about="a\x1bb" * 100)])
    quantity = next(quantity for quantity in kept.quantities() if quantity.address == "1")
    assert (quantity.unit, quantity.values, quantity.about) == (None, ("ON",), "ab" * 40)


def test_the_table_and_the_proposal_are_for_people(tmp_path: Path) -> None:
    found = [
        Quantity("kitchen#/temperature", "°C", -40.0, 85.0, about="Aqara", rate=0.1),
        Quantity('say "x"#', None, values=("OFF", "ON"), rate=50.0),
        Quantity("door#/lock", high=1.5),
    ]
    assert list(table(found)) == [
        "address               unit  range or values  rate         about",
        "kitchen#/temperature  °C    -40 to 85        every 10 s   Aqara",
        'say "x"#                    OFF | ON         50 a second',
        "door#/lock                  ? to 1.5",
    ]
    assert rate(None) == ""
    file = tmp_path / "agent.toml"
    file.write_text(
        "\n".join(proposal([*found, Quantity("x", readable=False)], set())).replace("sensors.channel", "channel")
    )
    channels = load(file, SensorSettings).channel
    assert channels == (
        ChannelSettings("temperature", "kitchen#/temperature", "degC", hold=30.0),
        ChannelSettings('say "x"', 'say "x"#', hold=0.06, values={"OFF": 0.0, "ON": 1.0}),
        ChannelSettings("lock", "door#/lock"),
    )


def test_no_name_is_proposed_twice() -> None:
    addresses = [
        "livingroom/sensor/pressure/state#",
        "livingroom/sensor/temperature/state#",
        "zigbee2mqtt/plug#/state",
        "tele/a/SENSOR#/BME280/Temperature",
        "tele/a/SENSOR#/DS18B20/Temperature",
        "tele/b/SENSOR#/DS18B20/Temperature",
        "x#/label",
        "label",
    ]
    taken = {"label"}
    lines = list(proposal([Quantity(address) for address in addresses], taken))
    assert [line for line in lines if line.startswith("name")] == [
        'name = "pressure"',
        'name = "temperature"',
        'name = "plug"',
        'name = "Temperature"',
        'name = "DS18B20 Temperature"',
        'name = "SENSOR DS18B20 Temperature"',
        'name = "x label"',
        'name = "label 2"',
    ]
    assert len(taken) == 9


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('kind = "mqtt"', "nothing to listen to"),
        ('kind = "mqqt"', r"feed\[0\]\.kind: 'mqqt' is unknown"),
        ('kind = "mqtt"\nzigbee2mqtt = "a/#/b"', "is no topic; a wildcard"),
        ('host = "x"', r"feed\[0\]\.kind: missing; known: csv, iio, influx"),
        ("kind = 3", r"feed\[0\]\.kind: expected one of"),
        ('kind = "mqtt"\n[[feed.json]]\ntopic = "a/#/b"', "no topic filter"),
        ('kind = "mqtt"\n[[feed.json]]\ntopic = "a"\npointers = ["x"]', "no JSON pointer; begin it with /"),
        ('kind = "mqtt"\nbroker = { password_file = "x" }\n[[feed.json]]\ntopic = "a"', "a password needs a user"),
    ],
)
def test_mistakes_in_a_feeds_settings_are_named(tmp_path: Path, lines: str, complaint: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'bundle = "b"\nvault = "v"\n[[feed]]\n{lines}')
    with pytest.raises(ConfigurationError, match=complaint):
        load(file, AgentSettings)
