"""What counts as kept by the broker, and until when."""

from hushfleet.mqtt.held import Held
from hushfleet.mqtt.topics import Topics

TOPICS = Topics(bytes(16))
LAST = TOPICS.state(1)


def listening() -> Held:
    held = Held(TOPICS.kept(), LAST)
    held.begin()
    return held


def test_it_listens_until_its_own_topic_comes() -> None:
    held = listening()
    assert held.take(TOPICS.plan(), b"plan")
    assert held.take(TOPICS.model(3, "delta", 12), b"chunk")
    assert not held.take(TOPICS.up(0, 7, "upload", 1), b"a device's")
    assert held.take(LAST, b"online")
    assert not held.listening
    assert not held.take(TOPICS.result(1), b"later")
    assert held.has(TOPICS.plan(), b"plan")
    assert held.has(TOPICS.model(3, "delta", 12), b"chunk")
    assert not held.has(TOPICS.result(1), b"later")


def test_what_is_published_meanwhile_is_not_what_was_there() -> None:
    held = listening()
    assert not held.has(TOPICS.plan(), b"new")
    assert held.take(TOPICS.plan(), b"old")
    assert not held.has(TOPICS.plan(), b"old")
    held.end()
    assert not held.has(TOPICS.plan(), b"old")


def test_what_is_replaced_or_on_another_connection_is_not_kept() -> None:
    held = listening()
    held.take(TOPICS.plan(), b"plan")
    held.take(TOPICS.date(), b"date")
    held.end()
    assert not held.has(TOPICS.plan(), b"another")
    assert not held.has(TOPICS.plan(), b"plan")
    held.forget()
    assert not held.has(TOPICS.date(), b"date")


def test_everything_that_a_coordinator_keeps_is_listened_to() -> None:
    held = listening()
    for topic in (
        TOPICS.root(2),
        TOPICS.manifest(),
        TOPICS.date(),
        TOPICS.certificate(7),
        TOPICS.document("roster", 3, 0),
        TOPICS.call(1),
        TOPICS.list(1),
        TOPICS.transcript(1, 4),
        TOPICS.plan(),
        TOPICS.result(9),
        TOPICS.model(4, "snapshot", 2),
    ):
        assert held.take(topic, b"x"), topic
