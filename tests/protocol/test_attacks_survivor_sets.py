"""Sets that the coordinator may not show to a member: refused, and never a second mask sum for a round (section 4).

The adversary is the coordinator, with the keys of participants that collude; the members are the real roles.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from adversary import Adversary, Announced
from nacl import bindings
from world import Crash, make_fleet

from hushfleet.codec import OpeningError
from hushfleet.secagg import group
from hushfleet.secagg.residues import add_into, subtract_from
from hushfleet.wire.framing import Frame, Identity
from hushfleet.wire.round import Claim, Survivor, Survivors

MEMBER, LIAR = 2, 8
PARTICIPANTS = (5, 6, 7, 8)
SMALL_ORDER = (1 << 255) - 20
"""y-coordinate −1: the point of order two."""


def attacked(**policy: Any) -> tuple[Adversary, Announced, list[Survivor]]:
    """A round with all uploads in, and the honest set's entries."""
    adversary = Adversary.in_fleet(make_fleet(4, 4, **policy), corrupt=[LIAR])
    announced = adversary.open_round(adversary.newest + 1)
    return adversary, announced, [upload.survivor(i) for i, upload in sorted(adversary.uploads(announced).items())]


def answered(adversary: Adversary, member: int = MEMBER) -> list[bytes]:
    """The distinct mask sums that a member ever sent in the adversary's rounds, by round and bytes."""
    sums = {
        (adversary.topics.parse(sent.topic).round_number, sent.payload)
        for sent in adversary.said(member)
        if adversary.topics.parse(sent.topic).name == "masksum"
        and adversary.topics.parse(sent.topic).round_number > adversary.newest
    }
    return [payload for _, payload in sorted(sums)]


def stranger(entries: list[Survivor], announced: Announced, fleet: bytes, index: int) -> Survivor:
    """A survivor that the owners never certified, with a good signature of a key of the adversary's own."""
    identity = Identity(index, bytes(32))
    point = group.base_multiply(group.scalar(99))
    plan = announced.plan
    claim = Claim(plan.roster, announced.hash, plan.round, index, point, bytes(32))
    return Survivor(index, point, bytes(32), identity.sign("upload", fleet, claim.to_bytes()))


Forge = Callable[[Adversary, Announced, list[Survivor]], list[Survivor]]


def claimed_for(adversary: Adversary, announced: Announced, entry: Survivor, **changes: Any) -> Survivor:
    """The liar's entry with a claim that it signed for something else."""
    plan = announced.plan
    honest = Claim(plan.roster, announced.hash, plan.round, LIAR, entry.y, entry.upload)
    identity = adversary.world.keys.credentials[LIAR].identity()
    signature = identity.sign("upload", adversary.world.keys.fleet, replace(honest, **changes).to_bytes())
    return replace(entry, signature=signature)


def with_point(adversary: Adversary, announced: Announced, entries: list[Survivor], point: bytes) -> list[Survivor]:
    """The set with another point in the liar's entry, which it signed itself."""
    upload = adversary.uploads(announced)[LIAR]
    return [*entries[:-1], adversary.sign_claim(LIAR, announced, point, upload.data).survivor(LIAR)]


FORGERIES: dict[str, tuple[Forge, str]] = {
    "empty": (lambda adversary, announced, entries: [], "outside the policy"),
    "too small": (lambda adversary, announced, entries: entries[:2], "outside the policy"),
    "invented survivor": (
        lambda a, announced, entries: [*entries, stranger(entries, announced, a.world.keys.fleet, 77)],
        "survivor 77 is not a certified participant",
    ),
    "a member's index": (
        lambda a, announced, entries: [stranger(entries, announced, a.world.keys.fleet, 3), *entries],
        "survivor 3 is not a certified participant",
    ),
    "a certified index, another key": (
        lambda a, announced, entries: [*entries[:-1], stranger(entries, announced, a.world.keys.fleet, LIAR)],
        f"survivor {LIAR} did not sign",
    ),
    "unsigned": (
        lambda adversary, announced, entries: [*entries[:-1], replace(entries[-1], signature=bytes(64))],
        f"survivor {LIAR} did not sign",
    ),
    "another device's entry": (
        lambda adversary, announced, entries: [*entries[:-1], replace(entries[0], index=LIAR)],
        f"survivor {LIAR} did not sign",
    ),
    "another point than signed": (
        lambda adversary, announced, entries: [*entries[:-1], replace(entries[-1], y=entries[0].y)],
        f"survivor {LIAR} did not sign",
    ),
    "signed for another plan": (
        lambda a, announced, entries: [*entries[:-1], claimed_for(a, announced, entries[-1], plan=bytes(32))],
        f"survivor {LIAR} did not sign",
    ),
    "signed for another round": (
        lambda a, announced, entries: [*entries[:-1], claimed_for(a, announced, entries[-1], round=1)],
        f"survivor {LIAR} did not sign",
    ),
    "signed under another roster": (
        lambda a, announced, entries: [*entries[:-1], claimed_for(a, announced, entries[-1], roster=bytes(32))],
        f"survivor {LIAR} did not sign",
    ),
    "identity": (
        lambda a, announced, entries: with_point(a, announced, entries, (1).to_bytes(32, "little")),
        "not a valid point",
    ),
    "small order": (
        lambda a, announced, entries: with_point(a, announced, entries, SMALL_ORDER.to_bytes(32, "little")),
        "not a valid point",
    ),
    "a small-order part": (
        lambda a, announced, entries: with_point(
            a,
            announced,
            entries,
            bindings.crypto_core_ed25519_add(entries[-1].y, SMALL_ORDER.to_bytes(32, "little")),
        ),
        "not a valid point",
    ),
    "non-canonical": (
        lambda a, announced, entries: with_point(a, announced, entries, ((1 << 255) - 18).to_bytes(32, "little")),
        "not a valid point",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_set_is_refused_and_the_honest_one_still_answered(name: str) -> None:
    adversary, announced, entries = attacked(smallest_survivor_set=3)
    forge, why = FORGERIES[name]
    assert (
        adversary.ask_sum(MEMBER, announced, adversary.set_of(announced, forge(adversary, announced, entries))) is None
    )
    assert why in adversary.refusals(MEMBER)[-1]
    # It recorded nothing of the forgery: the honest set is its first.
    assert adversary.ask_sum(MEMBER, announced, adversary.set_of(announced, entries))


@pytest.mark.parametrize("order", ["doubled", "descending"])
def test_an_index_twice_or_out_of_order_is_no_set(order: str) -> None:
    adversary, announced, entries = attacked()
    listed = [*entries, entries[-1]] if order == "doubled" else entries[::-1]
    packed = b"".join(entry.to_bytes() for entry in listed)
    # Written by hand: the real table refuses to write it, too.
    honest = Survivors(0, announced.hash, b"".join(entry.to_bytes() for entry in entries)).to_body()
    body = honest.replace(b"".join(entry.to_bytes() for entry in entries), packed)
    length = len(packed).to_bytes(2, "big")
    body = body.replace(b"\xc5" + (132 * len(entries)).to_bytes(2, "big"), b"\xc5" + length)
    signature = adversary.world.keys.credentials[0].identity().sign("survivors", adversary.world.keys.fleet, body)
    frame = Frame("survivors", body, ((0, signature),)).to_bytes()
    assert adversary.ask_sum(MEMBER, announced, frame) is None
    assert "not ascending" in adversary.refusals(MEMBER)[-1]


def test_a_set_that_the_coordinator_did_not_sign_is_refused() -> None:
    adversary, announced, entries = attacked()
    packed = b"".join(entry.to_bytes() for entry in entries)
    for forged in (
        Frame("survivors", Survivors(0, announced.hash, packed).to_body()).to_bytes(),
        adversary.frame(Survivors(LIAR, announced.hash, packed), signer=LIAR),
    ):
        assert adversary.ask_sum(MEMBER, announced, forged) is None
    assert not answered(adversary)


@pytest.mark.parametrize("restart", [False, True], ids=["in one life", "over a restart"])
def test_the_same_set_gets_the_same_bytes_and_any_other_set_none(restart: bool) -> None:
    adversary, announced, entries = attacked()
    survivors = adversary.set_of(announced, entries)
    first = adversary.ask_sum(MEMBER, announced, survivors)
    assert first
    if restart:
        adversary.world.crash(MEMBER)
        adversary.world.start(MEMBER)
        adversary.world.run_for(1)
    assert adversary.ask_sum(MEMBER, announced, survivors) == first
    for other in (entries[1:], entries[:-1], [*entries[:1], *entries[2:]]):
        assert adversary.ask_sum(MEMBER, announced, adversary.set_of(announced, other)) is None
        assert "another set than the one answered" in adversary.refusals(MEMBER)[-1]
    assert adversary.ask_sum(MEMBER, announced, survivors) == first
    assert len(answered(adversary)) == 1


def test_an_answer_whose_record_was_not_committed_never_left() -> None:
    """The machine dies with the event: the set it is shown then is its first. Dead after the commit, it is its last."""
    for sent, second_allowed in ((None, True), (0, False)):
        adversary, announced, entries = attacked()
        world = adversary.world
        world.crashes[MEMBER, world.events[MEMBER] + 1] = Crash(sent, downtime=1.0)
        assert adversary.ask_sum(MEMBER, announced, adversary.set_of(announced, entries)) is None
        world.run_for(3)
        assert MEMBER in world.nodes
        other = adversary.ask_sum(MEMBER, announced, adversary.set_of(announced, entries[1:]))
        assert (other is not None) == second_allowed
        assert len(answered(adversary)) == (1 if second_allowed else 0)


def test_a_vault_put_back_within_its_epoch_answers_no_second_set() -> None:
    """The copy is from after the set-up and before the answer. Its own answer was sealed, so it never meets it."""
    adversary, announced, entries = attacked()
    world = adversary.world
    copy = dict(world.records[MEMBER].data)
    assert adversary.ask_sum(MEMBER, announced, adversary.set_of(announced, entries))
    world.crash(MEMBER)
    world.put_back(MEMBER, copy)
    world.start(MEMBER)
    world.run_for(1)
    for shown in (entries[1:], entries):
        assert adversary.ask_sum(MEMBER, announced, adversary.set_of(announced, shown)) is None
        assert "its secrets are erased" in adversary.refusals(MEMBER)[-1]


def test_one_device_removed_for_half_of_the_members_opens_neither_set() -> None:
    """What the second set would have bought: the difference of the two sums is the device that was removed."""
    adversary, announced, entries = attacked()
    full, less = adversary.set_of(announced, entries), adversary.set_of(announced, entries[1:])
    sums = {member: adversary.ask_sum(member, announced, full if member < 3 else less) for member in (1, 2, 3, 4)}
    uploads = adversary.uploads(announced)
    for shown in (entries, entries[1:]):
        vector = adversary.vector(uploads[shown[0].index].data, announced)
        for entry in shown[1:]:
            add_into(vector, adversary.vector(uploads[entry.index].data, announced))
        for answer in sums.values():
            assert answer
            subtract_from(vector, adversary.vector(answer.sum, announced))
        with pytest.raises(OpeningError):
            adversary.open(vector, len(shown), announced)
    # Had the members answered twice, the victim alone would be open: shown with the members' true secrets.
    truth = {member: adversary.look_into(member, announced).secret for member in (1, 2, 3, 4)}
    assert adversary.open_single(entries[0].index, truth, announced)[entries[0].index] != 0
