"""What a role asks its runner to do, and what it may read.

Roles are sans-I/O: events come in with the time and randomness they need, actions go out. The runner executes actions
in order; every `Save` and `Erase` of an event is committed before anything of that event leaves the process. Within one
event a role does not yet read what it writes in it.
On start a role is rebuilt from its store and says itself what it still owes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

Draw = Callable[[int], bytes]
"""A source of n random bytes: `nacl.utils.random` in the services, seeded only in tests."""


class Store(Protocol):
    """Durable records by key. A role reads through it and writes by `Save` and `Erase` alone."""

    def get(self, key: str) -> bytes | None:
        """The record, or None."""

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """All records whose key starts with `prefix`, ascending by key."""


@dataclass(frozen=True, slots=True)
class Save:
    """Write a record durably; an existing one is replaced."""

    key: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Erase:
    """Remove a record so that its bytes do not linger in the file; a missing one is no error."""

    key: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Send one MQTT message at QoS 1. An empty retained payload clears the topic."""

    topic: str
    payload: bytes = field(repr=False)
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Listen on a topic filter; retained messages arrive at once.

    Attributes:
        again: whether they come also if the broker has this subscription already.
    """

    topic: str
    again: bool = True


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop listening on a topic filter."""

    topic: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `on_wake` at this time (seconds since 1970 UTC) or soon after; several may be open, early is harmless."""

    at: float


@dataclass(frozen=True, slots=True)
class Note:
    """One structured log event; never a secret, never data.

    Attributes:
        sender: whose message caused it, if anybody can cause it at will: the journal folds such events by sender.
    """

    event: str
    fields: dict[str, object] = field(default_factory=dict)
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    """Put something where the operator finds it, as a file of that name; an existing one is replaced."""

    name: str
    content: bytes = field(repr=False)


Action = Save | Erase | Publish | Subscribe | Unsubscribe | Wake | Note | Export

RETAINED = "retained/"
"""Records under this prefix are what this process keeps on the broker, by topic; they survive both."""

RESTORED = "restored"
"""The record that a store carries when its files turn out to be a copy put in place (hushfleet/place.py). A role acts
on it, and erases it, in its first event."""


def retain(publish: Publish) -> list[Action]:
    """Publish a retained message and remember it, to publish it again whenever a broker has lost it."""
    return [Save(RETAINED + publish.topic, publish.payload), Publish(publish.topic, publish.payload, retain=True)]


def clear(topic: str) -> list[Action]:
    """Take a retained message back."""
    return [Erase(RETAINED + topic), Publish(topic, b"", retain=True)]


def retained(store: Store) -> list[Action]:
    """Everything this process keeps on the broker, to be published again."""
    return [Publish(key.removeprefix(RETAINED), payload, retain=True) for key, payload in store.scan(RETAINED)]
