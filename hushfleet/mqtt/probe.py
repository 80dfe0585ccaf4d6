"""Whether this broker will do: what is missing between us and working messages, in words."""

import queue
import secrets
import time

from hushfleet.mqtt.events import (
    NOT_AUTHORIZED,
    Connected,
    Delivered,
    Disconnected,
    IdentityInUse,
    LinkEvent,
    LinkSettings,
    Message,
    SubscriptionRefused,
    Undelivered,
)
from hushfleet.mqtt.link import Link

_ACCESS = "render the broker's access list again with `hushfleet broker render` and reload it"


def probe(settings: LinkSettings, topic: str, timeout: float = 20.0) -> list[str]:
    """Connect, publish retained on our own state topic and listen for it: a denied subscription looks granted.

    A running service with the same identity loses its connection for that moment and makes it again. Afterwards the
    topic holds the will, or nothing if there is none.

    Args:
        settings: of the link to be.
        topic: one that we may write and read: `Topics.state` of our own index.
        timeout: seconds for each of connecting, writing and reading.

    Returns:
        What is missing, with its remedy; empty if nothing is.

    Raises:
        ConfigurationError: a certificate or key file that cannot be used.
    """
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = Link(settings, events.put)
    link.start()
    try:
        return _findings(link, events, topic, timeout)
    finally:
        link.unsubscribe(topic)
        link.publish(topic, settings.will_payload, retain=True)
        link.stop(min(timeout, 5.0))


def _findings(link: Link, events: "queue.SimpleQueue[LinkEvent]", topic: str, timeout: float) -> list[str]:
    payload = b'{"state":"testing","nonce":"%s"}' % secrets.token_hex(8).encode()
    findings: list[str] = []
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        try:
            event = events.get(timeout=left)
        except queue.Empty:
            break
        match event:
            case Connected(lacking=lacking):
                findings = [f"the broker does not offer {what}; use another one" for what in lacking]
                link.publish(topic, payload, retain=True)
            case Delivered():
                link.subscribe(topic)
            case Message(topic=read, payload=content, token=token) if (read, content) == (topic, payload):
                # Ours; whatever else the session holds stays in it for the service.
                if token is not None:
                    link.ack(token)
                return findings
            case Undelivered(reason_code=code):
                cause = "forbids" if code == NOT_AUTHORIZED else f"refuses (code 0x{code:02x})"
                return [*findings, f"the broker {cause} writing on {topic}; {_ACCESS}"]
            case SubscriptionRefused(reason_code=code):
                return [*findings, f"the broker refuses (code 0x{code:02x}) listening on {topic}; {_ACCESS}"]
            case Disconnected(reason, remedy) | IdentityInUse(reason, remedy):
                return [*findings, f"{reason}; {remedy}"]
            case _:
                continue
        deadline = time.monotonic() + timeout
    return [*findings, _silence(link, topic, timeout)]


def _silence(link: Link, topic: str, timeout: float) -> str:
    if link.counters.connections == 0:
        return f"{link.settings.host}:{link.settings.port} has not accepted us within {timeout:g} s; check the network"
    if link.queued:
        return f"the broker has not acknowledged a message within {timeout:g} s; look into its log"
    return (
        f"what we publish on {topic} does not come back within {timeout:g} s: the broker's access list forbids reading "
        f"it although the subscription looked granted, or it keeps no retained messages; {_ACCESS}"
    )
