"""The outbox: order, window, superseding, giving up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hushfleet.errors import RefusedError
from hushfleet.mqtt.outbox import Outbox, Outgoing


def taken(outbox: Outbox) -> list[tuple[str, bytes]]:
    result = []
    while message := outbox.take():
        result.append((message.topic, message.payload))
    return result


def test_first_in_first_out_up_to_the_window() -> None:
    outbox = Outbox(window=3, largest_payload=10, attempts=5)
    for number in range(5):
        outbox.put("a", bytes([number]), retain=False)
    messages = [outbox.take() for _ in range(4)]
    assert [message.payload for message in messages if message] == [b"\0", b"\1", b"\2"]
    assert messages[3] is None
    assert (outbox.in_flight, len(outbox)) == (3, 5)
    assert messages[1] is not None
    outbox.settle(messages[1])
    assert taken(outbox) == [("a", b"\3")]


def test_a_newer_retained_message_supersedes_the_waiting_one_and_goes_to_the_end() -> None:
    outbox = Outbox(window=9, largest_payload=10, attempts=5)
    outbox.put("plan", b"1", retain=True)
    outbox.put("doc", b"x", retain=True)
    outbox.put("plan", b"2", retain=True)
    outbox.put("plan", b"2", retain=False)
    assert taken(outbox) == [("doc", b"x"), ("plan", b"2"), ("plan", b"2")]


def test_what_is_left_behind_is_all_that_waits_and_is_not_retained() -> None:
    outbox = Outbox(window=1, largest_payload=10, attempts=5)
    for topic, retain in (("up/1", False), ("state", True), ("up/2", False)):
        outbox.put(topic, b"x", retain)
    outbox.take()
    outbox.rewind()
    assert [message.topic for message in outbox.leave_behind()] == ["up/1", "up/2"]
    assert taken(outbox) == [("state", b"x")]
    assert len(outbox) == 1


def test_a_retained_message_in_flight_is_not_superseded() -> None:
    outbox = Outbox(window=1, largest_payload=10, attempts=5)
    outbox.put("plan", b"1", retain=True)
    first = outbox.take()
    assert first is not None
    outbox.put("plan", b"2", retain=True)
    outbox.settle(first)
    assert taken(outbox) == [("plan", b"2")]


def test_a_superseded_message_is_not_sent_again_after_a_lost_connection() -> None:
    outbox = Outbox(window=2, largest_payload=10, attempts=5)
    outbox.put("plan", b"1", retain=True)
    outbox.put("up", b"x", retain=False)
    assert len(taken(outbox)) == 2
    outbox.put("plan", b"2", retain=True)
    assert outbox.rewind() is None
    assert taken(outbox) == [("up", b"x"), ("plan", b"2")]


def test_what_is_offered_again_while_it_waits_is_queued_once() -> None:
    outbox = Outbox(window=9, largest_payload=10, attempts=5)
    for _ in range(3):
        outbox.put("up/0", b"header", retain=False)
        outbox.put("up/1", b"slice", retain=False)
    assert taken(outbox) == [("up/0", b"header"), ("up/1", b"slice")]


def test_a_lost_connection_returns_everything_in_order() -> None:
    outbox = Outbox(window=3, largest_payload=10, attempts=5)
    for number in range(5):
        outbox.put("a", bytes([number]), retain=False)
    first = outbox.take()
    assert first is not None
    taken(outbox)
    outbox.settle(first)
    assert outbox.rewind() is None
    assert outbox.in_flight == 0
    assert taken(outbox) == [("a", bytes([number])) for number in (1, 2, 3)]


def test_the_same_head_failing_too_often_is_given_up_and_the_rest_passes() -> None:
    outbox = Outbox(window=2, largest_payload=10, attempts=3)
    for name in ("poison", "a", "b"):
        outbox.put(name, b"", retain=False)
    dropped = []
    for _ in range(3):
        taken(outbox)
        dropped.append(outbox.rewind())
    assert [message.topic if message else None for message in dropped] == [None, None, "poison"]
    assert [topic for topic, _ in taken(outbox)] == ["a", "b"]


def test_waiting_through_lost_connections_is_no_failure() -> None:
    outbox = Outbox(window=1, largest_payload=10, attempts=2)
    outbox.put("a", b"", retain=False)
    for _ in range(5):
        assert outbox.rewind() is None
    assert len(outbox) == 1


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\0b", "x" * 65_536])
def test_what_is_no_topic_is_refused(topic: str) -> None:
    outbox = Outbox(window=1, largest_payload=10, attempts=5)
    with pytest.raises(RefusedError):
        outbox.put(topic, b"", retain=False)
    assert len(outbox) == 0


def test_too_large_a_payload_is_refused_with_its_size_and_the_limit() -> None:
    outbox = Outbox(window=1, largest_payload=10, attempts=5)
    outbox.put("a", bytes(10), retain=False)
    with pytest.raises(RefusedError, match="11 bytes on a exceeds the limit of 10"):
        outbox.put("a", bytes(11), retain=False)
    assert len(outbox) == 1


class Model(RuleBasedStateMachine):
    """Every message put is in the end settled once or superseded; per topic the order never turns back."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(window=3, largest_payload=10, attempts=1000)
        self.flying: list[Outgoing] = []
        self.count = 0
        self.unretained: list[int] = []
        self.settled: dict[tuple[str, bool], list[int]] = {}
        self.put_last: dict[tuple[str, bool], int] = {}

    @rule(topic=st.sampled_from("ab"), retain=st.booleans())
    def put(self, topic: str, retain: bool) -> None:
        self.count += 1
        self.outbox.put(topic, self.count.to_bytes(4, "big"), retain)
        self.put_last[topic, retain] = self.count
        if not retain:
            self.unretained.append(self.count)

    @rule()
    def take(self) -> None:
        if message := self.outbox.take():
            self.flying.append(message)

    @rule()
    def settle(self) -> None:
        if self.flying:
            message = self.flying.pop(0)
            self.outbox.settle(message)
            number = int.from_bytes(message.payload, "big")
            self.settled.setdefault((message.topic, message.retain), []).append(number)

    @rule()
    def lose(self) -> None:
        self.flying.clear()
        assert self.outbox.rewind() is None

    @invariant()
    def holds(self) -> None:
        assert self.outbox.in_flight == len(self.flying) <= 3

    def teardown(self) -> None:
        while len(self.outbox):
            self.take()
            self.settle()
        for line, numbers in self.settled.items():
            assert numbers == sorted(set(numbers))
            assert numbers[-1] == self.put_last[line]
        assert self.settled.keys() == self.put_last.keys()
        unretained = [number for (_, retain), numbers in self.settled.items() if not retain for number in numbers]
        assert sorted(unretained) == self.unretained


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30)


@settings(max_examples=30)
@given(count=st.integers(1, 40), window=st.integers(1, 5))
def test_nothing_but_the_superseded_is_lost(count: int, window: int) -> None:
    outbox = Outbox(window, largest_payload=10, attempts=5)
    for number in range(count):
        outbox.put("a", bytes([number]), retain=False)
    seen = []
    while message := outbox.take():
        seen.append(message.payload[0])
        outbox.settle(message)
    assert seen == list(range(count))
