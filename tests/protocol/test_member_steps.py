"""A member in a round, event by event: the very actions of each answer, and the bounds to the second and the entry."""

from dataclasses import replace
from typing import Any

import pytest
from adversary import Adversary, Announced
from world import START, Faults, RoundSettings, World, make_fleet

from edge_agent.member import ANSWER, Answer, Member
from hushfleet.actions import Action, Erase, Note, Publish, Save
from hushfleet.errors import MalformedError, RefusedError
from hushfleet.secagg.sealing import unseal
from hushfleet.wire.framing import Frame, pack_indices, read
from hushfleet.wire.round import Blame, MaskSum, Request, Share, Survivor

MEMBER, LOST, OTHER = 2, 3, 4


class Asked:
    """A round with all uploads in, its set, and one member that nobody has asked yet."""

    def __init__(self, keys: Any = None, **policy: Any) -> None:
        self.adversary = Adversary.in_fleet(keys or make_fleet(4, 4, **policy))
        self.world = self.adversary.world
        self.world.run_for(policy.get("interval", 0))
        self.announced: Announced = self.adversary.open_round(self.adversary.newest + 1)
        uploads = self.adversary.uploads(self.announced)
        self.entries: list[Survivor] = [upload.survivor(index) for index, upload in sorted(uploads.items())]
        self.survivors = self.adversary.set_of(self.announced, self.entries)
        self.set_hash = self.adversary.set_hash(self.survivors)
        self.number, self.now = self.announced.plan.round, self.world.now

    @property
    def member(self) -> Member:
        return self.world.device(MEMBER).member

    @property
    def record(self) -> Answer:
        return Answer.from_body(self.world.records[MEMBER].data[ANSWER])

    def show(self, now: float | None = None) -> list[Action]:
        """The member is shown the set; what it does is done."""
        return self._done(self.member.on_survivors(self.survivors, self.now if now is None else now))

    def request(self, lost: int, now: float | None = None) -> list[Action]:
        """The member is asked for a share; what it does is done."""
        request = Request(0, self.announced.hash, self.set_hash, lost)
        return self._done(self.member.on_request(self.adversary.frame(request), self.now if now is None else now))

    def _done(self, actions: list[Action]) -> list[Action]:
        self.world.perform(MEMBER, actions)
        return actions

    def opened(self, payload: bytes) -> Frame:
        """What the member sealed to the coordinator."""
        secret = self.world.keys.credentials[0].seal_secret
        assert secret is not None
        return Frame.from_bytes(unseal(payload, secret))


def test_a_set_is_answered_by_a_record_a_mask_sum_and_a_word_in_the_log() -> None:
    asked = Asked()
    adversary, topics = asked.adversary, asked.adversary.topics
    secret = adversary.look_into(MEMBER, asked.announced).secret
    save, publish, note = asked.show()
    assert isinstance(publish, Publish)
    assert publish.topic == topics.up(0, MEMBER, "masksum", asked.number, 0)
    expected = adversary.masks(MEMBER, secret, asked.announced, asked.entries).to_bytes(asked.announced.plan.bits)
    plan_hash, pair = asked.announced.hash, asked.world.device(MEMBER).context.trust.pair
    assert pair == (1, 1)
    assert read(asked.opened(publish.payload), MaskSum) == MaskSum(
        MEMBER, plan_hash, asked.set_hash, 0, bytes(32), expected, *pair
    )
    record = Answer(asked.number, int(asked.now), 1, plan_hash, asked.set_hash, publish.payload, b"")
    assert save == Save(ANSWER, record.to_body())
    assert note == Note("answered", {"round": asked.number, "survivors": 4})
    # Asked again it says the same, and writes nothing.
    assert asked.show() == [publish]


def test_a_set_that_overtakes_the_transcript_is_answered_as_soon_as_the_plan_is_verified() -> None:
    asked = Asked()
    world = asked.world
    world.crash(MEMBER)
    world.faults = Faults(loss=1.0, hits=lambda topic: "/transcript/" in topic)
    world.start(MEMBER)
    world.run_for(5)
    assert asked.adversary.tell(MEMBER, "survivors", asked.survivors, asked.number) == []
    assert not world.device(MEMBER).refusals
    world.faults = Faults()
    # The coordinator does not ask again: there is none, only its double.
    world.run(world.noted(MEMBER, "answered"), 120.0)
    assert not world.device(MEMBER).refusals


def test_a_request_is_answered_by_a_record_a_share_and_a_word_in_the_log() -> None:
    asked = Asked(make_fleet(4, 6, recoveries=2, committee_min=6))
    sheet = asked.adversary.look_into(MEMBER, asked.announced)
    asked.show()
    before = asked.record
    save, publish, note = asked.request(LOST)
    assert save == Save(ANSWER, replace(before, recovered=pack_indices([LOST])).to_body())
    assert isinstance(publish, Publish)
    topic = asked.adversary.topics.up(0, MEMBER, "share", asked.number, 0, part=LOST)
    share = Share(MEMBER, asked.announced.hash, asked.set_hash, LOST, sheet.share_of(LOST) or b"")
    assert publish.topic == topic
    assert read(asked.opened(publish.payload), Share) == share
    assert note == Note("helped", {"round": asked.number, "lost": LOST})
    # Asked again it says the same, and counts nothing.
    again, word = asked.request(LOST)
    assert isinstance(again, Publish)
    assert read(asked.opened(again.payload), Share) == share
    assert word == note
    asked.request(OTHER)
    assert asked.record == replace(before, recovered=pack_indices([LOST, OTHER]))
    with pytest.raises(RefusedError, match="2 members were recovered in this round already"):
        asked.request(5)


def test_a_plan_s_last_second_is_still_its_time() -> None:
    asked = Asked()
    until = float(asked.announced.plan.until)
    with pytest.raises(RefusedError, match="time for answers is past"):
        asked.show(until + 0.5)
    assert asked.show(until)
    assert asked.request(LOST, until)
    with pytest.raises(RefusedError, match="time for answers is past"):
        asked.request(LOST, until + 0.5)


def test_a_set_may_be_as_small_and_as_large_as_the_policy_says() -> None:
    assert Asked(smallest_survivor_set=4).show()
    exact = Asked(largest_survivor_set=4)
    assert exact.show()
    large = Asked(largest_survivor_set=3)
    with pytest.raises(RefusedError, match="a set of 4 is outside the policy"):
        large.show()


def test_the_largest_set_there_may_be_is_read_and_a_larger_one_is_not() -> None:
    asked = Asked()
    for number, error, why in ((16_383, RefusedError, "outside the policy"), (16_386, MalformedError, "bytes")):
        entries = [replace(asked.entries[0], index=index) for index in range(number)]
        asked.survivors = asked.adversary.set_of(asked.announced, entries)
        with pytest.raises(error, match=why):
            asked.show()


@pytest.mark.parametrize(("ago", "refused"), [(50, False), (49, True), (0, True), (-1, False)])
def test_answers_keep_the_interval_to_the_second(ago: int, refused: bool) -> None:
    """A last answer that is still to come, by this clock, says nothing."""
    asked = Asked(interval=50)
    role = asked.member
    assert role._answer is not None
    role._answer = replace(role._answer, answered=int(asked.now) - ago)
    if refused:
        with pytest.raises(RefusedError, match="faster than the policy allows"):
            asked.show(float(int(asked.now)))
    else:
        assert asked.show(float(int(asked.now)))


def test_a_certificate_s_last_second_is_still_its_time() -> None:
    keys, last = make_fleet(4, 4), START + 500
    credential = keys.credentials[5]
    changed = replace(credential, cert=replace(credential.cert, not_after=last))
    asked = Asked(replace(keys, credentials=keys.credentials | {5: changed}).next_version(2))
    with pytest.raises(RefusedError, match="survivor 5 is not a certified participant"):
        asked.show(last + 1.0)
    assert asked.show(float(last))


def test_erased_secrets_answer_nothing() -> None:
    asked = Asked()
    for key in [key for key in asked.world.records[MEMBER].data if key.startswith("sheet/")]:
        del asked.world.records[MEMBER].data[key]
    with pytest.raises(RefusedError, match="its secrets are erased"):
        asked.show()
    other = Asked()
    other.show()
    for key in [key for key in other.world.records[MEMBER].data if key.startswith("sheet/")]:
        del other.world.records[MEMBER].data[key]
    with pytest.raises(RefusedError, match="no share of member"):
        other.request(LOST)


def test_the_end_of_a_round_erases_its_secrets_and_its_answer_once() -> None:
    asked = Asked()
    asked.show()
    record, number = asked.record, asked.number
    assert record.sum
    assert asked.member.end_rounds(number - 1) == []
    actions = asked.member.end_rounds(number)
    assert actions == [
        Erase(f"sheet/{1:010}/{number:020}"),
        Save(ANSWER, replace(record, sum=b"").to_body()),
    ]
    assert asked.member.end_rounds(number) == []
    # Of later rounds the secrets go, and there is no answer left to erase.
    later = asked.member.end_rounds(number + 1)
    assert Erase(f"sheet/{1:010}/{number + 1:020}") in later
    assert not [action for action in later if isinstance(action, Save)]
    with pytest.raises(RefusedError, match="another set than the one answered"):
        asked.show()


def test_a_member_that_forgets_erases_every_round_and_keeps_what_it_answered() -> None:
    asked = Asked()
    asked.show()
    record, sheets = asked.record, [key for key in asked.world.records[MEMBER].data if key.startswith("sheet/")]
    assert len(sheets) > 1
    assert asked.member.forget() == [*map(Erase, sorted(sheets)), Save(ANSWER, replace(record, sum=b"").to_body())]
    assert not [action for action in asked.member.forget() if isinstance(action, Save)]


def test_the_next_plan_ends_the_rounds_before_it_and_not_its_own() -> None:
    asked = Asked()
    asked.show()
    later = asked.adversary.open_round(asked.number + 1)
    assert asked.record.sum == b""
    entries = [upload.survivor(index) for index, upload in sorted(asked.adversary.uploads(later).items())]
    assert asked.adversary.ask_sum(MEMBER, later, asked.adversary.set_of(later, entries))


def test_a_blame_about_no_plan_or_another_one_proves_nothing() -> None:
    world = World(make_fleet(3, 4), rounds=RoundSettings(collect=60, answer=10, recover=30))
    frame = world.keys.credentials[0].identity().frame(Blame(0, bytes(32), LOST, b"", (), bytes(32)), world.keys.fleet)
    world.run_for(0.5)
    for event in (None, "plan"):
        if event:
            world.run(world.noted(0, event))
            world.run_for(0.5)
        with pytest.raises(RefusedError, match="another plan than the newest verified here"):
            world.device(MEMBER).member.on_blame(frame.to_bytes(), world.now)
