"""Which filters the link listens on, and what of it the broker still has to be told. No I/O."""

from collections import OrderedDict

ALWAYS, IF_NEW = 0, 1
"""Retain handling (MQTT 5, section 3.8.3.1): retained messages come with every subscription, or only with a new one."""

Handling = int | None
"""How to subscribe; None is to unsubscribe."""


class Subscriptions:
    """Filters that are wanted, and requests in their order."""

    def __init__(self) -> None:
        self._wanted: dict[str, None] = {}
        self._requests: OrderedDict[str, Handling] = OrderedDict()
        self._asked: dict[int, tuple[str, Handling]] = {}

    def want(self, topic: str, again: bool = True) -> None:
        """Subscribe to a filter; asked again, its retained messages come again, unless `again` says otherwise."""
        self._wanted[topic] = None
        if again or self._requests.get(topic) != ALWAYS:
            self._request(topic, ALWAYS if again else IF_NEW)

    def release(self, topic: str) -> None:
        """Unsubscribe from a filter."""
        self._wanted.pop(topic, None)
        self._request(topic, None)

    def take(self) -> tuple[str, Handling] | None:
        """The next request to send, if there is one; `asked` follows."""
        return self._requests.popitem(last=False) if self._requests else None

    def asked(self, number: int, topic: str, handling: Handling) -> None:
        """The request has gone out under a packet number."""
        self._asked[number] = (topic, handling)

    def answered(self, number: int, granted: bool) -> str | None:
        """The broker has answered a request; its filter, if that is not granted and thus not wanted any more."""
        topic, handling = self._asked.pop(number)
        if granted or handling is None:
            return None
        self._wanted.pop(topic, None)
        return topic

    @property
    def open(self) -> bool:
        """Whether an answer of the broker is owed."""
        return bool(self._asked)

    def rewind(self) -> None:
        """The connection is lost: what was not answered is requested again, in front."""
        for topic, handling in reversed(self._asked.values()):
            if topic not in self._requests:
                self._requests[topic] = handling
                self._requests.move_to_end(topic, last=False)
        self._asked.clear()

    def renew(self) -> None:
        """The broker has no session of ours: everything wanted is requested again."""
        self._requests = OrderedDict.fromkeys(self._wanted, ALWAYS)

    def _request(self, topic: str, handling: Handling) -> None:
        self._requests[topic] = handling
        self._requests.move_to_end(topic)
