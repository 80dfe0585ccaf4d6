"""A vault put back from a copy: it answers nothing that may have begun before, and is of use again (section 3).

The broker hides what the machine said after the copy was made, so that nothing but its own store tells it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import pytest
from adversary import Adversary
from memory_broker import Sent
from witness import Witness
from world import Crash, RoundSettings, World, make_fleet

from edge_agent.member import ANSWER, Answer
from edge_agent.participant import UPLOAD
from edge_agent.restoration import RECORD
from edge_agent.sheets import Attempt
from hushfleet.actions import RESTORED, RETAINED, Publish
from hushfleet.mqtt.topics import Topics
from hushfleet.wire.committee import Call
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import Header, Plan

MEMBER, PARTICIPANT = 2, 6
SETTINGS = RoundSettings(collect=60, answer=10, recover=60, pause=60, total=0)
SKEW = 300
"""Seconds by which clocks may differ, with epochs of a week."""


def make_world() -> World:
    """Four members of whom three are enough, epochs of four rounds, a round a minute."""
    return World(make_fleet(4, 4, epoch_rounds=4), rounds=SETTINGS, seed="restored")


def put_back(world: World, index: int, copy: dict[str, bytes]) -> None:
    """Kill a machine and start it from a copy, while the broker has lost whatever it retained there."""
    world.crash(index)
    world.put_back(index, copy)
    # What is on its way to the machine is lost with it.
    world.run_for(0.1)
    hide(world, index)
    world.start(index)


def hide(world: World, index: int) -> None:
    """The broker forgets what a machine retains."""
    topics = Topics(world.keys.fleet)
    for topic in [topic for topic in world.broker.retained if topics.parse(topic).device == index]:
        if topics.parse(topic).kind in ("card", "key", "share", "ready"):
            del world.broker.retained[topic]


def attempt(world: World, epoch: int) -> Attempt | None:
    """What the member's records hold of a set-up."""
    saved = world.records[MEMBER].data.get(f"setup/{epoch:010}")
    return Attempt.from_body(saved) if saved else None


def said(world: World, index: int, *kinds: str) -> dict[tuple[str, int, int, int], set[bytes]]:
    """What a machine ever said in set-ups, by kind, epoch, receiver and chunk; what it took back is left out."""
    found: dict[tuple[str, int, int, int], set[bytes]] = defaultdict(set)
    for sent in world.broker.log:
        at = Topics(world.keys.fleet).parse(sent.topic)
        if sent.sender == index and sent.payload and at.kind in kinds:
            found[at.kind, at.epoch, at.to, at.chunk].add(sent.payload)
    return found


def sent_to(world: World, kind: str) -> list[Sent]:
    topics = Topics(world.keys.fleet)
    return [sent for sent in world.broker.log if sent.payload and topics.parse(sent.topic).kind == kind]


def test_a_member_sits_its_epoch_out_is_recovered_and_takes_part_in_the_next() -> None:
    world = make_world()
    world.run(world.rounds_ended(1))
    copy = dict(world.records[MEMBER].data)
    assert any(key.startswith("sheet/") for key in copy)
    world.run(world.rounds_ended(2))
    put_back(world, MEMBER, copy)
    assert world.counts[MEMBER, "restored-vault"] == 1
    answered, sits_out = world.counts[MEMBER, "answered"], world.device(MEMBER).sits_out(world.now)
    assert sits_out == "rounds under way and committees until the next set-up"
    world.run(world.rounds_ended(4))
    assert [outcome["outcome"] for outcome in world.outcomes()] == ["applied"] * 4
    assert [outcome["recovered"] for outcome in world.outcomes()[2:]] == [[MEMBER]] * 2
    assert world.counts[MEMBER, "answered"] == answered
    world.run(lambda world: world.counts[MEMBER, "answered"] > answered, deadline=4 * 3600.0)
    assert world.device(MEMBER).sits_out(world.now) is None
    Witness(world).check()


@pytest.mark.parametrize("last_word", ["card", "key", "ready"])
def test_a_member_signs_nothing_twice_in_an_attempt_that_was_under_way(last_word: str) -> None:
    """The copy is from before the call; the broker hides the member's own words and shows the call again."""
    world = make_world()
    world.run(world.rounds_ended(1))
    copy = dict(world.records[MEMBER].data)
    topics = Topics(world.keys.fleet)
    stuck = {"card": "list", "key": "share", "ready": ""}[last_word]
    world.tamper = lambda sender, publish: [] if topics.parse(publish.topic).kind == stuck else [publish]
    world.run(lambda world: bool(getattr(attempt(world, 2), last_word, b"")), 600.0)
    words = said(world, MEMBER, "card", "key", "ready")
    call = next(sent for sent in sent_to(world, "call") if topics.parse(sent.topic).epoch == 2)
    world.tamper = lambda sender, publish: [publish]
    put_back(world, MEMBER, copy)
    world.run_for(0.5)
    for _ in range(2):
        world.broker.publish(0, call.topic, call.payload, True)
        world.run_for(0.5)
    assert world.counts[MEMBER, "sits-out"] == 1
    assert said(world, MEMBER, "card", "key", "ready") == words
    ready = world.counts[MEMBER, "ready"]
    world.run(world.noted(MEMBER, "ready", ready + 1), deadline=4 * 3600.0)
    assert all(len(forms) == 1 for forms in said(world, MEMBER, "card", "key", "share", "ready").values())


def test_a_call_that_came_before_by_any_clock_within_five_minutes_is_not_answered() -> None:
    """The rule alone, at its edge: a call that may have been made before is sat out, one made after is answered."""
    for seconds, answered in ((-60, False), (0, False), (1, True)):
        adversary = Adversary.in_fleet(make_fleet(4, 4, epoch_rounds=4))
        world = adversary.world
        put_back(world, MEMBER, dict(world.records[MEMBER].data))
        world.run_for(10)
        at = int.from_bytes(world.records[MEMBER].data[RECORD], "little")
        now, age = int(world.now), 7 * 86_400
        committee = adversary.epoch(1).transcript.committee
        call = Call(0, 2, committee, 1, 5, 4, at + age + seconds, now + 30, now + 60, now + 120)
        sent = adversary.deliver(MEMBER, adversary.topics.call(2), adversary.frame(call))
        assert any(adversary.topics.parse(publish.topic).kind == "card" for publish in sent) == answered


Stage = Callable[[dict[str, bytes]], bool]
STAGES: dict[str, tuple[int, Stage]] = {
    "card": (MEMBER, lambda data: any(Attempt.from_body(value).secrets for value in below(data, "setup/"))),
    "key": (MEMBER, lambda data: any(Attempt.from_body(value).own for value in below(data, "setup/"))),
    "ready": (MEMBER, lambda data: any(below(data, "sheet/"))),
    "answer": (MEMBER, lambda data: ANSWER in data and bool(Answer.from_body(data[ANSWER]).sum)),
    "upload": (PARTICIPANT, lambda data: UPLOAD in data),
}


def below(data: dict[str, bytes], prefix: str) -> list[bytes]:
    return [value for key, value in data.items() if key.startswith(prefix)]


@pytest.mark.parametrize("stage", STAGES)
def test_every_secret_is_gone_and_nothing_is_published_again(stage: str) -> None:
    """The copy holds a secret of one sort; the first event erases it, or it is erased at the next start."""
    index, reached = STAGES[stage]
    world = make_world()
    world.run(lambda world: reached(world.records[index].data))
    copy = dict(world.records[index].data)
    world.crashes[index, world.events[index] + 1] = Crash(None, downtime=1.0)
    put_back(world, index, copy)
    assert RESTORED in world.records[index].data
    assert index not in world.nodes
    world.run(lambda world: index in world.nodes)
    data = world.records[index].data
    assert RESTORED not in data
    assert not [key for key in data if key.startswith(("sheet/", "setup/", UPLOAD, RETAINED))]
    assert ANSWER not in data or not Answer.from_body(data[ANSWER]).sum
    assert world.counts[index, "restored-vault"] == 1


def test_a_participant_uploads_nothing_for_a_round_that_was_open() -> None:
    """The copy is from before the plan. The coordinator never got the upload, so that nothing but the store tells."""
    world = make_world()
    world.run(world.rounds_ended(1))
    copy = dict(world.records[PARTICIPANT].data)
    topics = Topics(world.keys.fleet)
    gone: list[Publish] = []

    def lose_uploads(sender: int, publish: Publish) -> Iterable[Publish]:
        lost = sender == PARTICIPANT and topics.parse(publish.topic).name == "upload"
        gone.extend([publish] if lost else [])
        return [] if lost else [publish]

    world.tamper = lose_uploads
    world.run(lambda world: bool(gone))
    world.tamper = lambda sender, publish: [publish]
    lost_round = topics.parse(gone[0].topic).round_number
    at = world.now
    put_back(world, PARTICIPANT, copy)
    world.run(lambda world: any(header.round > lost_round for header in headers(world)), deadline=3600.0)
    assert not [header for header in headers(world) if header.round == lost_round]
    plans = [read(Frame.from_bytes(sent.payload), Plan) for sent in sent_to(world, "plan")]
    opens = {plan.round: plan.opens for plan in plans}
    first = min(header.round for header in headers(world) if header.round > lost_round)
    assert opens[first] > at + SKEW >= opens[first - 1]
    assert [note for _, index, note in world.notes if index == PARTICIPANT and note.event == "declined"]
    Witness(world).check()


def headers(world: World) -> list[Header]:
    """Every upload header that the participant sent."""
    topics = Topics(world.keys.fleet)
    found = [(topics.parse(sent.topic), sent) for sent in world.broker.log if sent.sender == PARTICIPANT]
    return [read(Frame.from_bytes(sent.payload), Header) for at, sent in found if (at.name, at.chunk) == ("upload", 0)]


def test_an_ordinary_restart_sits_out_nothing() -> None:
    world = make_world()
    world.run(world.rounds_ended(1))
    for index in world.keys.credentials:
        world.crash(index)
        world.start(index)
    world.run(world.rounds_ended(4))
    assert all(outcome["uploads"] == 4 and outcome["recovered"] == [] for outcome in world.outcomes())
    assert not [note for _, _, note in world.notes if note.event in ("restored-vault", "sits-out")]
    assert all(world.device(index).sits_out(world.now) is None for index in range(1, 9))
