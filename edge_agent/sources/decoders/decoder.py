"""What every decoder of MQTT messages is given and gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge_agent.sources.readings import Quantity, Reading

LARGEST_MESSAGE = 2**22
"""Bytes: the list of devices of a large Zigbee network has more than one million."""


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT message as it arrived.

    Attributes:
        topic: without wildcards.
        payload: at most `LARGEST_MESSAGE` bytes.
        time: seconds since 1970 of its arrival.
        retained: whether the broker had kept it: what it measured is older than its arrival, nobody knows by how much.
    """

    topic: str
    payload: bytes = field(repr=False)
    time: float
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a message said: of quantities, of their values, and why a part of it was dropped.

    A retained message gives readings only if it says itself when they were measured.
    """

    readings: Sequence[Reading] = ()
    quantities: Sequence[Quantity] = ()
    refused: Sequence[str] = ()


class Decoder(Protocol):
    """One format of topics and payloads."""

    @property
    def filters(self) -> frozenset[str]:
        """The topic filters to subscribe to; they may grow with what is decoded."""

    def covers(self, topic: str) -> bool:
        """Whether messages of a topic are for this decoder."""

    def decode(self, message: Message) -> Decoded:
        """What a message on a topic that it covers says.

        Raises:
            MalformedError: it is not of this format; the text holds nothing of it.
        """
