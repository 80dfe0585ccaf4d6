"""A broker in memory: topics, wildcards, retained messages, persistent sessions, QoS 1."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True)
class Sent:
    """One message as it reached the broker."""

    time: float
    sender: int
    topic: str
    payload: bytes
    retain: bool


@dataclass
class Session:
    """What the broker keeps of one client; while that is away, its messages wait."""

    filters: set[str] = field(default_factory=set)
    online: bool = False
    waiting: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def hears(self, topic: str) -> bool:
        """Whether one of its filters takes the topic."""
        return topic in self.filters or any(
            topic.startswith(head(pattern)) and matches(pattern, topic) for pattern in self.filters
        )


Deliver = Callable[[int, str, bytes, bool], None]
"""Puts (receiver, topic, payload, retained) on its way."""


class MemoryBroker:
    """Hands every message to everyone who listens; what was sent stays in `log`, for oracles and adversaries."""

    def __init__(self, deliver: Deliver, clock: Callable[[], float]) -> None:
        self._deliver, self._clock = deliver, clock
        self.retained: dict[str, bytes] = {}
        self.sessions: dict[int, Session] = {}
        self.log: list[Sent] = []
        self.asked: list[tuple[int, str]] = []

    def connect(self, client: int) -> bool:
        """Take a client; whether its session was still here."""
        present = client in self.sessions
        self.sessions.setdefault(client, Session()).online = True
        return present

    def flush(self, client: int) -> None:
        """Send what waited for a client."""
        session = self.sessions[client]
        waiting, session.waiting = session.waiting, []
        for topic, payload, retained in waiting:
            self._deliver(client, topic, payload, retained)

    def disconnect(self, client: int, *, keep_session: bool) -> None:
        """A client is gone."""
        if not keep_session:
            self.sessions.pop(client, None)
        elif client in self.sessions:
            self.sessions[client].online = False

    def wait(self, client: int, topic: str, payload: bytes, retained: bool) -> None:
        """A message that its receiver never acknowledged waits for it, if its session is kept."""
        if client in self.sessions:
            self.sessions[client].waiting.append((topic, payload, retained))

    def publish(self, sender: int, topic: str, payload: bytes, retain: bool) -> None:
        """Hand a message to everyone who listens."""
        self.log.append(Sent(self._clock(), sender, topic, payload, retain))
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for client, session in list(self.sessions.items()):
            if session.hears(topic):
                # The coordinator asks for the flag as it was published; nobody else looks at it.
                self._deliver(client, topic, payload, retain)

    def subscribe(self, client: int, pattern: str, again: bool = True) -> None:
        """Listen; retained messages arrive at once, with a subscription that was there already only `again`."""
        self.asked.append((client, pattern))
        if client not in self.sessions or (not again and pattern in self.sessions[client].filters):
            return
        self.sessions[client].filters.add(pattern)
        for topic in sorted(topic for topic in self.retained if topic.startswith(head(pattern))):
            if matches(pattern, topic):
                self._deliver(client, topic, self.retained[topic], True)

    def unsubscribe(self, client: int, pattern: str) -> None:
        """Stop listening."""
        if client in self.sessions:
            self.sessions[client].filters.discard(pattern)

    def wipe(self) -> None:
        """Restart empty: sessions, queues and retained messages are gone."""
        self.retained.clear()
        self.sessions.clear()


@cache
def head(pattern: str) -> str:
    """What stands before a filter's first wildcard."""
    return pattern.partition("+")[0].partition("#")[0]


def matches(pattern: str, topic: str) -> bool:
    """MQTT's topic filters."""
    parts, names = pattern.split("/"), topic.split("/")
    for position, part in enumerate(parts):
        if part == "#":
            return True
        if position >= len(names) or part not in ("+", names[position]):
            return False
    return len(parts) == len(names)
