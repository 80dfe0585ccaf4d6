"""Which filters the link listens on, and what of it the broker still has to be told. No I/O."""

from collections import OrderedDict
from collections.abc import Sequence

ALWAYS, IF_NEW = 0, 1
"""Retain handling (MQTT 5, section 3.8.3.1): retained messages come with every subscription, or only with a new one."""

MOST = 50
"""Filters in one request: all of them are one packet and one answer."""

Handling = int | None
"""How to subscribe; None is to unsubscribe."""
Request = list[tuple[str, Handling]]
"""Filters to subscribe to, or to unsubscribe from, in one packet."""


class Subscriptions:
    """Filters that are wanted, and requests in their order."""

    def __init__(self) -> None:
        self._wanted: dict[str, None] = {}
        self._requests: OrderedDict[str, Handling] = OrderedDict()
        self._asked: dict[int, Request] = {}

    def want(self, topic: str, again: bool = True) -> None:
        """Subscribe to a filter; asked again, its retained messages come again, unless `again` says otherwise."""
        self._wanted[topic] = None
        if again or self._requests.get(topic) != ALWAYS:
            self._request(topic, ALWAYS if again else IF_NEW)

    def release(self, topic: str) -> None:
        """Unsubscribe from a filter."""
        self._wanted.pop(topic, None)
        self._request(topic, None)

    def take(self) -> Request:
        """The next filters to ask for in one packet, all to subscribe or all to unsubscribe; `asked` follows."""
        request: Request = []
        while self._requests and len(request) < MOST:
            handling = next(iter(self._requests.values()))
            if request and (handling is None) != (request[0][1] is None):
                break
            request.append(self._requests.popitem(last=False))
        return request

    def asked(self, number: int, request: Request) -> None:
        """The request has gone out under a packet number."""
        self._asked[number] = request

    def answered(self, number: int, granted: Sequence[bool]) -> list[str]:
        """The broker has answered a request; the filters that are not granted and thus not wanted any more."""
        request = self._asked.pop(number)
        refused = [
            topic
            for (topic, handling), is_granted in zip(request, granted, strict=False)
            if handling is not None and not is_granted
        ]
        for topic in refused:
            self._wanted.pop(topic, None)
        return refused

    @property
    def open(self) -> bool:
        """Whether an answer of the broker is owed."""
        return bool(self._asked)

    def rewind(self) -> None:
        """The connection is lost: what was not answered is requested again, in front."""
        asked = [one for request in self._asked.values() for one in request]
        for topic, handling in reversed(asked):
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
