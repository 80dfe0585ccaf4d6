"""A role as a process: store, link and runner wired together, signals, and a status file for whoever asks."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hushfleet import BUILD_TIME
from hushfleet.errors import ConfigurationError, HushfleetError, LinkError
from hushfleet.journal import Journal
from hushfleet.mqtt.events import (
    NOT_AUTHORIZED,
    Asleep,
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
from hushfleet.mqtt.held import Held
from hushfleet.mqtt.link import Link, Watch
from hushfleet.mqtt.validity import expiring
from hushfleet.runner import Event, Runner, TransactionStore

_ACCESS = "the broker's access list forbids it"
STATUS_EVERY = 2.0
"""Seconds between two looks at what the status file says; it is written when that has changed."""

LISTEN = 30.0
"""Seconds without a message after which nothing more is waited for that the broker may keep."""


class _Sparing:
    """A link on which nothing is published that the broker keeps already: it counts as delivered."""

    def __init__(self, link: Link, held: Held, delivered: Callable[[str], None]) -> None:
        self._link, self._held, self._delivered = link, held, delivered
        self.subscribe, self.unsubscribe, self.ack = link.subscribe, link.unsubscribe, link.ack

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        if retain and self._held.has(topic, payload):
            self._delivered(topic)
        else:
            self._link.publish(topic, payload, retain)


class Service:
    """One role under way.

    Args:
        make_role: builds the role from its records.
        store: its durable records.
        link: how it connects.
        journal: where its lines go.
        perform: what to do with actions that are none of the common ones.
        on_message: the event of a message.
        status: the status file.
        describe: what the role says of itself there, and in the last line.
        details: what stands in the status file alone; it may be asked on any thread.
        watch: when the link is to be away.
        kept: filters of all that the role keeps retained, to be compared with the broker after every connection before
            the role hears of it; empty for publishing everything again.
    """

    def __init__(
        self,
        make_role: Callable[[], Any],
        store: TransactionStore,
        link: LinkSettings,
        journal: Journal,
        perform: Callable[[Any], None],
        on_message: Callable[[Message], Event],
        status: Path,
        describe: Callable[[Any], dict[str, object]],
        details: Callable[[], dict[str, object]] = dict,
        watch: Watch = lambda *_: None,
        kept: Sequence[str] = (),
    ) -> None:
        self.journal, self._on_message, self._status, self._describe = journal, on_message, status, describe
        self._details = details
        self.link = Link(link, self._on_link, watch)
        self._held = Held(kept, link.will_topic) if kept else None
        outlet = _Sparing(self.link, self._held, self._on_kept) if self._held else self.link
        self.runner = Runner(make_role, store, outlet, journal, perform)
        self._session_present = False
        self._listens_until = 0.0
        self._trouble = ""
        self._failure: HushfleetError | None = None
        self._connected = False
        self._ended = threading.Event()
        self._refusals: dict[str, int] = {}
        self._seen: dict[str, object] = {}
        self._written: dict[str, object] = {}

    def run(self, start: Event, online: bytes) -> None:
        """Run until SIGTERM, SIGINT or `runner.stop`.

        Args:
            start: the role's first event.
            online: what is retained on the link's will topic while connected.

        Raises:
            StorageError: the store failed; nothing was acknowledged that it does not hold.
            LinkError: this identity is in use elsewhere.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.runner.stop())
        if time.time() < BUILD_TIME:
            self.journal.write("clock", remedy="this clock shows a time before this software was made; set it (NTP)")
        for ending in expiring((self.link.settings.ca, self.link.settings.certificate), time.time()):
            self.journal.write("certificate", remedy=ending)
        self._online = online
        self.link.start()
        keeper = threading.Thread(target=self._keep_status, name="status", daemon=True)
        keeper.start()
        try:
            self.runner.run(start)
            self._look(self.runner.role, time.time())
        finally:
            self._ended.set()
            keeper.join()
            self.link.publish(self.link.settings.will_topic, self.link.settings.will_payload, retain=True)
            self.link.stop()
            self._write_status()
        self.journal.close()
        if self._failure is not None:
            raise self._failure
        self.journal.write("stopped", **self._summary())

    def _on_link(self, event: LinkEvent) -> None:
        """On the network thread: hand over, and say what a person should know."""
        match event:
            case Connected():
                self._connected, self._trouble = True, ""
                self.journal.write("connected", session=event.session_present, lacking=", ".join(event.lacking) or None)
                self._session_present = event.session_present
                self._begin_listening()
                self.link.publish(self.link.settings.will_topic, self._online, retain=True)
            case Disconnected():
                self._connected = False
                if self._held:
                    self._held.forget()
                if event.reason != self._trouble:
                    self._trouble = event.reason
                    self.journal.write("disconnected", reason=event.reason, remedy=event.remedy)
            case Asleep(absence):
                self._connected = False
                until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(absence.until))
                self._trouble = f"asleep until {until}: {absence.why}"
                self.journal.write("asleep", until=until, why=absence.why)
            case Message() if self._held and self._held.take(event.topic, event.payload):
                self._listens_until = time.monotonic() + LISTEN
                if event.token is not None:
                    self.link.ack(event.token)
                if not self._held.listening:
                    self._end_listening()
            case Message():
                self.runner.post(self._on_message(event), event.token)
            case Delivered():
                self.runner.post(lambda role, now: role.on_delivered(event.topic, now))
            case Undelivered():
                if event.reason_code == NOT_AUTHORIZED:
                    self.journal.hear("denied", "broker", topic=event.topic, remedy=_ACCESS)
                self.runner.post(lambda role, now: role.on_undelivered(event.topic, now))
            case SubscriptionRefused():
                self.journal.hear("refused-by-broker", "broker", topic=event.topic)
            case Dropped():
                self.journal.hear("refused-by-broker", "broker", topic=event.topic)
                self.runner.post(lambda role, now: role.on_undelivered(event.topic, now))
            case IdentityInUse():
                self._failure = LinkError(f"{event.reason}; {event.remedy}")
                self.runner.stop()

    # What the broker keeps.

    def _begin_listening(self) -> None:
        if self._held is None:
            self._end_listening()
            return
        self._held.begin()
        self._listens_until = time.monotonic() + LISTEN
        for kept in self._held.filters:
            self.link.subscribe(kept)

    def _end_listening(self) -> None:
        """Only now the role publishes what it keeps, and what the broker keeps already is spared."""
        session_present = self._session_present
        for kept in self._held.filters if self._held else ():
            self.link.unsubscribe(kept)
        self.runner.post(lambda role, now: role.on_connected(session_present, now))

    def _on_kept(self, topic: str) -> None:
        self._on_link(Delivered(topic))

    # Status.

    def _keep_status(self) -> None:
        self.runner.post(self._look)
        while not self._ended.wait(STATUS_EVERY):
            if self._held and self._held.listening and time.monotonic() > self._listens_until:
                self._held.end()
                self._end_listening()
            self._write_status()
            self.runner.post(self._look)

    def _look(self, role: Any, now: float) -> list[Any]:
        """An event like others: on another thread than its own, a role would be seen half changed."""
        self._refusals = dict(role.refusals)
        self._seen = {
            **self._describe(role),
            "refused": sum(self._refusals.values()),
            "failures": self.runner.failures,
        }
        return []

    def _summary(self) -> dict[str, object]:
        return {**self._seen, "bytes_sent": self.link.bytes_sent, "bytes_received": self.link.bytes_received}

    def _write_status(self) -> None:
        status = {
            "process": os.getpid(),
            "running": not self._ended.is_set(),
            "connected": self._connected and not self._ended.is_set(),
            "trouble": self._trouble or None,
            "refusals": self._refusals,
            **self._summary(),
            **self._details(),
        }
        if status == self._written:
            return
        part = self._status.with_name(self._status.name + ".part")
        try:
            part.write_text(json.dumps({"time": round(time.time(), 1), **status}, indent=1))
            part.replace(self._status)
            self._written = status
        except OSError as error:
            # Whoever asks finds the status of before; the service itself has its own troubles with a full disk.
            self.journal.write("status-not-written", file=str(self._status), why=error.strerror)


def read_status(path: Path) -> dict[str, Any]:
    """The content of a status file, with `running` as it is now.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    try:
        status: dict[str, Any] = json.loads(path.read_bytes())
        status["running"] = status["running"] and _lives(status["process"])
    except FileNotFoundError:
        raise ConfigurationError(f"there is no {path}: this service has never run") from None
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}; it is written anew when the service runs") from None
    return status


def is_running(path: Path) -> bool:
    """Whether the service that writes this status file is running."""
    try:
        return bool(read_status(path)["running"])
    except ConfigurationError:
        return False


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
