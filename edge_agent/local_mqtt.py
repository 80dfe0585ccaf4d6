"""The owner's own broker, beside the device: what arrives there, kept within bounds until it is asked for.

It is another broker than the fleet's, with another client: plain MQTT 5 at QoS 0, with a password or TLS if the owner
has set that up.
"""

import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.sources.decoders.decoder import LARGEST_MESSAGE, Message
from hushfleet.configuration import Range
from hushfleet.errors import ConfigurationError

MOST_WAITING = 20_000
MOST_WAITING_BYTES = 2**24
"""Messages and bytes that wait to be asked for; the oldest make room."""

_LONGEST_TOPIC = 1024
_BAD_USER, _NOT_AUTHORIZED, _WRONG_VERSION = 0x86, 0x87, 0x84
_LONGEST_PAUSE = 60
_LONGEST_CLOSING = 5.0
"""Seconds between two attempts, and seconds that the end of a connection may take."""


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """Where the owner's broker is.

    Attributes:
        host: name or address.
        port: TCP.
        user: user name, if the broker wants one.
        password_file: a file whose first line is the user's password.
        ca: certificates in PEM form that the broker's must come from; with it the connection is TLS.
    """

    BARE: ClassVar = "host"

    host: str = "localhost"
    port: Annotated[int, Range(1, 65535)] = 1883
    user: str | None = None
    password_file: Path | None = None
    ca: Path | None = None

    def __post_init__(self) -> None:
        if self.password_file is not None and self.user is None:
            raise ConfigurationError("a password needs a user; add user")


class LocalMqtt:
    """A client that connects, and connects again, until it is closed.

    Args:
        broker: where to connect.
        will: topic and payload that the broker is to retain when the connection breaks.

    Attributes:
        dropped: how many messages were dropped, by reason.

    Raises:
        ConfigurationError: the password or the certificates cannot be read.
    """

    def __init__(self, broker: LocalBroker, will: tuple[str, bytes] | None = None) -> None:
        self.dropped: Counter[str] = Counter()
        self._broker = broker
        self._filters: frozenset[str] = frozenset()
        self._kept: dict[str, bytes] = {}
        self._refused = False
        self._trouble: str | None = f"not connected to {self._place} yet"
        self._connected = threading.Event()
        self._lock = threading.Lock()
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        if broker.user is not None:
            client.username_pw_set(broker.user, _password(broker.password_file))
        if broker.ca is not None:
            client.tls_set_context(_context(broker.ca))
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        client.reconnect_delay_set(1, _LONGEST_PAUSE)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = LARGEST_MESSAGE + _LONGEST_TOPIC
        client.connect_async(broker.host, broker.port, clean_start=True, properties=properties)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="owner's broker", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why nothing arrives just now, with the remedy; None while all is well."""
        return self._trouble

    def listen(self, filters: frozenset[str]) -> None:
        """Subscribe to these filters and no others, now and after every connection."""
        before, self._filters = self._filters, filters
        if self._connected.is_set():
            self._subscribe(filters - before)
            if gone := sorted(before - filters):
                self._client.unsubscribe(gone)

    def take(self) -> Message | None:
        """The oldest message that nobody has taken yet; None if there is none."""
        with self._lock:
            if not self._waiting:
                return None
            message = self._waiting.popleft()
            self._waiting_bytes -= len(message.payload)
            return message

    def say(self, topic: str, payload: bytes) -> bool:
        """Publish what holds until the next such message, to be retained till then; whether there is a connection."""
        if not self._connected.is_set():
            return False
        self._client.publish(topic, payload, qos=0, retain=True)
        return True

    def keep(self, topic: str, payload: bytes) -> None:
        """Have the broker retain something, now and after every connection: it may have lost it meanwhile."""
        self._kept[topic] = payload
        if self._connected.is_set():
            self._client.publish(topic, payload, qos=1, retain=True)

    def close(self) -> None:
        """Disconnect."""
        self._closed.set()
        self._client.disconnect()
        self._thread.join(_LONGEST_CLOSING)

    @property
    def _place(self) -> str:
        return f"{self._broker.host}, port {self._broker.port}"

    # On the thread of the connection.

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._client.loop_forever(retry_first_connection=True)
            except Exception as error:
                # Such as a name that cannot be one of a host; the library gives up there, we do not.
                self._trouble = f"the connection to {self._place} failed: {type(error).__name__}; correct host and port"
            self._closed.wait(_LONGEST_PAUSE)

    def _on_connect(self, _: mqtt.Client, __: object, ___: object, reason: ReasonCode, ____: object) -> None:
        self._refused = reason.is_failure
        if reason.is_failure:
            self._trouble = f"the broker at {self._place} refuses the connection: {reason}; {_remedy(reason)}"
            return
        self._trouble = None
        self._connected.set()
        self._subscribe(self._filters)
        for topic, payload in list(self._kept.items()):
            self._client.publish(topic, payload, qos=1, retain=True)

    def _on_connect_fail(self, *_: object) -> None:
        self._trouble = f"no broker answers at {self._place}; start it, or correct host, port and ca"

    def _on_disconnect(self, _: mqtt.Client, __: object, ___: object, reason: ReasonCode, ____: object) -> None:
        if self._connected.is_set():
            self._trouble = f"the connection to {self._place} has ended: {reason}; it is tried again"
        elif not self._refused:
            self._trouble = f"what answers at {self._place} does not speak MQTT here; has the port TLS? then set ca"
        self._connected.clear()

    def _subscribe(self, filters: Iterable[str]) -> None:
        options = SubscribeOptions(qos=0, retainAsPublished=False)
        if wanted := [(name, options) for name in sorted(filters)]:
            self._client.subscribe(wanted)

    def _on_subscribe(self, _: mqtt.Client, __: object, ___: int, reasons: list[ReasonCode], ____: object) -> None:
        if any(reason.is_failure for reason in reasons):
            self._trouble = f"the broker at {self._place} denies a subscription; allow this user to read the topics"

    def _on_message(self, _: mqtt.Client, __: object, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.dropped["a topic that is not UTF-8"] += 1
            return
        if len(topic) > _LONGEST_TOPIC:
            self.dropped[f"a topic of more than {_LONGEST_TOPIC} characters"] += 1
            return
        arrived = Message(topic, bytes(message.payload), time.time(), message.retain)
        with self._lock:
            self._waiting.append(arrived)
            self._waiting_bytes += len(arrived.payload)
            while len(self._waiting) > MOST_WAITING or self._waiting_bytes > MOST_WAITING_BYTES:
                self._waiting_bytes -= len(self._waiting.popleft().payload)
                self.dropped["more messages than are read"] += 1


def _remedy(reason: ReasonCode) -> str:
    if reason.value in (_BAD_USER, _NOT_AUTHORIZED):
        return "set user and password_file"
    if reason.value == _WRONG_VERSION:
        return "it must speak MQTT 5, as Mosquitto does since 1.6"
    return "see the broker's log"


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the password file {path}: {error.strerror}; create it, readable by the agent's user"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the password file {path} is not UTF-8 text; write it anew") from None
    if not lines or not lines[0]:
        raise ConfigurationError(f"the password file {path} is empty; write the password into its first line")
    return lines[0]


def _context(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=path)
    except ssl.SSLError:
        raise ConfigurationError(f"{path} holds no certificate in PEM form; copy the broker's authority") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}; copy the broker's authority there") from None
