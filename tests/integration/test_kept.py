"""A service that connects again publishes of what it retains only what the broker does not keep."""

import signal
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from link_tools import COORDINATOR, DEVICE, TOPICS, Recorder, Site, linked

from broker.local import LocalBroker
from hushfleet.actions import RETAINED, Publish, retained
from hushfleet.journal import Journal
from hushfleet.mqtt.events import Delivered, Message
from hushfleet.scratch import ScratchStore
from hushfleet.service import Service

pytestmark = pytest.mark.integration

END = TOPICS.down(DEVICE, "receipt", 1)
OURS = {
    TOPICS.manifest(): b"manifest",
    TOPICS.plan(): b"plan",
    TOPICS.result(7): b"result",
    TOPICS.model(3, "delta", 0): bytes(5000),
}


class Keeper:
    """A role that keeps four messages on the broker, and is at the end when one more is delivered."""

    def __init__(self, store: ScratchStore, stop: Any) -> None:
        self.refusals: Counter[str] = Counter()
        self.delivered: list[str] = []
        self._store, self._stop = store, stop

    def on_connected(self, session_present: bool, now: float) -> list[Any]:
        return [*retained(self._store), Publish(END, b"end")]

    def on_delivered(self, topic: str, now: float) -> list[Any]:
        self.delivered.append(topic)
        if topic == END:
            self._stop()
        return []

    def on_message(self, topic: str, payload: bytes, now: float) -> list[Any]:
        return []

    def on_undelivered(self, topic: str, now: float) -> list[Any]:
        return []

    def on_wake(self, now: float) -> list[Any]:
        return []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def broker(site: Site, tmp_path: Path) -> Iterator[LocalBroker]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with site.broker(tmp_path) as broker:
        yield broker
    for number, handler in handlers.items():
        signal.signal(number, handler)


def serve(site: Site, broker: LocalBroker, ours: dict[str, bytes]) -> list[str]:
    """Run a service with these retained messages until all of it is delivered; what it was told is, in order."""
    store = ScratchStore()
    store.begin()
    for topic, payload in ours.items():
        store.save(RETAINED + topic, payload)
    store.commit()
    settings = site.settings(COORDINATOR, broker.port, will_topic=TOPICS.state(COORDINATOR), will_payload=b"offline")
    service = Service(
        lambda: Keeper(store, lambda: service.runner.stop()),
        store,
        settings,
        Journal("json", StringIO()),
        lambda action: None,
        lambda message: lambda role, now: role.on_message(message.topic, message.payload, now),
        site.directory / "status.json",
        lambda role: {},
        kept=TOPICS.kept(),
    )
    service.run(lambda role, now: [], b"online")
    delivered: list[str] = service.runner.role.delivered
    return [topic for topic in delivered if topic != TOPICS.state(COORDINATOR)]


def came(seen: Recorder) -> list[str]:
    """The topics of what arrived until the end."""
    seen.wait(Message, lambda message: message.topic == END)
    topics = [message.topic for message in seen.of(Message)]
    seen.seen.clear()
    return topics


def test_only_what_the_broker_lacks_is_published_again(site: Site, broker: LocalBroker) -> None:
    with linked(site.settings(DEVICE, broker.port)) as (device, seen):
        for topic in (*OURS, END):
            device.subscribe(topic)
        device.publish(TOPICS.state(DEVICE), b"subscribed", retain=True)
        seen.wait(Delivered)
        seen.seen.clear()
        everything = [*sorted(OURS), END]
        assert sorted(serve(site, broker, OURS)) == sorted(everything)
        assert sorted(came(seen)) == sorted(everything)
        for _ in range(2):
            assert sorted(serve(site, broker, OURS)) == sorted(everything), "the role hears of all of it"
            assert came(seen) == [END]
        assert END in serve(site, broker, OURS | {TOPICS.plan(): b"a newer plan"})
        assert came(seen) == [TOPICS.plan(), END]
        with linked(site.settings(COORDINATOR, broker.port)) as (other, other_seen):
            other.publish(TOPICS.manifest(), b"", retain=True)
            other.publish(TOPICS.model(3, "delta", 0), b"another", retain=True)
            other_seen.wait(Delivered)
            other_seen.wait(Delivered)
        serve(site, broker, OURS)
        assert sorted(came(seen)[2:]) == sorted([TOPICS.manifest(), TOPICS.plan(), TOPICS.model(3, "delta", 0), END])
