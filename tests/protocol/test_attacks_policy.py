"""What devices enforce themselves, whatever the coordinator says: policies that differ, revocations, pace, reuse.

The adversary is coordinator and broker: it decides which documents each device gets to see, and when.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from adversary import Adversary, Announced
from signed_fleet import FleetKeys
from world import make_fleet

from edge_agent.member import ANSWER, Answer
from edge_agent.participant import STATE, State
from hushfleet.secagg.sealing import unseal
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import BASE_USED_UP, OPERATOR, POLICY, ROLLBACK, Decline, Metrics, Result

MEMBERS, PARTICIPANTS = (1, 2, 3, 4), (5, 6, 7, 8)


def taken_over(**policy: Any) -> Adversary:
    return Adversary.in_fleet(make_fleet(4, 4, **policy), corrupt=[8])


def show(adversary: Adversary, newer: FleetKeys, devices: Iterable[int]) -> None:
    """Let these devices see a newer manifest and fetch its documents; the others keep what they have."""
    broker, topics = adversary.world.broker, adversary.topics
    for name, frame in newer.documents.items():
        broker.retained[topics.document(name, 1 if name == "model" else 2, 0)] = frame.to_bytes()
    for device in devices:
        adversary.deliver(device, topics.manifest(), newer.manifest.to_bytes())
    adversary.world.run_for(1)
    assert all(adversary.world.device(device).context.trust.pair == (1, 2) for device in devices)


def named(newer: FleetKeys) -> dict[str, Any]:
    """What a plan says that names the newer documents."""
    return {name: newer.documents[name].hash(newer.fleet) for name in ("roster", "policy")}


def sum_asked(adversary: Adversary, announced: Announced, member: int) -> bool:
    """Whether a member answers for the set of everyone who uploaded."""
    shown = [upload.survivor(index) for index, upload in adversary.uploads(announced).items()]
    return adversary.ask_sum(member, announced, adversary.set_of(announced, shown)) is not None


def declines(adversary: Adversary, device: int) -> list[tuple[int, int]]:
    """(round, reason) of what a device declined."""
    secret = adversary.world.keys.credentials[0].seal_secret
    assert secret
    sent = [(adversary.topics.parse(entry.topic), entry.payload) for entry in adversary.said(device)]
    return [
        (at.round_number, read(Frame.from_bytes(unseal(payload, secret)), Decline).reason)
        for at, payload in sent
        if at.name == "decline"
    ]


# Policies that differ.


def test_a_member_with_a_newer_policy_does_not_answer_for_a_plan_of_the_older() -> None:
    adversary = taken_over()
    newer = adversary.world.keys.next_version(2, smallest_survivor_set=5)
    show(adversary, newer, MEMBERS)
    announced = adversary.open_round(2)
    assert set(adversary.uploads(announced)) == set(PARTICIPANTS)
    assert not any(sum_asked(adversary, announced, member) for member in MEMBERS)


def test_nor_when_the_newer_policy_comes_between_plan_and_set() -> None:
    adversary = taken_over()
    announced = adversary.open_round(2)
    assert sum_asked(adversary, announced, 1)
    show(adversary, adversary.world.keys.next_version(2, smallest_survivor_set=5), [2])
    assert not sum_asked(adversary, announced, 2)
    assert "roster and policy" in adversary.refusals(2)[-1]


def test_a_participant_waits_for_the_policy_that_a_plan_names_and_then_obeys_that_one() -> None:
    adversary = taken_over()
    newer = adversary.world.keys.next_version(2, smallest_survivor_set=5)
    announced = adversary.announce(adversary.plan(2, **named(newer)))
    adversary.world.run_for(10)
    assert adversary.uploads(announced) == {}
    show(adversary, newer, (*MEMBERS, *PARTICIPANTS))
    adversary.world.run(lambda world: len(adversary.uploads(announced)) == 4, 60.0)
    # Four is one too few now, and no member is told otherwise by the plan.
    assert not any(sum_asked(adversary, announced, member) for member in MEMBERS)
    assert "outside the policy" in adversary.refusals(1)[-1]


def test_a_policy_that_no_manifest_lists_is_followed_by_nobody() -> None:
    adversary = taken_over()
    loose = adversary.world.keys.next_version(2, smallest_survivor_set=1)
    announced = adversary.announce(adversary.plan(2, **named(loose)))
    adversary.world.broker.retained[adversary.topics.document("policy", 2, 0)] = loose.documents["policy"].to_bytes()
    adversary.world.run_for(50)
    assert adversary.uploads(announced) == {}
    assert not any(sum_asked(adversary, announced, member) for member in MEMBERS)


# Revocations.


def test_a_revoked_participant_is_in_no_set_and_a_revoked_member_in_no_committee() -> None:
    adversary = taken_over()
    gone = adversary.world.keys.next_version(2, revoked=[8])
    show(adversary, gone, (*MEMBERS, *PARTICIPANTS))
    announced = adversary.open_round(2, **named(gone))
    shown = [upload.survivor(index) for index, upload in adversary.uploads(announced).items()]
    assert adversary.ask_sum(1, announced, adversary.set_of(announced, shown)) is None
    assert "survivor 8 is not a certified participant" in adversary.refusals(1)[-1]
    assert adversary.ask_sum(1, announced, adversary.set_of(announced, shown[:3]))

    adversary = taken_over()
    gone = adversary.world.keys.next_version(2, revoked=[4])
    show(adversary, gone, (*MEMBERS, *PARTICIPANTS))
    announced = adversary.announce(adversary.plan(2, **named(gone)))
    adversary.world.run_for(15)
    assert adversary.uploads(announced) == {}
    assert all(declines(adversary, device) == [(2, POLICY)] for device in PARTICIPANTS)
    assert not sum_asked(adversary, announced, 1)


# Pace and reuse.


def test_plans_dated_back_do_not_hurry_anyone() -> None:
    """By their own dates the plans are an interval apart; by the devices' clocks they come within seconds."""
    adversary = taken_over(interval=100)
    adversary.world.run_for(300)
    opened = adversary.first_plan.opens
    first = adversary.open_round(2, opens=opened + 100)
    assert sum_asked(adversary, first, 1)
    second = adversary.announce(adversary.plan(3, opens=opened + 200))
    adversary.world.run_for(15)
    assert adversary.uploads(second) == {}
    for device in PARTICIPANTS:
        assert declines(adversary, device) == [(3, POLICY)]
        assert "faster than the policy allows" in adversary.world.why(device)[-1]
    adversary.world.run_for(100)
    assert sum_asked(adversary, adversary.open_round(4), 1)


def test_a_member_refuses_a_second_set_within_the_interval_even_if_participants_were_fooled() -> None:
    adversary = taken_over(interval=1000, smallest_survivor_set=1)
    adversary.world.run_for(1000)
    first = adversary.open_round(2)
    assert sum_asked(adversary, first, 1)
    y_point, data = adversary.uploads(first)[8].header.y, adversary.uploads(first)[8].data
    second = adversary.announce(adversary.plan(3))
    adversary.world.run_for(1)
    alone = adversary.set_of(second, [adversary.sign_claim(8, second, y_point, data).survivor(8)])
    assert adversary.ask_sum(1, second, alone) is None
    assert "faster than the policy allows" in adversary.refusals(1)[-1]


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    """Records of a time when the clocks were a year ahead; now that those are put right, nobody waits a year."""
    adversary = taken_over(interval=1000)
    world, year = adversary.world, 365 * 86_400
    for device in (*MEMBERS, *PARTICIPANTS):
        world.crash(device)
        data = world.records[device].data
        if device in PARTICIPANTS:
            state = State.from_body(data[STATE])
            data[STATE] = replace(state, uploaded=state.uploaded + year).to_body()
        else:
            answer = Answer.from_body(data[ANSWER])
            data[ANSWER] = replace(answer, answered=answer.answered + year).to_body()
        world.start(device)
    announced = adversary.open_round(2)
    assert all(sum_asked(adversary, announced, member) for member in MEMBERS)


@pytest.mark.parametrize("restart", [False, True], ids=["in one life", "over a restart"])
def test_a_model_that_is_led_to_and_fro_between_two_bases_gives_neither_more_answers(restart: bool) -> None:
    adversary = taken_over(uploads_per_base=2, epoch_rounds=12)
    world = adversary.world
    there = adversary.plan(2).plan
    back: dict[str, Any] = {"base": 0, "base_hash": read(world.keys.documents["model"], ModelSpec).zero}
    forth: dict[str, Any] = {"base": there.base, "base_hash": there.base_hash}
    adversary.open_round(2, **forth)
    adversary.open_round(3, **forth)
    signed_rollback(adversary, 4)
    world.run_for(1)
    # One upload for it was made in the honest coordinator's round.
    adversary.open_round(5, **back)
    if restart:
        for device in PARTICIPANTS:
            world.crash(device)
            world.start(device)
    for number, base in ((6, back), (7, forth)):
        announced = adversary.announce(adversary.plan(number, **base))
        world.run_for(15)
        assert adversary.uploads(announced) == {}
        assert all(declines(adversary, device)[-1] == (number, BASE_USED_UP) for device in PARTICIPANTS)


def signed_rollback(adversary: Adversary, number: int) -> None:
    """A coordinator that lies takes the model back from its first version."""
    newest, spec = adversary.plan(number).plan, read(adversary.world.keys.documents["model"], ModelSpec)
    between = (newest.base, newest.base_hash, 0, spec.zero)
    nothing = Metrics(0, 0.0, 0, 0.0, 0, 0.0)
    result = Result(0, bytes(32), number, ROLLBACK, OPERATOR, *between, bytes(32), b"", 1.0, nothing)
    adversary.world.broker.publish(0, adversary.topics.result(number), adversary.frame(result), True)


@pytest.mark.parametrize("restart", [False, True], ids=["in one life", "over a restart"])
def test_rounds_that_abort_use_the_base_up_all_the_same(restart: bool) -> None:
    """Many sums of one update are what aborted rounds could be for; after `uploads_per_base` there is one a day."""
    adversary = taken_over(uploads_per_base=3, epoch_rounds=12)
    for number in (2, 3, 4):
        adversary.open_round(number)
        if restart:
            for device in PARTICIPANTS:
                adversary.world.crash(device)
                adversary.world.start(device)
    refused = adversary.announce(adversary.plan(5))
    adversary.world.run_for(15)
    assert adversary.uploads(refused) == {}
    assert all(declines(adversary, device) == [(5, BASE_USED_UP)] for device in PARTICIPANTS)
    everyone = (*MEMBERS, *PARTICIPANTS)
    for device in everyone:
        adversary.world.crash(device)
    adversary.world.run_for(86_400)
    for device in everyone:
        adversary.world.start(device)
    adversary.open_round(6)
    again = adversary.announce(adversary.plan(7))
    adversary.world.run_for(15)
    assert adversary.uploads(again) == {}
    assert all(declines(adversary, device)[-1] == (7, BASE_USED_UP) for device in PARTICIPANTS)
