"""Which filters the link listens on, and what of it the broker still has to be told. No I/O."""

from collections import OrderedDict


class Subscriptions:
    """Filters that are wanted, and requests in their order: to subscribe (True) or to unsubscribe (False)."""

    def __init__(self) -> None:
        self._wanted: dict[str, None] = {}
        self._requests: OrderedDict[str, bool] = OrderedDict()
        self._asked: dict[int, tuple[str, bool]] = {}

    def want(self, topic: str) -> None:
        """Subscribe to a filter; asked again, its retained messages come again."""
        self._wanted[topic] = None
        self._request(topic, True)

    def release(self, topic: str) -> None:
        """Unsubscribe from a filter."""
        self._wanted.pop(topic, None)
        self._request(topic, False)

    def take(self) -> tuple[str, bool] | None:
        """The next request to send, if there is one; `asked` follows."""
        return self._requests.popitem(last=False) if self._requests else None

    def asked(self, number: int, topic: str, subscribe: bool) -> None:
        """The request has gone out under a packet number."""
        self._asked[number] = (topic, subscribe)

    def answered(self, number: int, granted: bool) -> str | None:
        """The broker has answered a request; its filter, if that is not granted and thus not wanted any more."""
        topic, subscribe = self._asked.pop(number)
        if granted or not subscribe:
            return None
        self._wanted.pop(topic, None)
        return topic

    @property
    def open(self) -> bool:
        """Whether an answer of the broker is owed."""
        return bool(self._asked)

    def rewind(self) -> None:
        """The connection is lost: what was not answered is requested again, in front."""
        for topic, subscribe in reversed(self._asked.values()):
            if topic not in self._requests:
                self._requests[topic] = subscribe
                self._requests.move_to_end(topic, last=False)
        self._asked.clear()

    def renew(self) -> None:
        """The broker has no session of ours: everything wanted is requested again."""
        self._requests = OrderedDict.fromkeys(self._wanted, True)

    def _request(self, topic: str, subscribe: bool) -> None:
        self._requests[topic] = subscribe
        self._requests.move_to_end(topic)
