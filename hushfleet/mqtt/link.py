"""The connection to the broker: the only file with the MQTT library and threads (docs/operations.md, messaging).

One network thread does everything that touches the library; callers only post to it and are told by events. Every
connection gets a client of its own, so that nothing of an earlier one can leak into it: the outbox decides what is sent
again, and an acknowledgement that belongs to an earlier connection finds nothing to confirm.
"""

import logging
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from secrets import SystemRandom
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from hushfleet.mqtt.diagnostics import OVERHEAD, Ending, explain, lacking
from hushfleet.mqtt.events import (
    LEFT_BEHIND,
    NO_SUBSCRIBER,
    Absence,
    AckToken,
    Asleep,
    Connected,
    Counters,
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
from hushfleet.mqtt.outbox import Outbox, Outgoing
from hushfleet.mqtt.patience import Patience
from hushfleet.mqtt.subscriptions import Subscriptions
from hushfleet.mqtt.tls import flush, load_context
from hushfleet.mqtt.traffic import Lane

CUT = (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError)
"""A connection that ended without a word."""
SESSION_TAKEN_OVER, KEEPALIVE_TIMEOUT = 0x8E, 0x8D
LOOK_EVERY = 60.0
"""Seconds after which a link that is to be away asks again: clocks are set."""
SPREAD, LONGEST_SPREAD = 0.05, 600.0
"""Part of an absence, and seconds, by which at most a link comes back later, so that a fleet does not do so in step."""

Watch = Callable[[Lane, Lane, bool], Absence | None]
"""Is shown what the sockets have sent and received so far, and whether the link is connected; says whether it is to be
away. It is asked before every connection and after every exchange."""

_log = logging.getLogger(__name__)


class Link:
    """A self-healing MQTT 5 connection at QoS 1 with a persistent session and manual acknowledgement.

    Args:
        settings: see `LinkSettings`; its three files are read here.
        events: receives every event, on the network thread; it should only hand them over. What it raises is counted
            and logged, and the message at hand comes again after the next connection.
        watch: when to be away, on the network thread.

    Raises:
        ConfigurationError: a certificate or key file that cannot be used.
    """

    def __init__(
        self,
        settings: LinkSettings,
        events: Callable[[LinkEvent], None],
        watch: Watch = lambda *_: None,
    ) -> None:
        self.settings = settings
        self.counters = Counters()
        self._events = events
        self._watch = watch
        self._context = load_context(settings)
        self._outbox = Outbox(settings.window, settings.max_payload, settings.attempts)
        self._subscriptions = Subscriptions()
        self._commands: deque[Callable[[], None]] = deque()
        self._rung = False
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._stop_by: float | None = None
        self._generation = 0
        self._uniform = SystemRandom().uniform
        self._patience = Patience(settings.reconnect_min, settings.reconnect_max, self._uniform)
        # Often enough for the library to keep its keepalive; everything else rings the bell.
        self._tick = min(settings.keepalive, settings.stall_timeout, 40.0) / 4
        self._reset()

    # For the callers' threads.

    @property
    def bytes_sent(self) -> int:
        """MQTT bytes sent over all connections, TLS excluded."""
        return self._context.sent.bytes

    @property
    def bytes_received(self) -> int:
        """MQTT bytes received over all connections, TLS excluded."""
        return self._context.received.bytes

    @property
    def in_flight(self) -> int:
        """Messages handed to the MQTT library and not acknowledged yet; never above the window."""
        return self._outbox.in_flight

    @property
    def queued(self) -> int:
        """What the broker has not acknowledged yet; in flight and on its way to the network thread included."""
        return len(self._outbox) + len(self._commands)

    def start(self) -> None:
        """Connect, and stay connected until `stop`. Once only."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Send what is queued and disconnect, so that the broker publishes the will and keeps the session.

        Args:
            timeout: seconds to wait for the broker, if it is connected at all.

        Returns:
            Whether the broker has acknowledged everything that was queued.
        """
        deadline = time.monotonic() + timeout
        # In its turn, so that what was published before still goes.
        self._post(lambda: setattr(self, "_stop_by", deadline))
        if self._thread.is_alive():
            self._thread.join(timeout + 1.0)
        if not self._thread.is_alive():
            self._bell.close()
            self._ear.close()
        return self.queued == 0

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Queue a message; while it waits, a newer retained one of its topic supersedes it.

        Raises:
            RefusedError: the payload is too large, or the topic cannot be published on.
        """
        self._outbox.check(topic, payload)
        self._post(lambda: self._outbox.put(topic, payload, retain))

    def subscribe(self, topic: str, again: bool = True) -> None:
        """Listen on a filter, now and after every lost session; asked again, its retained messages come again.

        Args:
            again: False for only if the broker does not have this subscription yet.
        """
        self._post(lambda: self._subscriptions.want(topic, again))

    def unsubscribe(self, topic: str) -> None:
        """Stop listening on a filter."""
        self._post(lambda: self._subscriptions.release(topic))

    def ack(self, token: AckToken) -> None:
        """Tell the broker that a message is safe; ignored and counted if its connection is gone."""
        self._post(lambda: self._acknowledge(token))

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        if self._rung:
            return
        self._rung = True
        # Full, or closed after a stop: either way nobody needs to hear it.
        with suppress(OSError):
            self._bell.send(b"!")

    # On the network thread: one connection after the other.

    def _reset(self) -> None:
        self._client: mqtt.Client | None = None
        self._flying: dict[int, Outgoing] = {}
        self._unacknowledged = 0
        self._opened = False
        self._accepted_at: float | None = None
        self._session_present = False
        self._delivered = False
        self._reason: BaseException | Ending | int | None = None
        self._absence: Absence | None = None

    def _run(self) -> None:
        while self._stop_by is None and not self._patience.exhausted:
            self._stay_away()
            if self._stop_by is not None:
                break
            try:
                self._connect()
                self._serve()
            except (OSError, UnicodeError) as error:
                self._reason = error
            except Exception as error:
                self._reason = error
                self._count_error("the connection failed in an unforeseen way")
            self._pause(self._clear_up())
        self._look(connected=False)
        if self._patience.exhausted:
            self._emit(IdentityInUse(*explain(Ending.TAKEN_OVER, self.settings)))

    def _stay_away(self) -> None:
        """Return when the link may connect, or is to stop."""
        began, told = time.monotonic(), None
        while self._stop_by is None and (absence := self._look(connected=False)) is not None:
            if absence != told:
                self._emit(Asleep(absence))
                told = absence
            self._pause(min(LOOK_EVERY, max(0.1, absence.until - time.time())))
        if told is not None and self._stop_by is None:
            for message in self._outbox.leave_behind():
                self._emit(Undelivered(message.topic, LEFT_BEHIND))
            self._pause(self._uniform(0.0, min(LONGEST_SPREAD, SPREAD * (time.monotonic() - began))))

    def _look(self, connected: bool) -> Absence | None:
        return self._watch(self._context.sent, self._context.received, connected)

    def _connect(self) -> None:
        settings = self.settings
        self._reset()
        self._generation += 1
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.on_connect = self._guarded(self._on_connect)
        client.on_disconnect = self._guarded(self._on_disconnect)
        client.on_message = self._guarded(self._on_message)
        client.on_publish = self._guarded(self._on_publish)
        client.on_subscribe = self._guarded(self._on_subscribe)
        client.on_unsubscribe = self._guarded(self._on_unsubscribe)
        # With a writer of its own registered, the library only queues; `_serve` alone writes.
        client.on_socket_register_write = lambda *_: None
        client.connect_timeout = settings.connect_timeout
        client.max_inflight_messages = settings.window
        client.tls_set_context(self._context)
        if settings.will_topic:
            client.will_set(settings.will_topic, settings.will_payload, qos=1, retain=True)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = settings.session_expiry
        properties.MaximumPacketSize = settings.max_payload + OVERHEAD
        # A session once opened with a clean start is not persisted by Mosquitto 2.0.11.
        client.connect(settings.host, settings.port, settings.keepalive, clean_start=False, properties=properties)

    def _serve(self) -> None:
        client, changed, progress = self._client, time.monotonic(), 0
        assert client is not None
        connection = client.socket()
        assert isinstance(connection, ssl.SSLSocket)
        self._opened = True
        with selectors.DefaultSelector() as selector:
            selector.register(self._ear, selectors.EVENT_READ)
            watched = 0
            while client.socket() is not None and self._reason is None and not self._is_over():
                # A record that is half read would count as overhead until the rest of it is taken.
                if not connection.pending() and (absence := self._look(connected=True)) is not None:
                    self._absence = absence
                    client.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
                    client.loop_write()
                    return
                self._obey()
                self._push(client)
                reading = self._has_room()
                writing = client.want_write() or bool(self._context.waiting)
                wanted = reading * selectors.EVENT_READ | writing * selectors.EVENT_WRITE
                if wanted != watched:
                    if watched:
                        selector.unregister(connection)
                    if wanted:
                        selector.register(connection, wanted)
                    watched = wanted
                selector.select(0 if reading and connection.pending() else self._rest())
                if reading:
                    client.loop_read()
                client.loop_write()
                client.loop_misc()
                flush(connection)
                # What counts is progress: a dead line looks connected until the keepalive has run out twice.
                if (moved := self._context.sent.bytes + self._context.received.bytes) != progress:
                    changed, progress = time.monotonic(), moved
                elif self._is_owed() and time.monotonic() - changed > self.settings.stall_timeout:
                    self._reason = Ending.STALLED

    def _push(self, client: mqtt.Client) -> None:
        """Give the library what fits into the window, and the end when we are to stop and nothing is left."""
        if self._accepted_at is None:
            return
        while request := self._subscriptions.take():
            wanted = [(topic, _options(handling)) for topic, handling in request if handling is not None]
            if wanted:
                _, number = client.subscribe(wanted)
            else:
                _, number = client.unsubscribe([topic for topic, _ in request])
            assert number is not None, "the socket is open"
            self._subscriptions.asked(number, request)
        while message := self._outbox.take():
            number = client.publish(message.topic, message.payload, qos=1, retain=message.retain).mid
            self._flying[number] = message
        if self._stop_by is not None and len(self._outbox) == 0:
            client.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))

    def _obey(self) -> None:
        with suppress(BlockingIOError):
            self._ear.recv(65_536)
        # Whoever posts from here on rings again; what was posted before is obeyed now.
        self._rung = False
        while self._commands:
            try:
                self._commands[0]()
            finally:
                self._commands.popleft()

    def _acknowledge(self, token: AckToken) -> None:
        """A number means another message on another connection: confirm it only on its own."""
        if self._client is None or self._client.socket() is None or token.generation != self._generation:
            self.counters.stale_acks += 1
        else:
            self._unacknowledged -= 1
            self._client.ack(token.number, 1)

    def _has_room(self) -> bool:
        """Whether to read on. A broker may send without bounds: what nobody has acknowledged yet waits in memory here.

        Mosquitto 2.0.11 keeps to its `max_inflight_messages` and to MQTT's receive maximum only until the first
        acknowledgement. When we stop, our own messages' acknowledgements count more.
        """
        return self._unacknowledged < self.settings.unacknowledged or self._stop_by is not None

    def _is_owed(self) -> bool:
        return self._accepted_at is None or bool(self._flying) or self._subscriptions.open

    def _rest(self) -> float:
        return self._tick if self._stop_by is None else max(0.0, min(self._tick, self._stop_by - time.monotonic()))

    def _is_over(self) -> bool:
        return self._stop_by is not None and (self._accepted_at is None or time.monotonic() > self._stop_by)

    # The library's callbacks.

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """The library does not survive an exception in a callback."""

        def guarded(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception:
                self._count_error(f"{callback.__name__} failed")

        return guarded

    def _on_connect(self, client: mqtt.Client, _: object, flags: Any, code: ReasonCode, properties: Properties) -> None:
        if code.is_failure:
            self._reason = code.value
            return
        self._accepted_at = time.monotonic()
        self._session_present = flags.session_present
        connection = client.socket()
        assert isinstance(connection, ssl.SSLSocket)
        self._context.session = connection.session
        self.counters.connections += 1
        self.counters.resumed += bool(connection.session_reused)
        self._outbox.window = min(self.settings.window, getattr(properties, "ReceiveMaximum", self.settings.window))
        if not flags.session_present:
            self._subscriptions.renew()
        self._emit(Connected(flags.session_present, self._generation, lacking(properties, self.settings)))

    def _on_disconnect(self, _: object, __: object, flags: Any, code: ReasonCode, ___: object) -> None:
        if self._reason is None and flags.is_disconnect_packet_from_server:
            self._reason = code.value
        elif self._reason is None and code.value == KEEPALIVE_TIMEOUT:
            self._reason = Ending.SILENT

    def _on_message(self, _: object, __: object, message: mqtt.MQTTMessage) -> None:
        token = AckToken(self._generation, message.mid) if message.qos else None
        if self._emit(Message(message.topic, bytes(message.payload), message.retain, token)) and token is not None:
            self._unacknowledged += 1

    def _on_publish(self, _: object, __: object, number: int, code: ReasonCode, ___: object) -> None:
        message = self._flying.pop(number)
        self._outbox.settle(message)
        self._delivered = True
        # A retained message is kept whether or not anybody listens.
        if code.value == 0 or (code.value == NO_SUBSCRIBER and message.retain):
            self._emit(Delivered(message.topic))
        else:
            self.counters.undelivered += 1
            self._emit(Undelivered(message.topic, code.value))

    def _on_subscribe(self, _: object, __: object, number: int, codes: list[ReasonCode], ___: object) -> None:
        failures = [code.value for code in codes if code.is_failure]
        refused = self._subscriptions.answered(number, [not code.is_failure for code in codes])
        for topic, failure in zip(refused, failures, strict=True):
            self._emit(SubscriptionRefused(topic, failure))

    def _on_unsubscribe(self, _: object, __: object, number: int, ___: object, ____: object) -> None:
        self._subscriptions.answered(number, [])

    # After a connection.

    def _clear_up(self) -> float:
        """Tell why the connection ended, leave what it did not deliver to the next one; the seconds until then."""
        reason = self._ending()
        lived = None if self._accepted_at is None else time.monotonic() - self._accepted_at
        taken_over = self._session_present and reason in (Ending.CLOSED, SESSION_TAKEN_OVER)
        wait = self._patience.after(lived, self._delivered, taken_over)
        if self._client is not None and (connection := self._client.socket()) is not None:
            connection.close()
        dropped = self._outbox.rewind()
        self._subscriptions.rewind()
        away = self._absence is not None
        self._reset()
        if self._stop_by is None and not away:
            self._emit(Disconnected(*explain(reason, self.settings)))
        if dropped is not None:
            self.counters.dropped += 1
            self._emit(Dropped(dropped.topic))
        return 0.0 if away else wait

    def _ending(self) -> BaseException | Ending | int:
        error = self._context.error if self._reason is None else self._reason
        if self._accepted_at is None and (isinstance(error, CUT) or (error is None and self._context.closed)):
            return Ending.UNANSWERED if self._opened else Ending.NO_HANDSHAKE
        if error is None:
            return Ending.CLOSED if self._context.closed else Ending.UNINTELLIGIBLE
        return error

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._ear, selectors.EVENT_READ)
            while self._stop_by is None and not self._patience.exhausted and (left := until - time.monotonic()) > 0:
                selector.select(left)
                self._obey()

    def _emit(self, event: LinkEvent) -> bool:
        """Whether the receiver took it."""
        try:
            self._events(event)
        except Exception:
            self._count_error(f"the receiver of {type(event).__name__} failed")
            return False
        return True

    def _count_error(self, what: str) -> None:
        self.counters.errors += 1
        _log.exception(what)


def _options(handling: int) -> SubscribeOptions:
    return SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=handling)
