"""Sparkplug B 3.0, as a listener: births say what there is, data follows, deaths end it. Nothing is ever published.

Written after the Eclipse Sparkplug specification 3.0. A metric is named by its birth; later messages may call it by its
alias alone. So what a node sends is understood only once its birth was seen, which is not retained: it comes when the
node starts, or when a host application asks it for a rebirth.
"""

from dataclasses import dataclass, field
from typing import Any

from edge_agent.sources.decoders.decoder import Decoded, Message
from edge_agent.sources.decoders.sparkplug_payload import parse_payload
from edge_agent.sources.payloads import LARGEST_PAYLOAD, moment, number_of, values
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.errors import MalformedError

MOST_NODES = 256
MOST_METRICS = 4096
"""Edge nodes of one feed, devices and metrics of one node."""

_NAMESPACE = "spBv1.0"
_NODE_TYPES = ("NBIRTH", "NDATA", "NDEATH")
_DEVICE_TYPES = ("DBIRTH", "DDATA", "DDEATH")
_BD_SEQ = "bdSeq"
_CONTROLS = ("Node Control/", "Device Control/", "Node Info/", "Properties/")
_SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}
"""Bits of the signed data types, which are sent as two's complement in unsigned fields."""
_UNSIGNED, _FLOATS, _BOOLEAN, _TEXTS = (5, 6, 7, 8), (9, 10), 11, (12, 14)
_UNFIT = (0, 500)
"""Quality codes of what is bad or stale; 192 is good, and so is what says nothing."""
_UNREAD = "data of a Sparkplug node whose birth was not seen; restart the node, or have its host ask for a rebirth"


@dataclass(frozen=True, slots=True)
class _Metric:
    """What a birth says of a metric: its address and its data type."""

    address: str
    kind: int


@dataclass(slots=True)
class _Node:
    """An edge node since its last birth. Devices are named as in topics, the node itself by an empty text.

    An alias is to be unique among all metrics of a node; where it is not, each device still means its own.
    """

    birth_number: int | None
    sequence: int
    names: dict[str, dict[str, _Metric]] = field(default_factory=dict)
    aliases: dict[tuple[str, int], _Metric] = field(default_factory=dict)


class Sparkplug:
    """Decodes the messages of one group of edge nodes.

    Args:
        group: its identifier, or + for all.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._nodes: dict[tuple[str, str], _Node] = {}

    @property
    def filters(self) -> frozenset[str]:
        """See `Decoder`."""
        start = f"{_NAMESPACE}/{self._group}"
        return frozenset(
            [*(f"{start}/{kind}/+" for kind in _NODE_TYPES), *(f"{start}/{kind}/+/+" for kind in _DEVICE_TYPES)]
        )

    def covers(self, topic: str) -> bool:
        """See `Decoder`."""
        levels = topic.split("/")
        return (
            len(levels) in (4, 5)
            and levels[0] == _NAMESPACE
            and self._group in ("+", levels[1])
            and levels[2] in (_NODE_TYPES if len(levels) == 4 else _DEVICE_TYPES)
        )

    def decode(self, message: Message) -> Decoded:
        """See `Decoder`."""
        if message.retained:
            # No message of this namespace may be retained; one that is says nothing of now.
            return Decoded()
        _, group, kind, name, *devices = message.topic.split("/")
        device = devices[0] if devices else ""
        if len(message.payload) > LARGEST_PAYLOAD:
            raise MalformedError(f"a payload of more than {LARGEST_PAYLOAD} bytes")
        payload = parse_payload(message.payload)
        if len(payload.metrics) > MOST_METRICS:
            raise MalformedError(f"more than {MOST_METRICS} metrics of a Sparkplug node")
        if kind == "NBIRTH":
            self._begin((group, name), payload)
        elif kind == "NDEATH":
            self._end((group, name), payload)
            return Decoded()
        node = self._nodes.get((group, name))
        if node is None:
            raise MalformedError(_UNREAD)
        refused = [] if kind == "NBIRTH" else _gap(node, payload.seq)
        if kind == "DDEATH":
            _forget(node, device)
            return Decoded(refused=refused)
        quantities: list[Quantity] = []
        if kind.endswith("BIRTH"):
            _forget(node, device)
            place = "/".join(filter(None, (_NAMESPACE, group, name, device)))
            quantities = _learn(node, device, place, payload.metrics)
        readings, dropped = _read(node, device, payload, message.time)
        return Decoded(readings, quantities, [*refused, *dropped])

    def _begin(self, key: tuple[str, str], payload: Any) -> None:
        if key not in self._nodes and len(self._nodes) >= MOST_NODES:
            raise MalformedError(f"more than {MOST_NODES} Sparkplug nodes")
        self._nodes[key] = _Node(_birth_number(payload), payload.seq)

    def _end(self, key: tuple[str, str], payload: Any) -> None:
        """A death is a will: one of an earlier connection may come after the birth of the next, and means nothing."""
        node = self._nodes.get(key)
        if node is not None and node.birth_number == _birth_number(payload):
            del self._nodes[key]


def _birth_number(payload: Any) -> int | None:
    return next((metric.long_value or metric.int_value for metric in payload.metrics if metric.name == _BD_SEQ), None)


def _gap(node: _Node, sequence: int) -> list[str]:
    expected, node.sequence = (node.sequence + 1) % 256, sequence
    return [] if sequence == expected else ["a gap in the sequence of a Sparkplug node"]


def _forget(node: _Node, device: str) -> None:
    node.names.pop(device, None)
    node.aliases = {key: metric for key, metric in node.aliases.items() if key[0] != device}


def _learn(node: _Node, device: str, place: str, metrics: Any) -> list[Quantity]:
    known = sum(1 + len(names) for names in node.names.values())
    read = [one for one in metrics if _is_read(one.datatype) and not one.name.startswith((_BD_SEQ, *_CONTROLS))]
    if known + 1 + len(read) > MOST_METRICS:
        raise MalformedError(f"more than {MOST_METRICS} devices and metrics of a Sparkplug node")
    names = node.names.setdefault(device, {})
    quantities = []
    for metric in read:
        names[metric.name] = found = _Metric(f"{place}#{metric.name}", metric.datatype)
        if metric.HasField("alias"):
            node.aliases[device, metric.alias] = found
        quantities.append(_quantity(found, metric))
    return quantities


def _quantity(found: _Metric, metric: Any) -> Quantity:
    """With the unit and range that its properties give, if they use the customary names."""
    said = dict(zip(metric.properties.keys, metric.properties.values, strict=False))
    fields = ("double_value", "float_value", "int_value", "long_value")
    low, high = (number_of(_first(said[key], *fields)) if key in said else None for key in ("engLow", "engHigh"))
    unit = said["engUnit"].string_value if "engUnit" in said else ""
    texts = ("false", "true") if found.kind == _BOOLEAN else ()
    return Quantity(found.address, unit or None, low, high, texts)


def _read(node: _Node, device: str, payload: Any, arrival: float) -> tuple[list[Reading], list[str]]:
    readings: list[Reading] = []
    refused: list[str] = []
    for metric in payload.metrics:
        named = node.names.get(device, {})
        found = named.get(metric.name) if metric.name else node.aliases.get((device, metric.alias))
        if found is None or metric.is_null:
            continue
        if _quality(metric) in _UNFIT:
            refused.append("a Sparkplug metric that its node calls bad or stale")
            continue
        time = moment(metric.timestamp) or moment(payload.timestamp) or arrival
        parts, dropped = values([("", _value(metric, found.kind))])
        refused += dropped
        readings += [Reading(found.address, time, value) for _, value in parts]
    return readings, refused


def _quality(metric: Any) -> int | None:
    said = dict(zip(metric.properties.keys, metric.properties.values, strict=False)).get("Quality")
    return None if said is None else said.int_value


def _is_read(kind: int) -> bool:
    return kind in _SIGNED or kind in _UNSIGNED or kind in _FLOATS or kind == _BOOLEAN or kind in _TEXTS


def _value(metric: Any, kind: int) -> object:
    """None if the metric has no value of its data type."""
    if kind in _FLOATS:
        return _first(metric, "float_value", "double_value")
    if kind == _BOOLEAN:
        return _first(metric, "boolean_value")
    if kind in _TEXTS:
        return _first(metric, "string_value")
    number, bits = _first(metric, "long_value", "int_value"), _SIGNED.get(kind)
    if number is None or bits is None:
        return number
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def _first(message: Any, *names: str) -> Any:
    """The first of these fields that is there."""
    return next((getattr(message, name) for name in names if message.HasField(name)), None)
