"""Certificates that have run out, or are not yet valid: whoever holds one is not heard, in whatever role (section 2).

The owners' clock, the coordinator's and the devices' are one here; what a wrong clock does is judged apart.
"""

from dataclasses import replace
from typing import Any

import pytest
from adversary import Adversary
from signed_fleet import START, YEAR
from witness import Witness
from world import FleetKeys, RoundSettings, World, make_fleet

from hushfleet.actions import Publish
from hushfleet.trust import READY, STALE
from hushfleet.wire.committee import Call
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import Plan, Result

COORDINATOR, MEMBER, PARTICIPANT = 0, 2, 5
SETTINGS = RoundSettings(collect=60, answer=10, recover=60, pause=60, total=0)
LASTS = 1_000
"""Seconds from the start for which a certificate is valid."""


def dated(keys: FleetKeys, index: int, first: int, last: int, version: int = 2, **policy: Any) -> FleetKeys:
    """The fleet with other dates on one certificate."""
    credential = keys.credentials[index]
    cert = replace(credential.cert, not_before=first, not_after=last)
    changed = replace(keys, credentials={**keys.credentials, index: replace(credential, cert=cert)})
    return changed.next_version(version, **policy)


def expiring(index: int, **policy: Any) -> FleetKeys:
    return dated(make_fleet(4, 4, **policy), index, 0, START + LASTS, **policy)


def wait(world: World, time: float) -> None:
    world.run_for(START + time - world.now)


# The coordinator's.


def usurped() -> Adversary:
    """A coordinator that goes on after its certificate has run out."""
    adversary = Adversary.in_fleet(expiring(COORDINATOR))
    wait(adversary.world, LASTS + 1)
    return adversary


def test_a_coordinator_whose_certificate_ran_out_begins_nothing_and_says_why() -> None:
    world = World(expiring(COORDINATOR), rounds=SETTINGS)
    wait(world, 2 * LASTS)
    plans = [read(Frame.from_bytes(sent.payload), Plan) for sent in world.broker.log if sent.topic.endswith("/plan")]
    assert len(plans) > 5
    assert max(plan.opens for plan in plans) <= START + LASTS
    told = [note for _, index, note in world.notes if index == COORDINATOR and note.event == "state"]
    assert told[-1].fields["state"] == STALE
    assert "the coordinator's certificate" in str(told[-1].fields["remedy"])
    assert {world.device(index).context.trust.state(world.now) for index in range(1, 9)} == {STALE}
    Witness(world).check()


def test_nobody_follows_the_plan_of_a_coordinator_whose_certificate_ran_out() -> None:
    adversary = usurped()
    announced = adversary.announce(adversary.plan(adversary.newest + 1))
    adversary.world.run_for(20)
    assert not adversary.uploads(announced)
    assert all(adversary.world.device(index).seen.round < announced.plan.round for index in range(1, 9))
    assert "not signed by device 0" in adversary.refusals(PARTICIPANT)[-1]


def test_no_member_answers_its_set_or_request() -> None:
    """The plan came in time; set and request come too late."""
    adversary = Adversary.in_fleet(expiring(COORDINATOR))
    wait(adversary.world, LASTS - 30)
    announced = adversary.open_round(adversary.newest + 1)
    uploads = adversary.uploads(announced)
    survivors = adversary.set_of(announced, [upload.survivor(index) for index, upload in sorted(uploads.items())])
    assert adversary.ask_sum(1, announced, survivors)
    wait(adversary.world, LASTS + 1)
    assert adversary.ask_sum(MEMBER, announced, survivors) is None
    assert adversary.ask_share(1, announced, survivors, MEMBER) is None


def test_no_candidate_answers_its_call() -> None:
    adversary = usurped()
    now, committee = int(adversary.world.now), adversary.epoch(1).transcript.committee
    call = Call(0, 2, committee, 1, 5, 4, now + 10_000, now + 30, now + 60, now + 120)
    assert not adversary.deliver(MEMBER, adversary.topics.call(2), adversary.frame(call))
    assert adversary.world.device(MEMBER).context.trust.state(now) == STALE


def test_its_result_moves_no_model_and_its_receipt_ends_no_upload() -> None:
    adversary = Adversary.in_fleet(expiring(COORDINATOR))
    world = adversary.world
    wait(world, LASTS - 30)
    announced = adversary.open_round(adversary.newest + 1)
    wait(world, LASTS + 1)
    device = world.device(PARTICIPANT)
    held = world.records[PARTICIPANT].data["participant/upload"]
    template = next(sent for sent in world.broker.log if sent.topic == adversary.topics.result(1))
    result = replace(read(Frame.from_bytes(template.payload), Result), round=announced.plan.round, plan=announced.hash)
    adversary.deliver(PARTICIPANT, adversary.topics.result(announced.plan.round), adversary.frame(result))
    assert not device.seen.ended()
    assert world.records[PARTICIPANT].data["participant/upload"] == held


def test_renewed_it_goes_on() -> None:
    world = World(expiring(COORDINATOR), rounds=SETTINGS)
    wait(world, LASTS + 200)
    rounds = len(world.outcomes())
    world.keys = dated(world.keys, COORDINATOR, 0, START + YEAR, version=3)
    world.conductor.offer(world.keys.signed())
    world.run(world.rounds_ended(rounds + 2), deadline=4 * 3600.0)
    assert world.outcomes()[-1]["outcome"] == "applied"
    Witness(world).check()


def test_a_certificate_still_to_come_is_waited_for() -> None:
    world = World(dated(make_fleet(4, 4), COORDINATOR, START + LASTS, START + YEAR), rounds=SETTINGS)
    wait(world, LASTS - 10)
    assert not [sent for sent in world.broker.log if sent.topic.endswith("/plan")]
    world.run(world.rounds_ended(1), deadline=4 * 3600.0)
    assert world.outcomes()[0]["outcome"] == "applied"


# A member's.


def test_an_epoch_ends_with_the_certificate_of_one_of_its_members_and_the_next_leaves_it_out() -> None:
    world = World(expiring(MEMBER, epoch_rounds=100), rounds=SETTINGS)
    wait(world, 2 * LASTS)
    plans = [read(Frame.from_bytes(sent.payload), Plan) for sent in world.broker.log if sent.topic.endswith("/plan")]
    before = {plan.epoch for plan in plans if plan.opens <= START + LASTS}
    after = {plan.epoch for plan in plans if plan.opens > START + LASTS}
    assert (before, after) == ({1}, {2})
    members = [note.fields["members"] for _, index, note in world.notes if (index, note.event) == (0, "epoch-ready")]
    assert members == [[1, 2, 3, 4], [1, 3, 4]]
    # Nobody waited for its card until a deadline.
    called, ready = ([time for time, _, note in world.notes if note.event == what] for what in ("call", "epoch-ready"))
    assert ready[1] - called[1] < 5
    assert [outcome["outcome"] for outcome in world.outcomes()] == ["applied"] * len(world.outcomes())
    Witness(world).check()


def test_participants_and_members_decline_a_plan_that_names_it() -> None:
    adversary = Adversary.in_fleet(expiring(MEMBER))
    wait(adversary.world, LASTS + 1)
    announced = adversary.announce(adversary.plan(adversary.newest + 1))
    adversary.world.run_for(20)
    assert not adversary.uploads(announced)
    why = adversary.world.why(PARTICIPANT)
    assert "a member of the plan's committee is no certified candidate any more" in why


def test_its_answer_does_not_count_any_more() -> None:
    """It was given in time, and comes too late."""
    world = World(expiring(MEMBER, epoch_rounds=100), rounds=replace(SETTINGS, answer=100))
    wait(world, LASTS - 70)
    sent: list[Publish] = []

    def hold(sender: int, publish: Publish) -> list[Publish]:
        late = sender == MEMBER and "/masksum/" in publish.topic
        sent.extend([publish] if late else [])
        return [] if late else [publish]

    world.tamper = hold
    world.run(lambda world: bool(sent))
    wait(world, LASTS + 1)
    refused = world.counts[0, "refused"]
    world.broker.publish(MEMBER, sent[-1].topic, sent[-1].payload, False)
    world.run_for(0.5)
    assert world.counts[0, "refused"] == refused + 1
    assert world.why(0)[-1] == f"masksum: not signed by device {MEMBER}"


def test_a_candidate_out_of_its_dates_answers_no_call_and_is_not_heard_by_the_others() -> None:
    adversary = Adversary.in_fleet(expiring(MEMBER))
    world = adversary.world
    now = int(world.now)
    call = Call(0, 2, adversary.epoch(1).transcript.committee, 1, 5, 4, now + 10_000, now + 30, now + 60, now + 3_000)
    (card,) = [
        publish
        for publish in adversary.deliver(MEMBER, adversary.topics.call(2), adversary.frame(call))
        if adversary.topics.parse(publish.topic).kind == "card"
    ]
    wait(world, LASTS + 1)
    adversary.deliver(1, adversary.topics.call(2), adversary.frame(call))
    adversary.deliver(1, card.topic, card.payload)
    assert f"card: not signed by device {MEMBER}" in adversary.refusals(1)[-1]
    later = replace(call, epoch=3)
    assert not adversary.deliver(MEMBER, adversary.topics.call(3), adversary.frame(later))[:-1]
    assert "no certified candidate" in adversary.refusals(MEMBER)[-1]


# Clocks.


@pytest.mark.parametrize("index", [1, PARTICIPANT])
def test_a_clock_that_jumps_ahead_for_a_while_loses_nothing(index: int) -> None:
    """For some seconds a device sees every certificate as run out; a result comes just then."""
    world = World(expiring(COORDINATOR), rounds=replace(SETTINGS, pause=20))
    world.run(world.noted(0, "frozen"))
    device = world.device(index)
    arrive, wake, ahead = device.on_message, device.on_wake, START + 2.0 * LASTS
    device.on_message = lambda topic, payload, now: arrive(topic, payload, ahead)  # type: ignore[method-assign]
    device.on_wake = lambda now: wake(ahead)  # type: ignore[method-assign]
    world.run(world.rounds_ended(1))
    world.run_for(10)
    assert device.context.trust.state(ahead) == STALE
    assert not device.seen.ended()
    device.on_message, device.on_wake = arrive, wake  # type: ignore[method-assign]
    world.run_for(10)
    assert device.context.trust.state(world.now) == READY
    assert device.seen.ended()
    world.run(world.rounds_ended(3))
    assert [outcome["uploads"] for outcome in world.outcomes()[1:]] == [4, 4]
    Witness(world).check()
