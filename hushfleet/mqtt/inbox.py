"""Messages longer than one chunk, on their way in and out (docs/protocol.md, section 11.5)."""

from collections.abc import Callable, Hashable, Iterator

from hushfleet.actions import Publish
from hushfleet.errors import MalformedError, RefusedError
from hushfleet.mqtt.chunks import HEADER_MARK, Assembly, chunk_hashes, cut
from hushfleet.wire.framing import Frame, read_unsigned
from hushfleet.wire.round import Chunks


def payloads(data: bytes, size: int) -> list[bytes]:
    """What goes out on the topics of chunk 0, 1, 2, …: one message, or a `chunks` header and slices of `size` bytes."""
    if len(data) <= size:
        return [data]
    slices = cut(data, size)
    header = Chunks(len(data), size, chunk_hashes(slices))
    return [Frame(Chunks.KIND, header.to_body()).to_bytes(), *slices]


def publishes(topic: Callable[[int], str], data: bytes, size: int, retain: bool = False) -> Iterator[Publish]:
    """One message, or a `chunks` header and its slices if `data` exceeds `size` bytes.

    Args:
        topic: the topic of chunk 0, 1, 2, …
        data: the frame or sealed box.
        size: the sender's chunk size, 256 to 61,440.
        retain: whether the broker keeps it.
    """
    for number, payload in enumerate(payloads(data, size)):
        yield Publish(topic(number), payload, retain)


def chunk_topics(topic: Callable[[int], str], length: int, size: int) -> list[str]:
    """The topics that `publishes` writes for `length` bytes."""
    return [topic(number) for number in range(-(-length // size) + 1 if length > size else 1)]


class Inbox:
    """Puts messages of several chunks together, each under a key of the caller's."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Assembly] = {}

    def offer(self, key: Hashable, chunk: int, payload: bytes, limit: int) -> bytes | None:
        """Take one chunk; the whole message when it is complete.

        Args:
            key: names the message, whatever else arrives meanwhile.
            chunk: the topic's chunk number.
            payload: what arrived there.
            limit: bytes of the whole, at most; a longer one is refused at its header.

        Raises:
            MalformedError: a header of another form or length.
            RefusedError: a slice without its header, or one that does not match it.
        """
        if chunk == 0:
            return self._begin(key, payload, limit)
        if key not in self._open:
            raise RefusedError("a chunk came without its header")
        assembly = self._open[key]
        assembly.offer(chunk - 1, payload)
        return self._take(key) if assembly.complete else None

    def _begin(self, key: Hashable, payload: bytes, limit: int) -> bytes | None:
        if not payload.startswith(HEADER_MARK):
            if len(payload) > limit:
                raise MalformedError(f"longer than {limit} bytes")
            self.forget(key)
            return payload
        header = read_unsigned(Frame.from_bytes(payload), Chunks)
        if header.length > limit:
            raise MalformedError(f"longer than {limit} bytes")
        known = self._open.get(key)
        if known is None or known.hashes != header.hashes:
            self._open[key] = Assembly(header.length, header.size, header.hashes)
        return None

    def missing(self, key: Hashable) -> list[int]:
        """The chunk numbers, from 1, that are still to come; empty if there is no open message of that key."""
        return [index + 1 for index in self._open[key].missing()] if key in self._open else []

    def _take(self, key: Hashable) -> bytes:
        return self._open.pop(key).data()

    def forget(self, key: Hashable) -> None:
        """Drop what has arrived under this key."""
        self._open.pop(key, None)
