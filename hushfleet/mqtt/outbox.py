"""The queue in front of the MQTT client (docs/operations.md, messaging).

The client library queues without limit, accepts what it cannot send, and sends a message that the broker cannot take
again for ever. So it gets only what fits the window, and this queue holds the rest: in memory, because what must
survive lives in the services' stores, and they offer it again until the receiver's own receipt is here.
No I/O and no threads: the link owns it.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from hushfleet.errors import RefusedError

LONGEST_TOPIC = 65_535
"""Bytes of a topic, at most (MQTT 5, section 1.5.4)."""


@dataclass(eq=False, slots=True)
class Outgoing:
    """A message on its way.

    Attributes:
        failures: how many connections ended while it was the oldest one that the broker had not acknowledged.
    """

    topic: str
    payload: bytes = field(repr=False)
    retain: bool
    failures: int = 0

    @property
    def key(self) -> str | tuple[str, bytes]:
        """What makes a waiting message redundant: a newer retained one of its topic, or the very same message."""
        return self.topic if self.retain else (self.topic, self.payload)


class Outbox:
    """Messages in the order in which they were put, at most `window` of them in flight.

    A retained message that still waits is superseded by a newer one of its topic; the same message is not queued twice.

    Args:
        window: messages in flight, 1 to 65,535.
        largest_payload: bytes.
        attempts: after so many lost connections the same oldest message is given up.
    """

    def __init__(self, window: int, largest_payload: int, attempts: int) -> None:
        self.window = window
        self.largest_payload = largest_payload
        self._attempts = attempts
        self._waiting: OrderedDict[str | tuple[str, bytes], Outgoing] = OrderedDict()
        self._flying: dict[int, Outgoing] = {}

    def __len__(self) -> int:
        """Messages that wait or are in flight."""
        return len(self._waiting) + len(self._flying)

    @property
    def in_flight(self) -> int:
        """Messages that were taken and are neither settled nor returned."""
        return len(self._flying)

    def check(self, topic: str, payload: bytes) -> None:
        """Whether this message may be put.

        Raises:
            RefusedError: the payload is larger than allowed, or the topic is not one to publish on.
        """
        if len(payload) > self.largest_payload:
            raise RefusedError(
                f"a message of {len(payload)} bytes on {topic} exceeds the limit of {self.largest_payload}; "
                "cut it into smaller chunks"
            )
        if not 0 < len(topic.encode()) <= LONGEST_TOPIC or "+" in topic or "#" in topic or "\0" in topic:
            raise RefusedError(f"{topic!r} is not a topic to publish on")

    def put(self, topic: str, payload: bytes, retain: bool) -> None:
        """Queue a message.

        Raises:
            RefusedError: as `check`.
        """
        self.check(topic, payload)
        message = Outgoing(topic, payload, retain)
        if message.retain:
            self._waiting.pop(message.key, None)
        self._waiting.setdefault(message.key, message)

    def take(self) -> Outgoing | None:
        """The next message, now in flight; None if the window is full or nothing waits."""
        if not self._waiting or len(self._flying) >= self.window:
            return None
        _, message = self._waiting.popitem(last=False)
        self._flying[id(message)] = message
        return message

    def settle(self, message: Outgoing) -> None:
        """The broker has answered for this message, whatever the answer was."""
        del self._flying[id(message)]

    def leave_behind(self) -> list[Outgoing]:
        """Give up what waits and is not retained; what was in flight is to be rewound before."""
        gone = [message for message in self._waiting.values() if not message.retain]
        for message in gone:
            del self._waiting[message.key]
        return gone

    def rewind(self) -> Outgoing | None:
        """The connection is lost: what was in flight waits again, in front and in order.

        Returns:
            The oldest message if it was given up now; it is no longer in the queue.
        """
        flying = list(self._flying.values())
        self._flying.clear()
        dropped = None
        if flying:
            flying[0].failures += 1
            if flying[0].failures >= self._attempts:
                dropped = flying.pop(0)
        for message in reversed(flying):
            if message.key not in self._waiting:
                self._waiting[message.key] = message
                self._waiting.move_to_end(message.key, last=False)
        return dropped
