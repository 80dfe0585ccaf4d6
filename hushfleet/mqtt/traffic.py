"""What every byte on a connection is for, read from the stream itself. No I/O.

Only the payload of a message counts as its purpose's. Everything else, and TLS around it, is overhead.
"""

from collections.abc import Mapping
from types import MappingProxyType

PURPOSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "join": ("documents",),
        "committee": ("set-up", "mask sums"),
        "plan": ("plan", "result"),
        "model": ("model",),
        "upload": ("header", "chunks", "receipt", "decline"),
        "overhead": ("topics", "acknowledgements", "subscriptions", "connections", "pings", "TLS"),
    }
)
"""The items of each purpose (docs/operations.md). `topics` is all of a message but its payload, `connections` also what
a device says of its state."""
ITEMS = tuple(item for items in PURPOSES.values() for item in items)

_BY_KIND = {
    **dict.fromkeys(("root", "manifest", "date", "cert", "doc"), "documents"),
    **{kind: kind for kind in ("plan", "result", "model")},
    "sums": "result",
    "committee": "set-up",
    "state": "connections",
}
_BY_NAME = {"receipt": "receipt", "decline": "decline"}
_PUBLISH = 3
_BY_PACKET = {
    **dict.fromkeys((1, 2, 14), "connections"),
    4: "acknowledgements",
    **dict.fromkeys((8, 9, 10, 11), "subscriptions"),
    **dict.fromkeys((12, 13), "pings"),
}


def item_of(topic: str) -> str:
    """What the payload of a message on this topic is (docs/protocol.md, section 11.5)."""
    segments = topic.split("/")
    match segments[2:3], segments[-3:]:
        case ["up"], ["upload", _, chunk]:
            return "header" if chunk == "0" else "chunks"
        case ["up" | "down"], [name, _, _]:
            return _BY_NAME.get(name, "mask sums")
        case [kind], _:
            return _BY_KIND.get(kind, "topics")
    return "topics"


class Lane:
    """One direction of a link, over all its connections.

    Attributes:
        bytes: MQTT bytes inside TLS.
        line: bytes of TLS records: what the socket carried. TCP and IP are not counted.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.line = 0
        self._counts = dict.fromkeys(ITEMS, 0)
        self.begin()

    def begin(self) -> None:
        """A new connection: no packet of the one before goes on."""
        self._head = bytearray()
        self._item, self._left = "", 0

    def counts(self) -> dict[str, int]:
        """Bytes by item; together they are `line`."""
        return {**self._counts, "TLS": self.line - self.bytes}

    def take(self, data: bytes) -> None:
        """Count the next bytes of the MQTT stream, wherever they were cut."""
        self.bytes += len(data)
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                self._counts[self._item] += taken
                self._left -= taken
            else:
                taken = self._begin_packet(data[at : at + _lacking(self._head)])
            at += taken

    def _begin_packet(self, data: bytes) -> int:
        """Take more of what stands before a packet's payload; the bytes taken."""
        head = self._head
        head += data
        if not _lacking(head):
            length, start = _number(head, 1) or (0, len(head))
            is_message = head[0] >> 4 == _PUBLISH
            kind = "topics" if is_message else _BY_PACKET.get(head[0] >> 4, "connections")
            self._counts[kind] += len(head)
            self._left = max(0, start + length - len(head))
            self._item = item_of(_topic(head, start)) if is_message else kind
            self._head = bytearray()
        return len(data)


def _lacking(head: bytearray) -> int:
    """How many bytes are certainly missing until a packet's payload begins (MQTT 5, sections 2.1 and 3.3)."""
    if len(head) < 2:
        return 2 - len(head)
    if (length := _number(head, 1)) is None:
        return 1
    if head[0] >> 4 != _PUBLISH:
        return 0
    at = length[1] + 2
    if len(head) < at:
        return at - len(head)
    at += int.from_bytes(head[at - 2 : at], "big") + (2 if head[0] & 0b110 else 0)
    if len(head) < at + 1:
        return at + 1 - len(head)
    if (properties := _number(head, at)) is None:
        return 1
    return max(0, properties[1] + properties[0] - len(head))


def _topic(head: bytearray, start: int) -> str:
    size = int.from_bytes(head[start : start + 2], "big")
    return head[start + 2 : start + 2 + size].decode(errors="replace")


def _number(head: bytearray, at: int) -> tuple[int, int] | None:
    """The variable byte integer there and where it ends; None if it is not all here."""
    value = 0
    for place, octet in enumerate(head[at : at + 4]):
        value |= (octet & 0x7F) << 7 * place
        if octet < 0x80 or place == 3:
            return value, at + place + 1
    return None
