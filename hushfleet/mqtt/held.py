"""What the broker is known to keep of ours on this connection, so that nothing of it is published again. No I/O.

Every message published again goes to every device that listens. A broker may have lost any of it, so each connection
begins with listening to what is there; our own state topic comes last, and whatever has not come until then is missing.
"""

from collections.abc import Sequence
from hashlib import blake2b


class Held:
    """What came of our own retained messages since the connection was made.

    Args:
        filters: all that is retained by us.
        last: our own state topic, which ends the listening.
    """

    def __init__(self, filters: Sequence[str], last: str) -> None:
        self.filters = (*filters, last)
        self.listening = False
        self._last = last
        self._patterns = [filter_.split("/") for filter_ in filters]
        self._hashes: dict[str, bytes] = {}
        self._replaced: set[str] = set()

    def begin(self) -> None:
        """A new connection: nothing is known of what the broker keeps."""
        self.listening = True
        self._hashes.clear()
        self._replaced.clear()

    def end(self) -> None:
        """What has not come is missing."""
        self.listening = False

    def forget(self) -> None:
        """The connection is lost."""
        self.begin()
        self.end()

    def take(self, topic: str, payload: bytes) -> bool:
        """Whether this message is one of those listened to; one on `last` ends the listening."""
        if not self.listening:
            return False
        if topic == self._last:
            self.end()
            return True
        if not any(_matches(pattern, topic.split("/")) for pattern in self._patterns):
            return False
        if topic not in self._replaced:
            self._hashes[topic] = _hash(payload)
        return True

    def has(self, topic: str, payload: bytes) -> bool:
        """Whether the broker keeps just this; what it keeps is about to be replaced if not."""
        if self._hashes.get(topic) == _hash(payload):
            return True
        self._replaced.add(topic)
        self._hashes.pop(topic, None)
        return False


def _hash(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=32).digest()


def _matches(pattern: list[str], segments: list[str]) -> bool:
    return len(pattern) == len(segments) and all(
        part in ("+", segment) for part, segment in zip(pattern, segments, strict=True)
    )
