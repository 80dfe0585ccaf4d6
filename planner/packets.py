"""What one device sends and receives, counted in MQTT packets, and what TLS and TCP put around them.

The packets are MQTT 5 at QoS 1 as the link exchanges them (hushfleet.mqtt.link): no properties, one topic a SUBSCRIBE.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hushfleet.mqtt.inbox import publishes

ACKNOWLEDGEMENT = 4
"""Bytes of a PUBACK that says nothing but success."""
RECORD = 22
"""Bytes that TLS 1.3 adds to a packet: header 5, type 1, tag 16. Every packet is written as a record of its own."""
SEGMENT, SEGMENT_HEADER = 1_360, 40
"""Payload of a TCP segment on a mobile link, and its IPv4 and TCP headers."""
PING = 2


@dataclass(frozen=True, slots=True)
class Count:
    """Packets and bytes, on average where a fraction.

    Attributes:
        sent, received: MQTT bytes, as the agent's link counts them.
        sent_tls, received_tls: bytes of the TCP stream: with TLS records and handshakes.
        sent_line, received_line: bytes on the line: with TCP/IP headers and TCP's acknowledgements.
        waits: round trips that the device waits for, one after the other, whatever its window.
        fetched: chunks that it fetches after a first one; as many as the window at once.
    """

    sent: float = 0.0
    received: float = 0.0
    sent_tls: float = 0.0
    received_tls: float = 0.0
    sent_line: float = 0.0
    received_line: float = 0.0
    waits: float = 0.0
    fetched: float = 0.0

    def __add__(self, other: "Count") -> "Count":
        return Count(
            self.sent + other.sent,
            self.received + other.received,
            self.sent_tls + other.sent_tls,
            self.received_tls + other.received_tls,
            self.sent_line + other.sent_line,
            self.received_line + other.received_line,
            self.waits + other.waits,
            self.fetched + other.fetched,
        )

    def __mul__(self, factor: float) -> "Count":
        return Count(
            self.sent * factor,
            self.received * factor,
            self.sent_tls * factor,
            self.received_tls * factor,
            self.sent_line * factor,
            self.received_line * factor,
            self.waits * factor,
            self.fetched * factor,
        )

    @property
    def mqtt(self) -> float:
        """MQTT bytes, both ways."""
        return self.sent + self.received

    @property
    def line(self) -> float:
        """Bytes on the line, both ways."""
        return self.sent_line + self.received_line


HANDSHAKE = Count(sent_tls=1_340, received_tls=2_760, sent_line=1_540, received_line=2_980, waits=3)
"""TCP and mutual TLS 1.3 with ECDSA P-256 and its session tickets, without CONNECT and CONNACK: counted at a relay in
front of Mosquitto 2.0.11; the headers of some five segments each way are reckoned."""


def opening(will_topic: str, will: bytes, client: str) -> Count:
    """The handshake, CONNECT with its will, session expiry and largest packet, and CONNACK."""
    properties = 1 + 5 + 5
    payload = 2 + len(client) + 1 + 2 + len(will_topic) + 2 + len(will)
    connack = 1 + 1 + 1 + 15
    return HANDSHAKE + _up(_packet(6 + 1 + 1 + 2 + properties + payload)) + _down(_packet(connack))


def send(topic: str, payload: bytes) -> Count:
    """One message published and acknowledged."""
    return _up(_publish(topic, payload)) + _down(ACKNOWLEDGEMENT)


def hear(topic: str, payload: bytes) -> Count:
    """One message received and acknowledged."""
    return _down(_publish(topic, payload)) + _up(ACKNOWLEDGEMENT)


def subscribe(topic: str) -> Count:
    """A SUBSCRIBE to one topic, and its SUBACK."""
    return _up(_packet(2 + 1 + 2 + len(topic) + 1)) + _down(_packet(2 + 1 + 1))


def unsubscribe(topic: str) -> Count:
    """An UNSUBSCRIBE from one topic, and its UNSUBACK."""
    return _up(_packet(2 + 1 + 2 + len(topic))) + _down(_packet(2 + 1 + 1))


def ping() -> Count:
    """A PINGREQ and its PINGRESP."""
    return _up(PING) + _down(PING)


def send_all(topic: Callable[[int], str], data: bytes, chunk: int) -> Count:
    """A message published in as many chunks as it takes."""
    return total(send(one.topic, one.payload) for one in publishes(topic, data, chunk))


def hear_all(topic: Callable[[int], str], data: bytes, chunk: int) -> Count:
    """A message received in as many chunks as its sender cut."""
    return total(hear(one.topic, one.payload) for one in publishes(topic, data, chunk))


def fetch(topic: Callable[[int], str], data: bytes, chunk: int) -> Count:
    """A retained message fetched by exact topic, a window of chunks at a time (edge_agent.fetch).

    Its first chunk tells how many there are; every chunk is asked for, received and let go of.
    """
    parts = list(publishes(topic, data, chunk))
    each = (subscribe(one.topic) + hear(one.topic, one.payload) + unsubscribe(one.topic) for one in parts)
    return total(each) + Count(waits=1, fetched=len(parts) - 1)


def total(counts: Iterable[Count]) -> Count:
    """Their sum."""
    return sum(counts, Count())


def _packet(remaining: int) -> int:
    """Bytes of a packet whose variable header and payload take `remaining` bytes."""
    length = 1
    while remaining >> 7 * length:
        length += 1
    return 1 + length + remaining


def _publish(topic: str, payload: bytes) -> int:
    return _packet(2 + len(topic) + 2 + 1 + len(payload))


def _up(size: int) -> Count:
    record = size + RECORD
    return Count(sent=size, sent_tls=record, sent_line=_segmented(record), received_line=SEGMENT_HEADER)


def _down(size: int) -> Count:
    record = size + RECORD
    return Count(received=size, received_tls=record, received_line=_segmented(record), sent_line=SEGMENT_HEADER)


def _segmented(size: int) -> int:
    """With the headers of the segments that it takes; TCP's acknowledgement of them is one more the other way."""
    return size + SEGMENT_HEADER * math.ceil(size / SEGMENT)
