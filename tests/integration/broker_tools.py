"""A real Mosquitto with TLS and the fleet's access list, certificates on demand, and clients that show everything."""

import queue
import socket
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.local import HOST, LocalBroker
from broker.render import Access, Configuration, access_list
from fleet.transport import Authority, issue_client, write_file, write_key_pair
from hushfleet.mqtt.topics import Topics

DEADLINE = 20.0


@dataclass
class TlsBroker:
    """A running broker of one fleet. Index 0 is the coordinator, 1 and 2 are the committee's candidates."""

    process: LocalBroker
    authority: Authority
    topics: Topics
    access: Access
    settings: Configuration
    directory: Path

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self.settings.port

    def identity(self, name: int | str) -> Path:
        """A directory with tls.pem, tls.key and ca.pem of this client; issued when first asked for."""
        place = self.directory / f"client-{name}"
        if not place.exists():
            place.mkdir()
            write_key_pair(place, "tls", issue_client(self.authority, str(name)))
            write_file(place / "ca.pem", self.authority.certificate_pem, mode=0o644)
        return place

    def grant(self, access: Access) -> None:
        """Put another access list in force."""
        self.access = access
        self.settings.access_list.write_text(access_list(access))
        self.process.reload()

    def revoke(self, *indices: int) -> None:
        """Deny everything to these indices."""
        self.grant(replace(self.access, revoked=indices))


class Peer:
    """A paho client that keeps what arrives, and the reason codes of what it sent."""

    def __init__(
        self, port: int, authority: Path, identity: Path | None, client_id: str = "", will: str | None = None
    ) -> None:
        """Connect to 127.0.0.1; `outcome` tells how it went. `identity` holds tls.pem and tls.key."""
        self.received: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.outcome: queue.Queue[str] = queue.Queue()
        self._answers: queue.Queue[int] = queue.Queue()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5, reconnect_on_failure=False
        )
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authority)
        if identity is not None:
            context.load_cert_chain(identity / "tls.pem", identity / "tls.key")
        self._client.tls_set_context(context)
        if will is not None:
            self._client.will_set(will, b"will", qos=1)
        self._client.on_connect = lambda client, data, flags, reason, properties: self.outcome.put(
            f"connected {reason}"
        )
        self._client.on_disconnect = lambda client, data, flags, reason, properties: self.outcome.put("disconnected")
        self._client.on_publish = lambda client, data, mid, reason, properties: self._answers.put(reason.value)
        self._client.on_subscribe = lambda client, data, mid, reasons, properties: self._answers.put(reasons[0].value)
        self._client.on_message = lambda client, data, message: self.received.put(message)
        try:
            self._client.connect(HOST, port, clean_start=True)
            self._client.loop_start()
        except OSError as error:
            self.outcome.put(type(error).__name__)

    def publish(self, topic: str, payload: bytes = b"x", retain: bool = False) -> int:
        self._client.publish(topic, payload, qos=1, retain=retain)
        return self._answers.get(timeout=DEADLINE)

    def subscribe(self, topic: str) -> int:
        self._client.subscribe(topic, options=SubscribeOptions(qos=1, retainAsPublished=True))
        return self._answers.get(timeout=DEADLINE)

    def until(self, end: bytes) -> dict[str, bytes]:
        """All messages up to the one with the payload `end`, by topic."""
        found = {}
        while (message := self.received.get(timeout=DEADLINE)).payload != end:
            found[message.topic] = bytes(message.payload)
        return found

    def cut(self) -> None:
        """Lose the connection without a word."""
        connection: Any = self._client.socket()
        connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
