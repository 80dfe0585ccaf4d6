"""Zigbee2MQTT: devices from `bridge/devices`, their properties from `exposes`, values from their state messages.

Written after Zigbee2MQTT's documentation, "MQTT topics and messages" and "Exposes". A friendly name may hold slashes:
only the list of devices tells where a topic's name ends.
"""

from collections.abc import Iterator
from typing import Any

from edge_agent.sources.decoders.decoder import LARGEST_MESSAGE, Decoded, Message
from edge_agent.sources.payloads import (
    DEEPEST_VALUE,
    at,
    escape,
    list_of,
    moment,
    number_of,
    parse_json,
    plain_value,
    table_of,
    text_of,
    texts_of,
    values,
)
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.errors import MalformedError

MOST_DEVICES = 512
MOST_PROPERTIES = 128
"""Of one network and of one device; more are not read."""
_PUBLISHED = 0b001


class Zigbee2Mqtt:
    """Decodes one Zigbee2MQTT.

    Args:
        base: its base topic.
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._pointers: dict[str, tuple[str, ...]] = {}

    @property
    def filters(self) -> frozenset[str]:
        """See `Decoder`."""
        return frozenset({f"{self._base}/#"})

    def covers(self, topic: str) -> bool:
        """See `Decoder`."""
        return topic.startswith(f"{self._base}/")

    def decode(self, message: Message) -> Decoded:
        """See `Decoder`."""
        name = message.topic.removeprefix(f"{self._base}/")
        if name == "bridge/devices":
            return self._learn(message)
        if name in self._pointers:
            return self._state(message, name)
        device, _, attribute = name.rpartition("/")
        if f"/{escape(attribute)}" in self._pointers.get(device, ()):
            return self._attribute(message, device, attribute)
        return Decoded()

    def _learn(self, message: Message) -> Decoded:
        devices = parse_json(message.payload, LARGEST_MESSAGE)
        if not isinstance(devices, list):
            raise MalformedError("a list of Zigbee devices that is none")
        self._pointers = {}
        quantities: list[Quantity] = []
        for device in devices[:MOST_DEVICES]:
            name = text_of(table_of(device).get("friendly_name"))
            definition = table_of(table_of(device).get("definition"))
            if not name:
                continue
            about = " ".join(filter(None, (text_of(definition.get(key)) for key in ("vendor", "model"))))
            found: dict[str, Quantity] = {}
            for pointer, exposed in _exposed(definition.get("exposes"), "", 0):
                if len(found) < MOST_PROPERTIES:
                    found[pointer] = _quantity(f"{self._base}/{name}#{pointer}", exposed, about)
            self._pointers[name] = tuple(found)
            quantities += found.values()
        refused = [f"more than {MOST_DEVICES} Zigbee devices"] if len(devices) > MOST_DEVICES else []
        return Decoded(quantities=quantities, refused=refused)

    def _state(self, message: Message, name: str) -> Decoded:
        state = parse_json(message.payload)
        seen = moment(at(state, "/last_seen"))
        if message.retained and seen is None:
            return Decoded()
        found, refused = values((pointer, at(state, pointer)) for pointer in self._pointers[name])
        time = message.time if seen is None else seen
        return Decoded([Reading(f"{message.topic}#{pointer}", time, value) for pointer, value in found], (), refused)

    def _attribute(self, message: Message, device: str, attribute: str) -> Decoded:
        """With `output: attribute`, each property has a topic of its own."""
        if message.retained:
            return Decoded()
        address = f"{self._base}/{device}#/{escape(attribute)}"
        return Decoded([Reading(address, message.time, plain_value(message.payload))])


def _exposed(exposes: object, above: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property that a device publishes, with its pointer in the state."""
    for one in list_of(exposes):
        exposed = table_of(one)
        key = text_of(exposed.get("property"))
        if "features" in exposed:
            # A composite holds its features under its property; a light, a switch and the like only group theirs.
            inside = f"{above}/{escape(key)}" if key else above
            if depth < DEEPEST_VALUE:
                yield from _exposed(exposed["features"], inside, depth + 1)
        elif key and exposed.get("type") != "list" and int(number_of(exposed.get("access")) or 0) & _PUBLISHED:
            yield f"{above}/{escape(key)}", exposed


def _quantity(address: str, exposed: dict[str, Any], about: str) -> Quantity:
    taken: tuple[str, ...] = ()
    if exposed.get("type") == "binary":
        taken = texts_of([exposed.get("value_off"), exposed.get("value_on")])
    elif exposed.get("type") == "enum":
        taken = texts_of(exposed.get("values"))
    low, high = number_of(exposed.get("value_min")), number_of(exposed.get("value_max"))
    return Quantity(address, text_of(exposed.get("unit")), low, high, taken, about)
