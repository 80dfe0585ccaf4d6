"""A coordinator that lies in a set-up: calls, lists and transcripts that members and devices refuse (section 3)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from adversary import Adversary
from world import Crash, make_fleet

from edge_agent.sheets import Attempt
from hushfleet.wire.committee import Call, CardList, CommitteeKey
from hushfleet.wire.framing import Frame, read

MEMBERS, MEMBER, EPOCH = (1, 2, 3, 4), 2, 2


def taken_over() -> Adversary:
    return Adversary.in_fleet(make_fleet(4, 4, epoch_rounds=4))


def call(adversary: Adversary, **changes: Any) -> Call:
    """A call for the second epoch as an honest coordinator would make it now, but for the changes."""
    now, transcript = int(adversary.world.now), adversary.epoch(1).transcript
    honest = Call(0, EPOCH, transcript.committee, 1, 5, 4, transcript.not_after, now + 30, now + 60, now + 120)
    return replace(honest, **changes)


def ask(adversary: Adversary, message: Call, member: int = MEMBER) -> list[bytes]:
    """Cards that a member publishes for a call."""
    sent = adversary.deliver(member, adversary.topics.call(message.epoch), adversary.frame(message))
    return [publish.payload for publish in sent if adversary.topics.parse(publish.topic).kind == "card"]


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "fewer recoveries": ({"f": 0}, "not the policy's"),
    "more recoveries": ({"f": 2}, "not the policy's"),
    "more rounds": ({"rounds": 5}, "not the policy's"),
    "a longer age": ({"not_after": 1_700_000_000 + 8 * 86_400}, "age exceeds the policy's"),
    "an old epoch": ({"epoch": 1}, "not above 1"),
    "an epoch far ahead": ({"epoch": 1002}, "jumps from 1"),
    "a first round far ahead": ({"first": 2000}, "too far above"),
    "another committee document": ({"committee": bytes(32)}, "another committee document"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_call_against_the_policy_or_the_order_gets_no_card(name: str) -> None:
    adversary, (changes, why) = taken_over(), BROKEN[name]
    assert ask(adversary, call(adversary, **changes)) == []
    assert why in adversary.refusals(MEMBER)[-1]
    assert len(ask(adversary, call(adversary))) == 1


def test_a_second_call_for_an_epoch_gets_no_second_card() -> None:
    adversary = taken_over()
    assert len(ask(adversary, call(adversary))) == 1
    assert ask(adversary, call(adversary, first=6)) == []
    assert "not above 2" in adversary.refusals(MEMBER)[-1]
    adversary.world.crash(MEMBER)
    adversary.world.start(MEMBER)
    adversary.world.run_for(1)
    assert ask(adversary, call(adversary, first=7)) == []
    cards = {sent.payload for sent in adversary.said(MEMBER) if sent.topic == adversary.topics.card(EPOCH, MEMBER)}
    assert len(cards) == 1


def cards_in(adversary: Adversary) -> CardList:
    """Every member has answered the call; the honest list of their cards."""
    adversary.world.broker.publish(0, adversary.topics.call(EPOCH), adversary.frame(call(adversary)), True)
    adversary.world.run_for(1)
    fleet, retained = adversary.world.keys.fleet, adversary.world.broker.retained
    hashes = [Frame.from_bytes(retained[adversary.topics.card(EPOCH, member)]).hash(fleet) for member in MEMBERS]
    packed = b"".join(member.to_bytes(4, "little") + h for member, h in zip(MEMBERS, hashes, strict=True))
    return CardList(0, EPOCH, packed)


def dealt(adversary: Adversary, member: int = MEMBER) -> list[CommitteeKey]:
    """The different keys that a member ever published for the epoch."""
    topic = adversary.topics.key(EPOCH, member, 0)
    frames = {sent.payload for sent in adversary.said(member) if sent.topic == topic and sent.payload}
    return [read(Frame.from_bytes(data), CommitteeKey) for data in frames]


LISTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "too small": (lambda packed: packed[:72], "the policy asks for 3"),
    "without this member": (lambda packed: packed[:36] + packed[72:], "leaves this member out"),
    "another card of this member": (lambda packed: packed[:40] + bytes(32) + packed[72:], "not the one published"),
    "another card of another member": (lambda packed: packed[:4] + bytes(32) + packed[36:], "not the one published"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_other_cards_is_not_dealt_to(name: str) -> None:
    adversary, (change, why) = taken_over(), LISTS[name]
    honest = cards_in(adversary)
    forged = adversary.frame(replace(honest, cards=change(honest.cards)))
    adversary.deliver(MEMBER, adversary.topics.list(EPOCH), forged)
    assert why in adversary.world.why(MEMBER)[-1]
    assert not dealt(adversary)


def test_a_second_list_is_not_dealt_to_before_or_after_a_crash() -> None:
    for crash in (None, Crash(0, downtime=1.0)):
        adversary = taken_over()
        honest = cards_in(adversary)
        world = adversary.world
        if crash is not None:
            world.crashes[MEMBER, world.events[MEMBER] + 1] = crash
        adversary.deliver(MEMBER, adversary.topics.list(EPOCH), adversary.frame(honest))
        world.run_for(2)
        second = replace(honest, cards=honest.cards[:108])
        adversary.deliver(MEMBER, adversary.topics.list(EPOCH), adversary.frame(second))
        assert "second list" in adversary.refusals(MEMBER)[-1]
        # Dealt once, to the first list; after the crash the retained key is what went into the records.
        (key,) = dealt(adversary)
        assert key.list == Frame.from_bytes(adversary.frame(honest)).hash(world.keys.fleet)


def test_a_transcript_that_lacks_one_members_word_serves_nobody() -> None:
    """The hidden ready message: everyone else signed, and the hash of the body is the same."""
    adversary = taken_over()
    retained = adversary.world.broker.retained
    topic = adversary.topics.transcript(1, 0)
    whole = Frame.from_bytes(retained[topic])
    retained[topic] = replace(whole, signatures=whole.signatures[:-1]).to_bytes()
    for device in (1, 5, 6):
        adversary.world.crash(device)
        adversary.world.start(device)
    announced = adversary.announce(adversary.plan(2))
    adversary.world.run_for(10)
    assert set(adversary.uploads(announced)) == {7, 8}
    for device in (1, 5, 6):
        assert any("signers are not exactly its members" in why for why in adversary.refusals(device))


def test_a_vault_restored_from_a_backup_meets_its_own_card_and_sits_the_epoch_out() -> None:
    """The copy is from before the call. It draws another card, sees its own old one, and deals to nobody."""
    adversary = taken_over()
    world = adversary.world
    backup = dict(world.records[MEMBER].data)
    honest = cards_in(adversary)
    world.crash(MEMBER)
    world.records[MEMBER].data = backup
    world.start(MEMBER)
    world.run_for(1)
    assert world.counts[MEMBER, "restored-vault"] == 1
    adversary.deliver(MEMBER, adversary.topics.list(EPOCH), adversary.frame(honest))
    world.run_for(5)
    assert not dealt(adversary)
    attempt = Attempt.from_body(world.records[MEMBER].data[f"setup/{EPOCH:010}"])
    assert (attempt.out, attempt.secrets, attempt.own) == (1, b"", b"")
