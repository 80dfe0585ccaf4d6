"""A committee's arithmetic: sheets, commitments, leaves, chains, recovery, and the keys of one attempt."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import golden_fleet
import pytest
from golden_fleet import MEMBERS, THRESHOLD, fixed
from hypothesis import given, settings
from hypothesis import strategies as st
from second_writing import hashed, little

from hushfleet import ceremony
from hushfleet.errors import MalformedError, RefusedError
from hushfleet.secagg import committee, group
from hushfleet.wire.committee import Call, Card, CommitteeKey, Transcript

SETUP = golden_fleet.setup()
FLEET = golden_fleet.documents().fleet


def deal(vault: bytes = bytes(32), draw: str = "deal", list_hash: bytes = bytes(32)) -> committee.Sheet:
    return committee.deal(vault, fixed(draw), list_hash, rounds=3, threshold=2)


# ---- sheets


def test_a_sheet_has_t_coefficients_a_round_all_different() -> None:
    sheet = committee.deal(bytes(32), fixed("deal"), bytes(32), rounds=4, threshold=3)
    coefficients = [a for polynomial in sheet.polynomials for a in polynomial]
    assert [len(polynomial) for polynomial in sheet.polynomials] == [3, 3, 3, 3]
    assert len(set(coefficients)) == 12
    assert all(group.check_scalar(a) for a in coefficients)
    assert sheet.secrets() == [polynomial[0] for polynomial in sheet.polynomials]
    assert [len(commitments) for commitments in committee.commitments(sheet.points(), 3)] == [3, 3, 3, 3]


def test_a_sheet_is_hedged() -> None:
    """A dealer whose randomness repeats, as after a snapshot, still deals another sheet to another list."""
    other = b"\1" * 32
    sheets = [deal(), deal(vault=other), deal(draw="another"), deal(list_hash=other)]
    assert deal() == sheets[0]
    assert len({sheet.polynomials[0][0] for sheet in sheets}) == 4


def test_a_sheet_takes_one_draw_and_shows_no_secret() -> None:
    asked: list[int] = []

    def draw(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    sheet = committee.deal(bytes(32), draw, bytes(32), rounds=3, threshold=2)
    assert asked == [32]
    assert repr(sheet) == "Sheet()"


@pytest.mark.parametrize("members", [2, 3, 7, 32])
def test_no_share_of_a_sheet_is_its_secret(members: int) -> None:
    sheet = deal()
    for position in range(1, members + 1):
        assert not set(sheet.shares(position)) & set(sheet.secrets())


# ---- shares of all rounds at once


def test_a_dealer_s_shares_are_checked_in_one_combination() -> None:
    sheet = deal()
    shares = sheet.shares(2)
    committee.check_sheet_shares(shares, 2, sheet.points(), 2, fixed("check"))
    wrong: list[tuple[list[bytes], int]] = [
        (shares, 1),
        (shares[::-1], 2),
        (sheet.shares(3), 2),
        (shares[:-1], 2),
        ([*shares, shares[0]], 2),
        *(([*shares[:k], group.scalar_add(shares[k], group.scalar(1)), *shares[k + 1 :]], 2) for k in range(3)),
    ]
    for given_shares, position in wrong:
        with pytest.raises(RefusedError):
            committee.check_sheet_shares(given_shares, position, sheet.points(), 2, fixed("check"))
    for bad in (bytes(32), group.ORDER.to_bytes(32, "little"), b"\xff" * 32):
        with pytest.raises(MalformedError, match="not a valid scalar"):
            committee.check_sheet_shares([*shares[:2], bad], 2, sheet.points(), 2, fixed("check"))
    with pytest.raises(RefusedError):
        committee.check_sheet_shares(shares, 2, sheet.points()[:-32], 2, fixed("check"))


def test_every_round_has_a_weight_of_128_bits() -> None:
    asked: list[int] = []
    draw = fixed("weights")

    def counted(size: int) -> bytes:
        asked.append(size)
        return draw(size)

    sheet = deal()
    committee.check_sheet_shares(sheet.shares(1), 1, sheet.points(), 2, counted)
    assert asked == [16, 16, 16]


# ---- keys, leaves


def test_points_of_all_dealers_differ() -> None:
    first, second = deal().points(), deal(draw="second").points()
    committee.check_keys([first, second])
    for keys in ([first, first], [first, second[:-32] + first[:32]], [first[:32] * 2]):
        with pytest.raises(MalformedError, match="two equal points"):
            committee.check_keys(keys)


def test_a_round_s_points_stand_in_the_order_of_the_committee() -> None:
    sheets = [deal(draw=str(n)) for n in range(3)]
    keys = [sheet.points() for sheet in sheets]
    for k in range(3):
        expected = b"".join(group.base_multiply(sheet.secrets()[k]) for sheet in sheets)
        assert committee.round_points(keys, 2, k) == expected
        assert committee.leaf(7, k, expected) == hashed("leaf", little(7, 4) + little(k, 2) + expected)
    leaves = {committee.leaf(epoch, k, committee.round_points(keys, 2, 0)) for epoch in (1, 2) for k in (0, 1)}
    assert len(leaves) == 4


# ---- recovery


@settings(max_examples=10)
@given(members=st.integers(2, 7), data=st.data())
def test_any_t_helpers_recover_the_secret_of_one_round(members: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, members))
    sheet = committee.deal(bytes(32), fixed("recover"), bytes(32), rounds=2, threshold=threshold)
    commitments = committee.commitments(sheet.points(), threshold)
    shares = [(x, sheet.shares(x)[1]) for x in range(1, members + 1)]
    for helpers in list(combinations(shares, threshold))[:6]:
        assert committee.recover(helpers, commitments[1]) == sheet.secrets()[1]
    assert committee.recover(shares, commitments[1]) == sheet.secrets()[1]
    with pytest.raises(RefusedError, match="shares of"):
        committee.recover(shares[: threshold - 1], commitments[1])
    with pytest.raises(RefusedError, match="not behind the member's point"):
        committee.recover(shares, commitments[0])


def test_a_wrong_or_doubled_share_recovers_nothing() -> None:
    sheet = deal()
    commitments = committee.commitments(sheet.points(), 2)[0]
    one, two = sheet.shares(1)[0], sheet.shares(2)[0]
    assert committee.recover([(1, one), (2, two)], commitments) == sheet.secrets()[0]
    with pytest.raises(RefusedError, match="not behind the member's point"):
        committee.recover([(1, one), (2, group.scalar_add(two, group.scalar(1)))], commitments)
    with pytest.raises(RefusedError, match="distinct positions"):
        committee.recover([(1, one), (1, one)], commitments)
    with pytest.raises(RefusedError, match="not behind the member's point"):
        committee.recover([(1, one), (3, two)], commitments)


# ---- chains


@given(nonce=st.binary(min_size=32, max_size=32), first=st.integers(0, 20), then=st.integers(0, 20))
def test_a_chain_goes_on_where_it_stopped(nonce: bytes, first: int, then: int) -> None:
    assert committee.chain(committee.chain(nonce, first), then) == committee.chain(nonce, first + then)
    assert committee.chain(nonce, 0) == nonce
    assert committee.chain(nonce, 1) == hashed("link", nonce)


# ---- one attempt


def call() -> Call:
    return Call.from_body(SETUP.call.body)


def keys() -> dict[int, tuple[bytes, CommitteeKey]]:
    return {m: (frame.hash(FLEET), CommitteeKey.from_body(frame.body)) for m, frame in SETUP.keys.items()}


def cards() -> dict[int, Card]:
    return {member: Card.from_body(frame.body) for member, frame in SETUP.cards.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 8},
        {"list": bytes(32)},
        {"first": 1},
        {"rounds": 4},
        {"not_after": 1},
        {"points": b""},
        {"points": SETUP.points(2)[:-32]},
        {"points": SETUP.points(2) + SETUP.points(2)[:32]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_key_of_another_attempt_or_length_is_refused(changes: dict[str, Any]) -> None:
    _, key = keys()[2]
    list_hash = SETUP.card_list.hash(FLEET)
    ceremony.check_key(key, call(), list_hash, THRESHOLD)
    with pytest.raises(RefusedError):
        ceremony.check_key(replace(key, **changes), call(), list_hash, THRESHOLD)


def test_every_member_builds_the_same_transcript() -> None:
    built = ceremony.transcript(call(), keys(), cards(), MEMBERS)
    backwards = ceremony.transcript(call(), dict(reversed(keys().items())), cards(), MEMBERS)
    assert built == backwards == Transcript.from_body(SETUP.transcript.body)


def test_the_transcript_names_the_highest_pair_of_its_members_cards() -> None:
    newer = cards() | {3: replace(cards()[3], root=1, manifest=99)}
    assert ceremony.transcript(call(), keys(), newer, MEMBERS).manifest == 99
    newest = newer | {700: replace(cards()[700], root=2, manifest=1)}
    built = ceremony.transcript(call(), keys(), newest, MEMBERS)
    assert (built.root, built.manifest) == (2, 1)


def test_a_copied_key_makes_no_transcript() -> None:
    """A dealer that repeats another's commitments would know nothing and cancel something."""
    copied = replace(keys()[3][1], points=SETUP.points(2))
    with pytest.raises(MalformedError, match="two equal points"):
        ceremony.transcript(call(), keys() | {3: (bytes(32), copied)}, cards(), MEMBERS)


def test_a_card_has_a_key_for_every_other_candidate_and_no_more() -> None:
    card = cards()[3]
    assert ceremony.seal_key_for(card, 2, MEMBERS) == card.seal[:32]
    assert ceremony.seal_key_for(card, 700, MEMBERS) == card.seal[32:]
    for dealer, candidates in ((3, MEMBERS), (5, MEMBERS), (2, (2, 3)), (2, (2, 3, 4, 700))):
        with pytest.raises(RefusedError, match="holds no key"):
            ceremony.seal_key_for(card, dealer, candidates)
