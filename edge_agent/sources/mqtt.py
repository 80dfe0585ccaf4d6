"""A feed of the owner's broker: its messages, decoded by the formats that the owner names."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from edge_agent.local_mqtt import LocalBroker, LocalMqtt
from edge_agent.sources.catalogue import Catalogue
from edge_agent.sources.decoders.decoder import Decoder, Message
from edge_agent.sources.decoders.json_topics import JsonTopic, JsonTopics
from edge_agent.sources.payloads import check_filter
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.errors import ConfigurationError, MalformedError

LONGEST_LOOK = 0.5
"""Seconds after which what else has arrived waits for the next look."""


@dataclass(frozen=True, slots=True)
class MqttFeedSettings:
    """One broker and how to read it.

    Attributes:
        kind: tells feeds apart.
        broker: where it is.
        zigbee2mqtt: the base topic of a Zigbee2MQTT.
        home_assistant: the prefix of Home Assistant's discovery topics.
        tasmota: the topic filter of Tasmota's telemetry.
        sparkplug: the group of Sparkplug B edge nodes, or + for all; needs the extra [sparkplug].
        json: topics with numbers, texts or JSON of any form.
    """

    kind: Literal["mqtt"] = "mqtt"
    broker: LocalBroker = field(default_factory=LocalBroker)
    zigbee2mqtt: str | None = None
    home_assistant: str | None = None
    tasmota: str | None = None
    sparkplug: str | None = None
    json: tuple[JsonTopic, ...] = ()

    def __post_init__(self) -> None:
        for topic in (self.zigbee2mqtt, self.home_assistant, self.tasmota, self.sparkplug):
            if topic is not None and (mistake := check_filter(topic)):
                raise ConfigurationError(f"{topic!r} is no topic; {mistake}")
        if not self._decoders():
            raise ConfigurationError("nothing to listen to; set a format such as zigbee2mqtt, or add [[feed.json]]")

    def open(self, wanted: Mapping[str, float] | None) -> "MqttFeed":
        """See `FeedDescription`; nothing that came before can be had."""
        return MqttFeed(self.broker, self._decoders(), wanted)

    def _decoders(self) -> list[Decoder]:
        """A single topic that the owner names comes first, topics with wildcards last."""
        # Three quarters of a MB, which every agent would hold whose settings name no such format.
        from edge_agent.sources.decoders.home_assistant import HomeAssistant
        from edge_agent.sources.decoders.tasmota import Tasmota
        from edge_agent.sources.decoders.zigbee2mqtt import Zigbee2Mqtt

        single = tuple(one for one in self.json if not set("+#") & set(one.topic))
        others = tuple(one for one in self.json if one not in single)
        decoders: list[Decoder] = []
        if single:
            decoders.append(JsonTopics(single))
        if self.zigbee2mqtt is not None:
            decoders.append(Zigbee2Mqtt(self.zigbee2mqtt))
        if self.tasmota is not None:
            decoders.append(Tasmota(self.tasmota))
        if self.sparkplug is not None:
            decoders.append(_sparkplug(self.sparkplug))
        if self.home_assistant is not None:
            decoders.append(HomeAssistant(self.home_assistant))
        if others:
            decoders.append(JsonTopics(others))
        return decoders


def _sparkplug(group: str) -> Decoder:
    try:
        from edge_agent.sources.decoders.sparkplug import Sparkplug
    except ModuleNotFoundError:
        raise ConfigurationError("sparkplug needs an extra: pip install 'hushfleet[sparkplug]'") from None
    return Sparkplug(group)


class MqttFeed:
    """See `Feed`.

    Args:
        broker: where to listen.
        decoders: the formats; a message goes to the first of them that listens to its topic.
        wanted: the addresses to read; None for all. A device may send late what it measured earlier.

    Raises:
        ConfigurationError: the broker's password or certificates cannot be read.
    """

    def __init__(self, broker: LocalBroker, decoders: list[Decoder], wanted: Iterable[str] | None) -> None:
        self._catalogue = Catalogue(None if wanted is None else dict.fromkeys(wanted, -math.inf))
        self._decoders = decoders
        self._link = LocalMqtt(broker)
        self._listen()

    @property
    def refused(self) -> Counter[str]:
        """See `Feed`."""
        return self._catalogue.refused + self._link.dropped

    @property
    def trouble(self) -> str | None:
        """See `Feed`."""
        return self._link.trouble

    def poll(self, now: float) -> list[Reading]:
        """See `Feed`; messages carry the time of their arrival themselves."""
        passed: list[Reading] = []
        end = time.monotonic() + LONGEST_LOOK
        while time.monotonic() < end and (message := self._link.take()) is not None:
            passed += self._decoded(message)
        self._listen()
        return passed

    def _decoded(self, message: Message) -> list[Reading]:
        place = next((place for place, one in enumerate(self._decoders) if one.covers(message.topic)), None)
        if place is None:
            return []
        try:
            decoded = self._decoders[place].decode(message)
        except MalformedError as error:
            self._catalogue.refused[str(error)] += 1
            return []
        self._catalogue.refused.update(decoded.refused)
        self._catalogue.describe(one for one in decoded.quantities if not self._is_read_before(one, place))
        return self._catalogue.take(decoded.readings)

    def quantities(self) -> list[Quantity]:
        """See `Feed`."""
        return self._catalogue.quantities()

    def close(self) -> None:
        """See `Feed`."""
        self._link.close()

    def _listen(self) -> None:
        self._link.listen(frozenset().union(*(decoder.filters for decoder in self._decoders)))

    def _is_read_before(self, quantity: Quantity, place: int) -> bool:
        """Whether a decoder before this one reads it: Zigbee2MQTT's devices are announced to Home Assistant too."""
        topic = quantity.address.partition("#")[0]
        return any(decoder.covers(topic) for decoder in self._decoders[:place])
