"""SIGKILL for everyone, in every phase of a round: the round is finished or ends with a reason, and nothing is lost.

One fleet of six lives through all of it. A round waits for everyone, so that while one device is dead the round stands
still where the test wants it. After the last test the whole story is looked at for what must never have happened.
"""

import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from fleet_fixture import COORDINATOR, Event, Fleet, Witness

pytestmark = pytest.mark.integration

HELD, HELD_INDEX = "part-2", 6
"""Without it no round ends: the others' uploads are accepted, the round stays open."""
PARTICIPANT, MEMBER, MEMBER_INDEX = "part-1", "both-4", 4
LONG_TRAINING = 20_000
"""Steps that take long enough to be killed in."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("crashes"), policy={"epoch_rounds": 8}) as fleet:
        fleet.broker.start()
        yield fleet


@pytest.fixture(scope="module")
def witness(federation: Fleet) -> Iterator[Witness]:
    with Witness(federation) as witness:
        federation.bring_back(*federation.everyone)
        await_health(federation)
        yield witness


@pytest.fixture
def fleet(federation: Fleet, witness: Witness) -> Iterator[Fleet]:
    """All of it at work; and at work again when the test has done its worst."""
    yield federation
    federation.bring_back(*federation.everyone)
    await_health(federation)


def await_health(fleet: Fleet) -> None:
    fleet.wait_for(COORDINATOR, "round", fleet.mark(), outcome="applied", uploads=6, recovered=[])


def hold(fleet: Fleet) -> int:
    """Kill one device between two rounds; the round that stays open with everyone else's upload accepted."""
    number = int(fleet.wait_for(HELD, "accepted", fleet.mark())["round"]) + 1
    fleet.kill(HELD)
    fleet.wait_for(COORDINATOR, "plan", round=number)
    for index in range(1, HELD_INDEX):
        fleet.wait_for(COORDINATOR, "accepted", round=number, device=index)
    assert fleet.events(COORDINATOR, "accepted", round=number, device=HELD_INDEX) == []
    return number


def restart(fleet: Fleet, *names: str) -> int:
    """Kill and start again at once; the mark between the two."""
    fleet.kill(*names)
    mark = fleet.mark()
    fleet.start(*names)
    return mark


def ending(fleet: Fleet, number: int) -> Event:
    return fleet.wait_for(COORDINATOR, "round", round=number)


# The coordinator.


def test_the_coordinator_dies_while_uploads_come_in_and_counts_them_after_its_restart(fleet: Fleet) -> None:
    number = hold(fleet)
    mark = restart(fleet, COORDINATOR)
    assert fleet.wait_for(COORDINATOR, "resumed", mark, deadline=10)["accepted"] == 5
    fleet.wait_for(COORDINATOR, "connected", mark, deadline=10)
    fleet.start(HELD)
    assert ending(fleet, number)["outcome"] == "applied"
    assert ending(fleet, number)["uploads"] == 6


def test_the_coordinator_dies_with_a_frozen_set_and_shows_the_same_set_again(fleet: Fleet) -> None:
    number = hold(fleet)
    # Two silent members are one more than can be recovered: the round stays frozen until they wake up.
    for name in ("both-1", "both-2"):
        fleet.processes[name].signal(signal.SIGSTOP)
    fleet.start(HELD)
    fleet.wait_for(COORDINATOR, "frozen", round=number)
    mark = restart(fleet, COORDINATOR)
    assert fleet.wait_for(COORDINATOR, "resumed", mark, deadline=10) | {"time": 0} == {
        "time": 0,
        "event": "resumed",
        "round": number,
        "accepted": 6,
    }
    for name in ("both-1", "both-2"):
        fleet.processes[name].signal(signal.SIGCONT)
    ended = ending(fleet, number)
    assert len(fleet.events(COORDINATOR, "frozen", round=number)) == 1
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)


@pytest.mark.parametrize("phase", ["answered", "round"])
def test_the_coordinator_dies_at_the_end_of_a_round_and_goes_on_from_its_result(fleet: Fleet, phase: str) -> None:
    planned = fleet.wait_for(COORDINATOR, "plan", fleet.mark())
    number = planned["round"]
    teller = COORDINATOR if phase == "round" else MEMBER
    fleet.wait_for(teller, phase, round=number)
    restart(fleet, COORDINATOR)
    following = fleet.wait_for(COORDINATOR, "plan", round=number + 1)
    assert following["base"] == planned["base"] + 1
    # Everyone can follow to the new base: what was not published before the kill is published now.
    ended = ending(fleet, number + 1)
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)


@pytest.mark.parametrize("teller", [COORDINATOR, "both-1"])
def test_the_coordinator_dies_during_a_set_up_and_finishes_it(fleet: Fleet, teller: str) -> None:
    mark = fleet.mark()
    epoch = fleet.wait_for(COORDINATOR, "call", mark)["epoch"]
    if teller != COORDINATOR:
        fleet.wait_for(teller, "ready", mark, epoch=epoch)
    restart(fleet, COORDINATOR)
    number = fleet.wait_for(COORDINATOR, "plan", mark, epoch=epoch)["round"]
    assert ending(fleet, number)["outcome"] == "applied"
    assert fleet.events(COORDINATOR, "setup-failed", mark) == []


# A participant.


def test_a_participant_dies_before_the_plan_and_takes_part_when_it_is_back(fleet: Fleet) -> None:
    number = hold(fleet)
    fleet.start(HELD)
    ended = ending(fleet, number)
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)


def test_a_participant_dies_while_training_and_trains_again(fleet: Fleet) -> None:
    fleet.configure_coordinator(steps=LONG_TRAINING)
    mark = restart(fleet, COORDINATOR)
    planned = fleet.wait_for(COORDINATOR, "plan", mark)
    # The base is scored first, on the same thread.
    fleet.wait_for(PARTICIPANT, "score", mark, version=planned["base"])
    fleet.kill(PARTICIPANT)
    assert fleet.events(PARTICIPANT, "uploading", round=planned["round"]) == []
    fleet.configure_coordinator()
    fleet.start(PARTICIPANT)
    fleet.wait_for(PARTICIPANT, "uploading", round=planned["round"])
    ended = ending(fleet, planned["round"])
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)
    restart(fleet, COORDINATOR)


def test_a_participant_dies_while_uploading_and_finishes_the_same_upload(fleet: Fleet, witness: Witness) -> None:
    index, number = fleet.index(PARTICIPANT), 0
    for _ in range(5):
        number = fleet.wait_for(COORDINATOR, "plan", fleet.mark())["round"]
        witness.wait_for(fleet.topics.up(0, index, "upload", number, chunk=1))
        fleet.kill(PARTICIPANT)
        if not fleet.events(COORDINATOR, "accepted", round=number, device=index):
            break
        fleet.start(PARTICIPANT)
    mark = fleet.mark()
    fleet.start(PARTICIPANT)
    fleet.wait_for(PARTICIPANT, "accepted", mark, round=number)
    assert fleet.events(PARTICIPANT, "uploading", mark, round=number) == []
    ended = ending(fleet, number)
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)


def test_a_participant_dies_after_its_receipt_and_is_in_the_sum(fleet: Fleet) -> None:
    number = hold(fleet)
    fleet.kill(PARTICIPANT)
    mark = fleet.mark()
    fleet.start(HELD)
    ended = ending(fleet, number)
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)
    fleet.start(PARTICIPANT)
    fleet.wait_for(PARTICIPANT, "accepted", mark, round=number + 1)


# A member.


def test_a_member_dies_before_the_survivor_set_and_is_recovered(fleet: Fleet) -> None:
    number = hold(fleet)
    fleet.kill(MEMBER)
    fleet.start(HELD)
    ended = ending(fleet, number)
    assert (ended["outcome"], ended["uploads"], ended["recovered"]) == ("applied", 6, [MEMBER_INDEX])
    helpers = [name for name in fleet.members if fleet.events(name, "helped", round=number, lost=MEMBER_INDEX)]
    assert len(helpers) >= 3


def test_a_member_dies_after_it_has_recorded_the_set(fleet: Fleet) -> None:
    number = fleet.wait_for(MEMBER, "answered", fleet.mark())["round"]
    fleet.kill(MEMBER)
    ended = ending(fleet, number)
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)


def test_more_members_are_gone_than_can_be_recovered_and_the_round_ends_with_that_reason(fleet: Fleet) -> None:
    fleet.configure_coordinator(collect=8, recover=2)
    mark = restart(fleet, COORDINATOR)
    fleet.wait_for(COORDINATOR, "round", mark)
    number = hold(fleet)
    fleet.kill("both-3", MEMBER)
    fleet.start(HELD)
    fleet.configure_coordinator()
    ended = ending(fleet, number)
    assert (ended["outcome"], ended["reason"], ended["uploads"]) == ("aborted", 2, 6)
    restart(fleet, COORDINATOR)


# The broker, and everybody.


@pytest.mark.parametrize("phase", ["plan", "first-chunk", "accepted", "frozen", "round", "call", "epoch-ready"])
def test_the_broker_dies_in_a_phase_and_the_round_ends_all_the_same(fleet: Fleet, phase: str) -> None:
    mark = fleet.mark()
    fleet.wait_for(COORDINATOR, phase, mark)
    fleet.broker.kill()
    number = fleet.events(COORDINATOR, "plan")[-1]["round"]
    fleet.broker.start()
    ended = ending(fleet, number)
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)


def test_everybody_dies_at_once_while_uploads_come_in(fleet: Fleet) -> None:
    number = hold(fleet)
    fleet.broker.kill()
    fleet.kill(*(name for name in fleet.everyone if name != HELD))
    mark = fleet.mark()
    fleet.bring_back(*fleet.everyone)
    assert fleet.wait_for(COORDINATOR, "resumed", mark)["accepted"] == 5
    ended = ending(fleet, number)
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)


def test_everybody_dies_at_once_while_members_answer(fleet: Fleet) -> None:
    number = hold(fleet)
    fleet.processes["both-1"].signal(signal.SIGSTOP)
    fleet.processes["both-2"].signal(signal.SIGSTOP)
    fleet.start(HELD)
    fleet.wait_for(MEMBER, "answered", round=number)
    fleet.broker.kill()
    fleet.kill(*fleet.everyone)
    mark = fleet.mark()
    fleet.bring_back(*fleet.everyone)
    assert fleet.wait_for(COORDINATOR, "resumed", mark)["accepted"] == 6
    ended = ending(fleet, number)
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)


# What must never have happened in all of it.


def test_nothing_was_lost_and_nothing_was_said_twice(fleet: Fleet, witness: Witness) -> None:
    witness.check()
    assert [line for line in fleet.lines() if '"internal-error"' in line] == []
    for name in fleet.devices:
        for event in ("uploading", "answered"):
            rounds = Counter(told["round"] for told in fleet.events(name, event))
            assert set(rounds.values()) <= {1}, f"{name}: {event} twice in a round: {rounds}"
    frozen = Counter(told["round"] for told in fleet.events(COORDINATOR, "frozen"))
    assert set(frozen.values()) == {1}
    receipts = Counter(told["round"] for name in fleet.devices for told in fleet.events(name, "accepted"))
    for ended in fleet.events(COORDINATOR, "round"):
        assert ended["uploads"] >= receipts[ended["round"]], f"an accepted upload was lost in {ended}"
