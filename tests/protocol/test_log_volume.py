"""However many messages a stranger sends, coordinator and devices write no more lines for it."""

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from world import RoundSettings, World, make_fleet

from coordinator.conductor import Conductor
from hushfleet.actions import Note
from hushfleet.journal import FEW, Journal
from hushfleet.mqtt.topics import Topics

LIAR = 7
"""A certified participant; a member under the topics that only members may write."""

Flood = Callable[[Topics, int], list[tuple[str, bytes]]]
"""What is sent the n-th time."""


def flooded(hostile: Flood, receiver: int, times: int, stage: str = "plan") -> Counter[str]:
    """The lines, by event, that a machine writes when these messages come again and again."""
    world = World(make_fleet(3, 4), rounds=RoundSettings(collect=3600))
    world.training_time = lambda index, plan: 1000.0
    world.run(world.noted(0, stage))
    if stage == "plan":
        world.run_for(1.0)
    stream = io.StringIO()
    journal = Journal("json", stream, lambda: world.now)
    node, topics = world.nodes[receiver], Topics(world.keys.fleet)
    for number in range(times):
        for topic, payload in hostile(topics, number):
            actions: Sequence[Any]
            if isinstance(node, Conductor):
                actions = node.on_message(topic, payload, False, world.now)
            else:
                actions = node.on_message(topic, payload, world.now)
            for action in actions:
                if isinstance(action, Note) and action.sender:
                    journal.hear(action.event, action.sender, **action.fields)
                elif isinstance(action, Note):
                    journal.write(action.event, **action.fields)
    journal.close()
    return Counter(str(json.loads(line)["event"]) for line in stream.getvalue().splitlines())


def chunks_without_header(topics: Topics, number: int) -> list[tuple[str, bytes]]:
    return [(topics.up(0, LIAR, "upload", 1, 1 + number), bytes([number % 251]))]


def headers_of_many_kinds(topics: Topics, number: int) -> list[tuple[str, bytes]]:
    return [
        (topics.up(0, LIAR, kind, number if kind == "upload" else 1, 0), b"\x93\xa6header" + number.to_bytes(4, "big"))
        for kind in ("upload", "masksum", "share", "decline", "nonsense")
    ]


def set_up_messages(topics: Topics, number: int) -> list[tuple[str, bytes]]:
    return [(topics.card(1, member), b"no card %d" % number) for member in range(1, 5)]


def topics_of_nobody(topics: Topics, number: int) -> list[tuple[str, bytes]]:
    return [(f"hf/{topics.fleet}/{'x' * (number % 90)}/{number}", b"?"), ("", b"?"), ("#" * 5000, b"!")]


def what_the_coordinator_sends(topics: Topics, number: int) -> list[tuple[str, bytes]]:
    return [
        (topics.plan(), b"a plan %d" % number),
        (topics.manifest(), b"a manifest %d" % number),
        (topics.date(), b"a date %d" % number),
        (topics.result(number), b"a result"),
        (topics.call(number), b"a call"),
        (topics.down(LIAR, "receipt", number, 0), b"a receipt"),
        (topics.down(LIAR, "survivors", number, number % 9), b"%d" % number),
        (topics.down(LIAR, "blame", number, 0), b"%d" % number),
    ]


@pytest.mark.parametrize(
    ("hostile", "stage"),
    [
        (chunks_without_header, "plan"),
        (headers_of_many_kinds, "plan"),
        (topics_of_nobody, "plan"),
        (set_up_messages, "call"),
    ],
)
def test_a_hostile_device_or_broker_fills_no_log_of_the_coordinators(hostile: Flood, stage: str) -> None:
    many, senders = flooded(hostile, 0, 1000, stage), 4
    assert many["folded"] >= 1
    assert sum(many.values()) <= senders * (FEW + 1)


@pytest.mark.parametrize("hostile", [what_the_coordinator_sends, topics_of_nobody])
def test_a_hostile_coordinator_or_broker_fills_no_log_of_a_devices(hostile: Flood) -> None:
    for receiver in (1, LIAR):
        many, senders = flooded(hostile, receiver, 1000), 100
        assert many["folded"] >= 1
        assert sum(many.values()) <= senders * (FEW + 1)


def test_a_lost_header_is_one_line() -> None:
    assert flooded(chunks_without_header, 0, 300) == {"refused": 1, "folded": 1}
