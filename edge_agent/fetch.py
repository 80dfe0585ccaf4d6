"""Fetching what others keep retained on the broker, by exact topic, a window of chunks at a time. No I/O."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from hushfleet.actions import Action, Subscribe, Unsubscribe
from hushfleet.errors import RefusedError
from hushfleet.mqtt.inbox import Inbox

REST = 30.0
"""Seconds before something that arrived wrong, or of which nothing arrived, is asked for again."""


@dataclass(slots=True)
class _Want:
    topic: Callable[[int], str]
    limit: int
    quiet_since: float
    open: dict[str, int] = field(default_factory=dict)


class Fetcher:
    """Everything this device is waiting for, each under a name of the caller's.

    Args:
        window: chunks asked for at once.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._wants: dict[Hashable, _Want] = {}
        self._by_topic: dict[str, Hashable] = {}
        self._resting: dict[Hashable, float] = {}
        self._inbox = Inbox()

    def want(self, name: Hashable, topic: Callable[[int], str], limit: int, now: float) -> list[Action]:
        """Ask for a message of at most `limit` bytes; again when it is quiet, for brokers drop at a queue limit."""
        if self._resting.get(name, 0.0) > now:
            return []
        want = self._wants.get(name)
        if want is None:
            self._wants[name] = _Want(topic, limit, now)
            return self._listen(name, [0])
        if now < want.quiet_since + REST:
            return []
        want.quiet_since = now
        return [Subscribe(open_topic) for open_topic in want.open]

    def rest(self, name: Hashable, now: float) -> None:
        """What arrived under this name was wrong: leave it alone for a while."""
        self._resting[name] = now + REST

    def keep_only(self, kind: str, names: set[Hashable]) -> list[Action]:
        """Stop waiting for every (kind, …) that is not among `names`."""
        gone = [name for name in self._wants if isinstance(name, tuple) and name[0] == kind and name not in names]
        return [action for name in gone for action in self._drop(name)]

    def topics(self) -> list[str]:
        """What is being listened to."""
        return list(self._by_topic)

    def wanted(self, topic: str) -> bool:
        """Whether a message on this topic is for the fetcher."""
        return topic in self._by_topic

    def offer(self, topic: str, payload: bytes, now: float) -> tuple[list[Action], tuple[Hashable, bytes] | None]:
        """Take what arrived; (name, message) when one is complete.

        Raises:
            MalformedError, RefusedError: a chunk that does not fit; it is still waited for.
        """
        name = self._by_topic[topic]
        want = self._wants[name]
        chunk = want.open[topic]
        if not payload:
            raise RefusedError("the message was cleared")
        want.quiet_since = now
        whole = self._inbox.offer(name, chunk, payload, want.limit)
        if whole is not None:
            return self._drop(name), (name, whole)
        if chunk == 0:
            return self._listen(name, self._next_chunks(name)), None
        del self._by_topic[topic], want.open[topic]
        return [Unsubscribe(topic), *self._listen(name, self._next_chunks(name))], None

    def _next_chunks(self, name: Hashable) -> list[int]:
        """Missing chunks that are not being listened to, as many as the window has room for. Chunk 0 stays open."""
        listening = set(self._wants[name].open.values())
        room = self._window + 1 - len(listening)
        return [chunk for chunk in self._inbox.missing(name) if chunk not in listening][: max(0, room)]

    def _listen(self, name: Hashable, chunks: list[int]) -> list[Action]:
        want = self._wants[name]
        actions: list[Action] = []
        for chunk in chunks:
            topic = want.topic(chunk)
            want.open[topic] = chunk
            self._by_topic[topic] = name
            actions.append(Subscribe(topic))
        return actions

    def _drop(self, name: Hashable) -> list[Action]:
        want = self._wants.pop(name)
        self._inbox.forget(name)
        for topic in want.open:
            del self._by_topic[topic]
        return [Unsubscribe(topic) for topic in want.open]
