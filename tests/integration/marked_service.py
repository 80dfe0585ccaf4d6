"""A service that is whole and real, and marks in its system calls what it has decided and what it lets go.

    python marked_service.py MARKS [--early] agent run CONFIG

MARKS is a file; how its lines read is told in tests/durability/order.py. With --early the broker's messages are
acknowledged before their records are committed: a bug to be found.
"""

import os
import sys
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from hushfleet.actions import Publish
from hushfleet.cli import main
from hushfleet.mqtt import tls
from hushfleet.mqtt.events import AckToken
from hushfleet.mqtt.link import Link
from hushfleet.runner import Event, Runner


class Marks:
    """The file, and the link whose connection counts."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self.link: Link

    def write(self, line: str) -> None:
        """One system call."""
        os.pwrite(self._file, line.encode() + b"\n", 0)


def _message_key(topic: str, payload: bytes) -> str:
    return sha256(topic.encode() + b"\0" + payload).hexdigest()[:16]


def _kind(topic: str) -> str:
    kind, *rest = topic.split("/")[2:]
    return {"up": rest[2:3], "down": rest[1:2]}.get(kind, [kind])[0]


def _replace(owner: type, **methods: Callable[..., Any]) -> None:
    for name, method in methods.items():
        setattr(owner, name, method)


def mark_decisions(marks: Marks) -> None:
    """Owed is what an event asks for as soon as its transaction has changed a record."""
    decide, post = Runner._decide, Runner.post
    tokens: dict[Event, AckToken] = {}

    def marked_post(runner: Runner, event: Event, token: AckToken | None = None) -> None:
        if token is not None:
            marks.write(f"take {token.generation}.{token.number}")
            tokens[event] = token
        post(runner, event, token)

    def marked_decide(runner: Runner, event: Event) -> list[Any]:
        actions = decide(runner, event)
        token = tokens.pop(event, None)
        if _changes_records(runner._store):
            if token is not None:
                marks.write(f"owe {token.generation}.{token.number}")
            for action in actions:
                if isinstance(action, Publish):
                    marks.write(f"owe {_message_key(action.topic, action.payload)}")
        return actions

    _replace(Runner, post=marked_post, _decide=marked_decide)


def _changes_records(store: Any) -> bool:
    """Whether the open transaction does so far; an erasure of what is not there writes nothing."""
    return bool(store._changed or store._saves) or any(store._select(key) for key in store._erasures)


def mark_departures(marks: Marks) -> None:
    """The library hands whole packets to the socket, one at a time."""
    make, send = Link.__init__, tls._Socket.send

    def marked_make(link: Link, *arguments: Any) -> None:
        make(link, *arguments)
        marks.link = link

    def marked_send(socket: Any, data: Any, flags: int = 0) -> int:
        packet = bytes(data)
        match packet[0] & 0xF0:
            case 0x40:  # PUBACK
                start = _after_length(packet)
                number = int.from_bytes(packet[start : start + 2], "big")
                marks.write(f"leave puback {marks.link._generation}.{number}")
            case 0x30:  # PUBLISH
                topic, payload = _published(packet)
                marks.write(f"leave {_kind(topic)} {_message_key(topic, payload)}")
        return send(socket, data, flags)

    _replace(Link, __init__=marked_make)
    _replace(tls._Socket, send=marked_send)


def _after_length(packet: bytes, at: int = 1) -> int:
    """Where a variable byte integer ends."""
    while packet[at] & 0x80:
        at += 1
    return at + 1


def _published(packet: bytes) -> tuple[str, bytes]:
    """Topic and payload of a PUBLISH packet of MQTT 5."""
    start = _after_length(packet)
    end = start + 2 + int.from_bytes(packet[start : start + 2], "big")
    topic = packet[start + 2 : end].decode()
    properties = end + (2 if packet[0] & 0x06 else 0)
    length, shift, at = 0, 0, properties
    while True:
        length |= (packet[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not packet[at - 1] & 0x80:
            return topic, packet[at + length :]


def acknowledge_early() -> None:
    """The planted bug."""
    handle = Runner._handle

    def early(runner: Runner, batch: list[tuple[Event | None, AckToken | None]]) -> None:
        for _, token in batch:
            if token is not None:
                runner._link.ack(token)
        handle(runner, [(event, None) for event, _ in batch])

    _replace(Runner, _handle=early)


if __name__ == "__main__":
    marks = Marks(sys.argv.pop(1))
    mark_decisions(marks)
    mark_departures(marks)
    if sys.argv[1] == "--early":
        del sys.argv[1]
        acknowledge_early()
    main()
