"""A feed of the owner's broker: its messages, decoded by the formats that the owner names."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from edge_agent.local_mqtt import LocalBroker, LocalMqtt
from edge_agent.sources.catalogue import Catalogue
from edge_agent.sources.decoders.decoder import Decoder
from edge_agent.sources.decoders.json_topics import JsonTopic, JsonTopics
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.errors import ConfigurationError, MalformedError


@dataclass(frozen=True, slots=True)
class MqttFeedSettings:
    """One broker and how to read it.

    Attributes:
        kind: tells feeds apart.
        broker: where it is.
        json: topics with numbers, texts or JSON of any form.
        read: the addresses to read; nothing else is.
    """

    kind: Literal["mqtt"] = "mqtt"
    broker: LocalBroker = field(default_factory=LocalBroker)
    json: tuple[JsonTopic, ...] = ()
    read: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.json:
            raise ConfigurationError("nothing to listen to; name topics in [[feed.json]]")

    def open(self, wanted: frozenset[str] | None) -> "MqttFeed":
        """Begin to listen; see `MqttFeed`."""
        decoders: list[Decoder] = []
        if self.json:
            decoders.append(JsonTopics(self.json))
        return MqttFeed(self.broker, decoders, wanted)


class MqttFeed:
    """See `Feed`.

    Args:
        broker: where to listen.
        decoders: the formats; a message goes to the first of them that listens to its topic.
        wanted: the addresses to read; None for all.

    Raises:
        ConfigurationError: the broker's password or certificates cannot be read.
    """

    def __init__(self, broker: LocalBroker, decoders: list[Decoder], wanted: frozenset[str] | None) -> None:
        self._catalogue = Catalogue(wanted)
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
        for message in self._link.take():
            decoder = next((one for one in self._decoders if one.covers(message.topic)), None)
            if decoder is None:
                continue
            try:
                decoded = decoder.decode(message)
            except MalformedError as error:
                self._catalogue.refused[str(error)] += 1
                continue
            self._catalogue.refused.update(decoded.refused)
            self._catalogue.describe(decoded.quantities)
            passed += self._catalogue.take(decoded.readings)
        self._listen()
        return passed

    def quantities(self) -> list[Quantity]:
        """See `Feed`."""
        return self._catalogue.quantities()

    def close(self) -> None:
        """See `Feed`."""
        self._link.close()

    def _listen(self) -> None:
        self._link.listen(frozenset().union(*(decoder.filters for decoder in self._decoders)))
