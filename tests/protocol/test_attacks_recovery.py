"""Shares that a member may not give (docs/protocol.md, section 4, Recovery).

The adversary is the coordinator; the members are the real roles.
"""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from adversary import Adversary, Announced
from world import Crash, RoundSettings, World, make_fleet

from hushfleet.actions import Publish
from hushfleet.codec import OpeningError
from hushfleet.errors import RefusedError
from hushfleet.mqtt.topics import Topics
from hushfleet.secagg import sharing
from hushfleet.secagg.sealing import unseal
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import Request, Share

HELPER, LOST = 2, 3


def answered(members: int = 4, corrupt: tuple[int, ...] = (), f: int = 1) -> tuple[Adversary, Announced, bytes]:
    """A round in which every honest member has answered the one set."""
    keys = make_fleet(4, members, recoveries=f, committee_min=members)
    adversary = Adversary.in_fleet(keys, corrupt=corrupt)
    announced = adversary.open_round(adversary.newest + 1)
    survivors = whole_set(adversary, announced)
    for member in keys.members():
        if member not in corrupt:
            assert adversary.ask_sum(member, announced, survivors)
    return adversary, announced, survivors


def whole_set(adversary: Adversary, announced: Announced) -> bytes:
    return adversary.set_of(
        announced, [upload.survivor(index) for index, upload in adversary.uploads(announced).items()]
    )


def request(adversary: Adversary, data: bytes, round_number: int, lost: int, helper: int = HELPER) -> list[bytes]:
    return adversary.tell(helper, "request", data, round_number, part=lost)


@pytest.mark.parametrize("restart", [False, True], ids=["in one life", "over a restart"])
@pytest.mark.parametrize("f", [1, 2])
def test_no_more_than_f_different_members_are_recovered_in_a_round(f: int, restart: bool) -> None:
    adversary, announced, survivors = answered(members=6, f=f)
    others = [member for member in range(1, 7) if member != HELPER]
    given = others[:f]
    for lost in given:
        assert adversary.ask_share(HELPER, announced, survivors, lost)
    if restart:
        adversary.world.crash(HELPER)
        adversary.world.start(HELPER)
        adversary.world.run_for(1)
    for lost in others[f:]:
        assert adversary.ask_share(HELPER, announced, survivors, lost) is None
        assert f"{f} members were recovered in this round already" in adversary.refusals(HELPER)[-1]
    # Asked again about the same ones, it says the same again.
    again = [adversary.ask_share(HELPER, announced, survivors, lost) for lost in given]
    assert all(again)
    assert again == [adversary.look_into(HELPER, announced).share_of(lost) for lost in given]


def test_a_share_is_of_just_that_round_and_member() -> None:
    adversary, announced, survivors = answered()
    share = adversary.ask_share(HELPER, announced, survivors, LOST)
    assert share
    epoch = adversary.epoch(announced.plan.epoch)
    sharing.check_share(share, 2, epoch.commitments(LOST, announced.plan.round))
    for member, number in ((LOST, announced.plan.round + 1), (4, announced.plan.round)):
        with pytest.raises(RefusedError):
            sharing.check_share(share, 2, epoch.commitments(member, number))


def test_never_of_itself_of_a_stranger_or_for_someone_else() -> None:
    adversary, announced, survivors = answered()
    number, set_hash = announced.plan.round, adversary.set_hash(survivors)
    adversary.corrupt.add(5)
    for data, lost, why in (
        (adversary.frame(Request(0, announced.hash, set_hash, HELPER)), HELPER, "of this member itself"),
        (adversary.frame(Request(0, announced.hash, set_hash, 77)), 77, "no share of member 77"),
        (adversary.frame(Request(5, announced.hash, set_hash, LOST), signer=5), LOST, "not signed by device 5"),
    ):
        assert request(adversary, data, number, lost) == []
        assert why in adversary.refusals(HELPER)[-1]
    # None of it was counted.
    assert adversary.ask_share(HELPER, announced, survivors, LOST)


def test_not_before_a_set_is_recorded_and_not_about_another_set_or_plan() -> None:
    adversary = Adversary.in_fleet(make_fleet(4, 4))
    announced = adversary.open_round(adversary.newest + 1)
    survivors = whole_set(adversary, announced)
    assert adversary.ask_share(HELPER, announced, survivors, LOST) is None
    assert "has not recorded" in adversary.refusals(HELPER)[-1]
    assert adversary.ask_sum(HELPER, announced, survivors)
    entries = [upload.survivor(index) for index, upload in adversary.uploads(announced).items()]
    other_set = adversary.set_of(announced, entries[1:])
    assert adversary.ask_share(HELPER, announced, other_set, LOST) is None
    assert "has not recorded" in adversary.refusals(HELPER)[-1]
    other_plan = adversary.plan(announced.plan.round, seed=bytes(32))
    assert adversary.ask_share(HELPER, other_plan, survivors, LOST) is None
    assert "not about the newest plan" in adversary.refusals(HELPER)[-1]
    assert adversary.ask_share(HELPER, announced, survivors, LOST)


def test_nothing_of_a_round_that_another_followed_or_whose_time_is_over() -> None:
    adversary, announced, survivors = answered()
    later = adversary.open_round(announced.plan.round + 1)
    assert adversary.ask_share(HELPER, announced, survivors, LOST) is None
    late_set = whole_set(adversary, later)
    assert adversary.ask_sum(HELPER, later, late_set)
    adversary.world.run_for(later.plan.until - adversary.world.now + 1)
    assert adversary.ask_share(HELPER, later, late_set, LOST) is None
    assert "time for answers is past" in adversary.refusals(HELPER)[-1]


def test_nothing_of_the_other_live_epoch() -> None:
    """Both epochs' secrets are held. A recorded round of the one gives shares of the one alone."""
    world = World(make_fleet(4, 4), rounds=RoundSettings(collect=60, answer=10, recover=60), seed="two")
    world.run(lambda world: world.counts[0, "epoch-ready"] == 2 and world.conductor.round.plan is None)
    adversary = Adversary(world)
    announced = adversary.open_round(adversary.newest + 1, epoch=1)
    survivors = whole_set(adversary, announced)
    assert adversary.ask_sum(HELPER, announced, survivors)
    unseen = adversary.plan(adversary.epoch(2).transcript.first, epoch=2)
    assert adversary.ask_share(HELPER, unseen, survivors, LOST) is None
    share = adversary.ask_share(HELPER, announced, survivors, LOST)
    assert share
    sharing.check_share(share, 2, adversary.epoch(1).commitments(LOST, announced.plan.round))
    second = adversary.epoch(2)
    for number in range(second.transcript.first, second.end()):
        with pytest.raises(RefusedError):
            sharing.check_share(share, 2, second.commitments(LOST, number))


def test_a_helper_that_dies_between_the_count_and_the_share_has_counted() -> None:
    for sent, counted in ((None, False), (0, True)):
        adversary, announced, survivors = answered()
        world = adversary.world
        world.crashes[HELPER, world.events[HELPER] + 1] = Crash(sent, downtime=1.0)
        assert adversary.ask_share(HELPER, announced, survivors, LOST) is None
        world.run_for(3)
        other = adversary.ask_share(HELPER, announced, survivors, 4)
        assert (other is None) == counted
        assert (adversary.ask_share(HELPER, announced, survivors, LOST) is not None) == counted


def test_the_weaker_variant_falls_counts_that_a_crash_forgets_open_single_updates_at_the_bound() -> None:
    """(5, 1) with two corrupt members, as in test_attacks_two_halves: only here the count leaves after the share.

    Each honest helper is brought back to the state before its first share, as if it had died before that was durable.
    """
    honest, corrupt = (1, 2, 3), (4, 5)
    adversary, announced, survivors = answered(members=5, corrupt=corrupt)
    world = adversary.world
    shares: dict[int, dict[int, bytes]] = {member: {} for member in honest}
    for helper in honest:
        for lost in honest:
            if lost != helper:
                before = dict(world.records[helper].data)
                share = adversary.ask_share(helper, announced, survivors, lost)
                assert share
                shares[lost][helper] = share
                world.crash(helper)
                world.records[helper].data = before
                world.start(helper)
                world.run_for(1)
    known = {member: adversary.sheet(member, announced).secret for member in corrupt}
    for lost, held in shares.items():
        for member in corrupt:
            share = adversary.sheet(member, announced).share_of(lost)
            assert share
            held[member] = share
        secret = adversary.recovered(lost, held, announced)
        assert secret
        known[lost] = secret
    for victim in adversary.uploads(announced):
        assert adversary.open_single(victim, known, announced)[victim] > 0
    # With one member's secret less it is noise.
    with pytest.raises(OpeningError):
        adversary.open_single(6, {member: known[member] for member in (1, 2, 4, 5)}, announced)


def test_a_wrong_share_is_refused_and_the_others_recover() -> None:
    """A corrupt helper signs another scalar than its share; the honest coordinator takes what fits the commitments."""
    keys = make_fleet(3, 6, recoveries=2, committee_min=6)
    world = World(keys, rounds=RoundSettings(collect=30, answer=8, recover=30, total=1))
    topics = Topics(keys.fleet)
    silent, liar = 5, 4
    lies = []

    def tamper(sender: int, publish: Publish) -> Iterable[Publish]:
        at = topics.parse(publish.topic)
        if sender == silent and at.name == "masksum":
            return []
        if sender == liar and at.name == "share":
            secret = keys.credentials[0].seal_secret
            assert secret
            honest = read(Frame.from_bytes(unseal(publish.payload, secret)), Share)
            lies.append(replace(honest, share=bytes([5]) + bytes(31)))
            return [replace(publish, payload=world.device(liar).context.sealed(lies[-1]))]
        return [publish]

    world.tamper = tamper
    world.run(world.rounds_ended(1))
    assert [lie.lost for lie in lies][:1] == [silent]
    assert any("does not match its commitments" in why for why in world.why(0))
    assert (world.outcomes()[0]["outcome"], world.outcomes()[0]["recovered"]) == ("applied", [silent])
