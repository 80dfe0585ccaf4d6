"""Plans that the coordinator may not make, or the broker not bring back (docs/protocol.md, sections 3 and 4).

The adversary is coordinator and broker. Whatever it announces, an honest device uploads once a round, answers for one
plan a round, and never for one that breaks the policy, the transcript or the order of rounds.
"""

from dataclasses import replace
from typing import Any

import pytest
from adversary import Adversary, Announced
from world import START, RoundSettings, World, make_fleet

from hushfleet.codec import OpeningError
from hushfleet.hashing import digest
from hushfleet.secagg.residues import add_into, subtract_from
from hushfleet.wire.framing import entries

MEMBERS, PARTICIPANTS = (1, 2, 3, 4), (5, 6, 7, 8)


def taken_over(**policy: Any) -> Adversary:
    return Adversary.in_fleet(make_fleet(4, 4, **policy), corrupt=[8])


def heard(adversary: Adversary, announced: Announced) -> set[int]:
    """Who uploaded for a plan, after a while."""
    adversary.world.run_for(15)
    return set(adversary.uploads(announced))


def restart_everyone(adversary: Adversary) -> None:
    for device in (*MEMBERS, *PARTICIPANTS):
        adversary.world.crash(device)
        adversary.world.start(device)
    adversary.world.run_for(1)


def upload_rounds(adversary: Adversary, device: int) -> list[tuple[int, int]]:
    """(round, distinct headers) of a device."""
    headers: dict[int, set[bytes]] = {}
    for sent in adversary.said(device):
        at = adversary.topics.parse(sent.topic)
        if (at.name, at.chunk) == ("upload", 0):
            headers.setdefault(at.round_number, set()).add(sent.payload)
    return sorted((number, len(forms)) for number, forms in headers.items())


@pytest.mark.parametrize("restart", [False, True], ids=["in one life", "over a restart"])
def test_an_older_rounds_plan_brought_back_moves_nobody(restart: bool) -> None:
    adversary = taken_over()
    old = adversary.open_round(2)
    adversary.open_round(3)
    if restart:
        # They find the old plan where they look first.
        adversary.world.broker.retained[adversary.topics.plan()] = adversary.frame(old.plan)
        restart_everyone(adversary)
    for number in (1, 2):
        replayed = old if number == 2 else Announced(adversary.first_plan, bytes(32))
        adversary.announce(replayed)
        adversary.world.run_for(15)
    for device in PARTICIPANTS:
        assert upload_rounds(adversary, device) == [(1, 1), (2, 1), (3, 1)]
        assert adversary.world.device(device).seen.round == 3
    uploads = adversary.uploads(old)
    survivors = adversary.set_of(old, [upload.survivor(index) for index, upload in uploads.items()])
    assert [adversary.ask_sum(member, old, survivors) for member in MEMBERS] == [None] * 4


@pytest.mark.parametrize("restart", [False, True], ids=["in one life", "over a restart"])
def test_a_second_plan_for_a_round_gets_no_upload_and_no_answer(restart: bool) -> None:
    adversary = taken_over()
    first = adversary.open_round(2)
    if restart:
        restart_everyone(adversary)
    second = adversary.announce(adversary.plan(2, seed=bytes(32)))
    assert heard(adversary, second) == set()
    liar = adversary.sign_claim(8, second, adversary.uploads(first)[8].header.y, b"x" * 704)
    for plan, shown in ((second, [liar.survivor(8)]), (first, list_of(adversary, first))):
        answers = [adversary.ask_sum(member, plan, adversary.set_of(plan, shown)) for member in MEMBERS]
        assert all(answers) if plan is first else not any(answers)


def list_of(adversary: Adversary, announced: Announced) -> list[Any]:
    return [upload.survivor(index) for index, upload in adversary.uploads(announced).items()]


def test_a_plan_that_another_signed_is_nobodys() -> None:
    adversary = taken_over()
    plan = replace(adversary.plan(2).plan, sender=8)
    adversary.world.broker.publish(0, adversary.topics.plan(), adversary.frame(plan, signer=8), True)
    adversary.world.run_for(15)
    assert all("not signed by device" in adversary.refusals(device)[-1] for device in (*MEMBERS, *PARTICIPANTS))
    assert all(adversary.world.device(device).seen.round == 1 for device in PARTICIPANTS)


def _swapped(adversary: Adversary) -> bytes:
    points = entries(adversary.plan(2).plan.points, 32)
    return b"".join((points[1], points[0], *points[2:]))


BROKEN: dict[str, Any] = {
    "two members' points swapped": lambda adversary: {"points": _swapped(adversary)},
    "the points of another round": lambda adversary: {"points": adversary.plan(3).plan.points},
    "fewer points": lambda adversary: {"points": adversary.plan(2).plan.points[:96]},
    "a larger norm than the policy's": lambda adversary: {"clip": 5.0},
    "another step": lambda adversary: {"step": adversary.first_plan.step * 2},
    "fewer bits": lambda adversary: {"bits": 8},
    "fewer coordinates": lambda adversary: {"coords": 64},
    "noise that this version does not have": lambda adversary: {"noise": 1.0},
    "an end beyond the epoch's": lambda adversary: {"until": START + 30 * 86_400},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_plan_that_breaks_policy_or_transcript_is_declined(name: str) -> None:
    adversary = taken_over()
    announced = adversary.announce(adversary.plan(2, **BROKEN[name](adversary)))
    assert heard(adversary, announced) == set()
    for device in PARTICIPANTS:
        declines = [
            at for at in (adversary.topics.parse(sent.topic) for sent in adversary.said(device)) if at.name == "decline"
        ]
        assert [at.round_number for at in declines] == [2]
    # Members do not answer for it, and an honest plan for the round is still served.
    honest = adversary.open_round(2)
    liar = adversary.sign_claim(8, announced, adversary.uploads(honest)[8].header.y, b"x" * 704).survivor(8)
    assert adversary.ask_sum(1, announced, adversary.set_of(announced, [liar])) is None
    assert adversary.ask_sum(1, honest, adversary.set_of(honest, list_of(adversary, honest)))


def test_a_plan_whose_time_is_past_is_nobodys() -> None:
    adversary = taken_over()
    late = adversary.plan(2)
    adversary.world.run_for(61)
    assert heard(adversary, adversary.announce(late)) == set()
    adversary.world.run_for(600)
    over = adversary.plan(3, opens=START, closes=START + 1, until=int(adversary.world.now) - 1)
    adversary.announce(over)
    adversary.world.run_for(5)
    assert all("is past" in adversary.refusals(device)[-1] for device in PARTICIPANTS)


# Epochs and transcripts.


def two_epochs() -> Adversary:
    """The adversary takes over when the second epoch's committee is ready; plans of the first are still possible."""
    world = World(
        make_fleet(4, 4, epoch_rounds=4), rounds=RoundSettings(collect=60, answer=10, recover=60), seed="epochs"
    )
    world.run(lambda world: world.counts[0, "epoch-ready"] == 2 and world.conductor.round.plan is None)
    return Adversary(world, [8])


def test_an_epoch_older_than_one_a_verified_plan_named_serves_no_more() -> None:
    adversary = two_epochs()
    first, second = adversary.epoch(1), adversary.epoch(2)
    assert first.end() == 5
    assert adversary.newest < 4
    newer = adversary.open_round(second.transcript.first, epoch=2)
    assert set(adversary.uploads(newer)) == set(PARTICIPANTS)
    # Back to the first epoch: with a round of its own, and with a newer number that it does not have.
    older = adversary.announce(adversary.plan(4, epoch=1))
    assert heard(adversary, older) == set()
    stretched = replace(newer.plan, round=newer.plan.round + 1, epoch=1, transcript=first.hash)
    adversary.announce(Announced(stretched, bytes(32)))
    adversary.world.run_for(15)
    for device in (*MEMBERS, *PARTICIPANTS):
        assert "epoch 1 is older than 2" in adversary.refusals(device)[-1]
    assert [upload_rounds(adversary, device)[-1] for device in PARTICIPANTS] == [(newer.plan.round, 1)] * 4


def test_an_epoch_that_has_expired_serves_no_more() -> None:
    adversary = taken_over(epoch_age=1000)
    adversary.world.run_for(950)
    end = adversary.epoch(1).transcript.not_after
    announced = adversary.announce(adversary.plan(2, until=int(adversary.world.now) + 300))
    assert announced.plan.until > end
    assert heard(adversary, announced) == set()
    assert not adversary.world.records[1].get(f"sheet/{1:010}/{2:020}"), "and its secrets are gone"


def test_another_epochs_transcript_in_the_plans_place_is_not_taken_and_not_fetched_without_end() -> None:
    adversary = two_epochs()
    second = adversary.epoch(2)
    first_frame = adversary.world.broker.retained[adversary.topics.transcript(1, 0)]
    # The broker serves the first epoch's transcript, with all its signatures, where the second's is asked for.
    adversary.world.broker.retained[adversary.topics.transcript(2, 0)] = first_frame
    before = len(adversary.world.broker.asked)
    announced = adversary.announce(adversary.plan(second.transcript.first, epoch=2))
    assert heard(adversary, announced) == set()
    asked = [topic for client, topic in adversary.world.broker.asked[before:] if client == 5]
    assert asked.count(adversary.topics.transcript(2, 0)) <= 2


# One plan for all, or none.


def test_two_models_under_one_version_are_refused() -> None:
    adversary = taken_over()
    adversary.world.run_for(1)
    for device in PARTICIPANTS:
        assert adversary.world.device(device).live.version == 1
    other = adversary.announce(adversary.plan(2, base_hash=digest("modl", bytes(4 * 272))))
    assert heard(adversary, other) == set()
    restart_everyone(adversary)
    adversary.announce(other)
    assert heard(adversary, other) == set()
    assert all("two models under version 1" in adversary.refusals(device)[-1] for device in PARTICIPANTS)


def test_an_older_model_than_the_devices_own_is_refused() -> None:
    adversary = taken_over()
    adversary.world.run_for(1)
    spec = adversary.world.device(5).context.trust.model
    assert spec
    older = adversary.announce(adversary.plan(2, base=0, base_hash=spec.zero))
    assert heard(adversary, older) == set()
    assert all("older than the newest model known" in adversary.refusals(device)[-1] for device in PARTICIPANTS)


def test_two_plans_shown_to_two_halves_of_the_fleet_open_nothing() -> None:
    """Members and participants both split: no set holds both halves, and neither half's sum loses all of its masks."""
    adversary = taken_over()
    one = adversary.announce(adversary.plan(2), only_to=[1, 2, 5, 6])
    other = adversary.announce(adversary.plan(2, seed=bytes(32)), only_to=[3, 4, 7, 8])
    adversary.world.run_for(15)
    assert set(adversary.uploads(one)) == {5, 6}
    assert set(adversary.uploads(other)) == {7, 8}
    both = [*list_of(adversary, one), *list_of(adversary, other)]
    for member in MEMBERS:
        shown = one if member < 3 else other
        assert adversary.ask_sum(member, shown, adversary.set_of(shown, both)) is None
        assert "did not sign for this plan" in adversary.refusals(member)[-1]
    for plan, half in ((one, (1, 2)), (other, (3, 4))):
        uploads = adversary.uploads(plan)
        survivors = adversary.set_of(plan, list_of(adversary, plan))
        answers = {member: adversary.ask_sum(member, plan, survivors) for member in MEMBERS}
        assert {member for member, answer in answers.items() if answer} == set(half)
        vectors = [adversary.vector(upload.data, plan) for upload in uploads.values()]
        add_into(vectors[0], vectors[1])
        for answer in answers.values():
            if answer:
                subtract_from(vectors[0], adversary.vector(answer.sum, plan))
        with pytest.raises(OpeningError):
            adversary.open(vectors[0], 2, plan)
