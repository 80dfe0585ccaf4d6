"""A second writing's door to the broker: a bundle's keys, one MQTT 5 connection over TLS, one inbox, one journal."""

import queue
import ssl
import threading
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions
from second_wire import CHUNKS_MARK, Identity, joined, parse, pieces_of, prefix, require

SESSION = 14 * 24 * 3600
Event = dict[str, Any]


class Journal:
    """What everybody said, in order; whoever waits for something waits here, with a deadline."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []
        self._said = threading.Condition()

    def say(self, who: str, event: Event) -> None:
        with self._said:
            self.events.append((who, event))
            self._said.notify_all()

    def of(self, who: str, what: str) -> list[Event]:
        """Everything of that name that somebody said so far."""
        with self._said:
            return [event for name, event in self.events if name == who and event.get("event") == what]

    def wait(self, right: Callable[[str, Event], bool], seconds: float, for_what: str, since: int = 0) -> Event:
        """The first event that is right, of those after the first `since`.

        Raises:
            AssertionError: there was none in time; with what was said last.
        """
        found: list[Event] = []
        seen = since

        def look() -> bool:
            nonlocal seen
            fresh, seen = self.events[seen:], len(self.events)
            found.extend(event for who, event in fresh if right(who, event))
            return bool(found)

        with self._said:
            if not self._said.wait_for(look, seconds):
                last = "\n".join(f"{who}: {event}" for who, event in self.events[-40:])
                raise AssertionError(f"no {for_what} within {seconds} s; the last that was said:\n{last}")
        return found[0]


@dataclass(frozen=True)
class Bundle:
    """What the owners gave one device."""

    directory: Path
    fleet: bytes
    index: int
    root_hash: bytes
    host: str
    port: int
    identity: Identity

    @classmethod
    def load(cls, directory: Path) -> "Bundle":
        told = tomllib.loads((directory / "bundle.toml").read_text())
        seed = bytes.fromhex((directory / "identity.key").read_text())
        return cls(
            directory,
            bytes.fromhex(told["fleet"]),
            told["index"],
            bytes.fromhex(told["root_hash"]),
            told["broker_host"],
            told["broker_port"],
            Identity(told["index"], seed),
        )

    def frame(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()


class Link:
    """One connection. Everything that arrives goes into `inbox` as (topic, payload)."""

    def __init__(self, bundle: Bundle, port: int, subscriptions: list[str]) -> None:
        self.inbox: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._subscriptions = set(subscriptions)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=str(bundle.index), protocol=paho.MQTTv5)
        context = ssl.create_default_context(cafile=str(bundle.directory / "ca.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(bundle.directory / "tls.pem", bundle.directory / "tls.key")
        self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION
        self._client.connect(bundle.host, port, clean_start=False, properties=properties)
        self._client.loop_start()

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: paho.ConnectFlags, reason: ReasonCode, _more: Properties | None
    ) -> None:
        if not reason.is_failure:
            client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in sorted(self._subscriptions)])

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        self.inbox.put((message.topic, bytes(message.payload)))

    def subscribe(self, topic: str) -> None:
        """Listen to one more topic; its retained message comes."""
        if topic not in self._subscriptions:
            self._subscriptions.add(topic)
            self._client.subscribe(topic, options=SubscribeOptions(qos=1))

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Post:
    """The newest payload of every topic below `hf/F/`, and whole messages out of their chunks."""

    def __init__(self, link: Link, fleet: bytes) -> None:
        self._link, self._fleet, self._prefix = link, fleet, prefix(fleet) + "/"
        self.seen: dict[str, bytes] = {}

    def take(self, topic: str, payload: bytes) -> str:
        """Keep what arrived; its topic below the prefix. An empty payload is a cleared topic."""
        require(topic.startswith(self._prefix), f"a topic of another fleet: {topic}")
        below = topic.removeprefix(self._prefix)
        if payload:
            self.seen[below] = payload
        else:
            self.seen.pop(below, None)
        return below

    def value(self, topic: str) -> bytes | None:
        """A topic of one frame; asked for if it is not there."""
        self._link.subscribe(self._prefix + topic)
        return self.seen.get(topic)

    def whole(self, base: str, at_most: int, ask: bool = True) -> bytes | None:
        """A message whose topic ends in `{chunk}`, as soon as it is whole; its chunks are asked for one by one."""

        def chunk(number: int) -> bytes | None:
            topic = f"{base}/{number}"
            return self.value(topic) if ask else self.seen.get(topic)

        first = chunk(0)
        if first is None or not first.startswith(CHUNKS_MARK):
            return first
        pieces = pieces_of(parse(first, self._fleet, "chunks").fields, at_most)
        have = {at: piece for at in range(len(pieces)) if (piece := chunk(at + 1)) is not None}
        return joined(pieces, have)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self._link.publish(self._prefix + topic, payload, retain)

    def publish_chunks(self, base: str, chunks: list[bytes], retain: bool = False) -> None:
        for number, chunk in enumerate(chunks):
            self.publish(f"{base}/{number}", chunk, retain)
