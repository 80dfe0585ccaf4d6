"""Plain numbers, plain texts and JSON documents of any form, on topics that the owner names."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_agent.sources.decoders.decoder import Decoded, Message
from edge_agent.sources.payloads import (
    at,
    check_filter,
    check_pointer,
    leaves,
    matches,
    moment,
    parse,
    time_zone,
    values,
)
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class JsonTopic:
    """One topic filter and what is read there.

    Attributes:
        topic: an MQTT topic filter; + stands for one level, # at the end for all further ones.
        pointers: JSON pointers of the values; None for every value in the document.
        time: JSON pointer of the time of the measurement; None for the time of arrival.
        zone: time zone of dates and times that name none, as `UTC`; this device's own without it.
        units: the unit of a pointer's values.
    """

    topic: str
    pointers: tuple[str, ...] | None = None
    time: str | None = None
    zone: str | None = None
    units: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.zone is not None:
            time_zone(self.zone)
        if mistake := check_filter(self.topic):
            raise ConfigurationError(f"topic {self.topic!r} is no topic filter; {mistake}")
        for pointer in (*(self.pointers or ()), *([] if self.time is None else [self.time]), *self.units):
            if mistake := check_pointer(pointer):
                raise ConfigurationError(f"{pointer!r} is no JSON pointer; {mistake}")


class JsonTopics:
    """Decodes what arrives on the owner's topics; the first that fits says how."""

    def __init__(self, topics: tuple[JsonTopic, ...]) -> None:
        self._topics = topics

    @property
    def filters(self) -> frozenset[str]:
        """See `Decoder`."""
        return frozenset(topic.topic for topic in self._topics)

    def covers(self, topic: str) -> bool:
        """See `Decoder`."""
        return any(matches(one.topic, topic) for one in self._topics)

    def decode(self, message: Message) -> Decoded:
        """See `Decoder`."""
        topic = next(one for one in self._topics if matches(one.topic, message.topic))
        document = parse(message.payload)
        zone = None if topic.zone is None else time_zone(topic.zone)
        measured = None if topic.time is None else moment(at(document, topic.time), zone)
        time = message.time if measured is None else measured
        found, refused = values(_parts(topic, document))
        readings = [Reading(f"{message.topic}#{pointer}", time, value) for pointer, value in found]
        quantities = [Quantity(f"{message.topic}#{pointer}", topic.units.get(pointer)) for pointer, _ in found]
        return Decoded(() if message.retained and measured is None else readings, quantities, refused)


def _parts(topic: JsonTopic, document: object) -> Iterator[tuple[str, object]]:
    if topic.pointers is not None:
        yield from ((pointer, at(document, pointer)) for pointer in topic.pointers)
        return
    yield from ((pointer, part) for pointer, part in leaves(document) if pointer != topic.time)
