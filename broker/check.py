"""Does this broker do what the protocol needs, and what does it still keep? (docs/operations.md)"""

import queue
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hushfleet.errors import LinkError
from hushfleet.mqtt.events import (
    Connected,
    Delivered,
    Disconnected,
    Dropped,
    IdentityInUse,
    LinkEvent,
    LinkSettings,
    Message,
    SubscriptionRefused,
    Undelivered,
)
from hushfleet.mqtt.link import Link
from hushfleet.mqtt.probe import probe

_SILENCE = 20.0
"""Seconds without any event after which the broker is given up."""
_SHORT_SESSION = 60
"""Seconds: a session that listens to everything must not outlive the check, or the broker would queue all for it."""


def capabilities(settings: LinkSettings, topic: str) -> list[str]:
    """What the broker lacks, in words with a remedy: MQTT 5, QoS 1, retained messages, access, sessions, wills.

    Args:
        settings: of the operator's identity.
        topic: one that this identity may write and read; it holds nothing afterwards.

    Raises:
        ConfigurationError: a certificate or key file that cannot be used.
        LinkError: the broker was lost on the way.
    """
    if missing := probe(settings, topic):
        return missing
    testament = secrets.token_hex(16).encode()
    with _connected(replace(settings, will_topic=topic, will_payload=testament)):
        pass
    with _connected(settings) as (conversation, connected):
        if not connected.session_present:
            missing.append("the broker does not keep a client's session while it is away; use one that does")
        if testament not in [message.payload for message in conversation.read_all(topic, topic)]:
            missing.append("the broker does not publish the will of a client that is gone; use one that does")
        conversation.publish({topic: b""})
    return missing


def list_retained(settings: LinkSettings, topics: str, end: str) -> dict[str, bytes]:
    """Everything retained, by topic.

    Args:
        settings: of an identity that may read it all.
        topics: the filter of what to list.
        end: a topic under that filter which this identity may write: a message on it comes after all the others.

    Raises:
        LinkError: no connection, or it is lost or silent before the end.
    """
    with _connected(replace(settings, session_expiry=_SHORT_SESSION)) as (conversation, _):
        return {message.topic: message.payload for message in conversation.read_all(topics, end) if message.retain}


def clear(settings: LinkSettings, topics: list[str]) -> None:
    """Take what is retained on these topics off the broker.

    Raises:
        LinkError: no connection, or the broker refuses.
    """
    with _connected(settings) as (conversation, _):
        conversation.publish(dict.fromkeys(topics, b""))


class _Conversation:
    """A link whose events are taken one after the other; whatever ends it is raised as LinkError."""

    def __init__(self, settings: LinkSettings) -> None:
        self._events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
        self.link = Link(settings, self._events.put)

    def next(self) -> LinkEvent:
        """The next event."""
        settings = self.link.settings
        try:
            event = self._events.get(timeout=_SILENCE)
        except queue.Empty:
            raise LinkError(
                f"{settings.host}:{settings.port} has been silent for {_SILENCE:.0f} s; look into its log"
            ) from None
        match event:
            case Disconnected(reason, remedy) | IdentityInUse(reason, remedy):
                raise LinkError(f"{reason}; {remedy}")
            case Undelivered(topic, code) | SubscriptionRefused(topic, code):
                raise LinkError(
                    f"the broker refuses {settings.client_id} the topic {topic} (code 0x{code:02x}); "
                    "render its access list again with hushfleet broker render and reload it"
                )
            case Dropped(topic):
                raise LinkError(f"the connection breaks on a message to {topic}; look into the broker's log")
        return event

    def publish(self, retained: dict[str, bytes]) -> None:
        """Publish retained messages, payloads by topic, and wait until the broker has them."""
        for topic, payload in retained.items():
            self.link.publish(topic, payload, retain=True)
        for _ in retained:
            while not isinstance(self.next(), Delivered):
                continue

    def read_all(self, topics: str, end: str) -> list[Message]:
        """What is retained under a filter, with whatever else arrives until our own message on `end` comes back."""
        mark = secrets.token_hex(16).encode()
        found: list[Message] = []
        self.link.subscribe(topics)
        self.link.publish(end, mark)
        while True:
            event = self.next()
            if isinstance(event, Message):
                if event.token:
                    self.link.ack(event.token)
                if event.payload == mark:
                    self.link.unsubscribe(topics)
                    return found
                found.append(event)


@contextmanager
def _connected(settings: LinkSettings) -> Iterator[tuple[_Conversation, Connected]]:
    """A conversation with the broker, and how it began."""
    conversation = _Conversation(settings)
    conversation.link.start()
    try:
        while not isinstance(event := conversation.next(), Connected):
            continue
        yield conversation, event
    finally:
        conversation.link.stop()
