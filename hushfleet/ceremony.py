"""What members and coordinator compute alike in a committee set-up (docs/protocol.md, 3 and 11.3). No state."""

from collections.abc import Mapping, Sequence

from hushfleet.actions import Draw
from hushfleet.errors import HushfleetError, MalformedError, RefusedError
from hushfleet.secagg import committee
from hushfleet.secagg.sealing import public_of, unseal
from hushfleet.wire.committee import Box, Call, Card, CardList, CommitteeKey, Complaint, Transcript
from hushfleet.wire.documents import CommitteeDocument
from hushfleet.wire.framing import Frame, entries, pack_indices, read_message


class WrongBoxError(RefusedError):
    """A signed box whose content is wrong: ground for a complaint."""


def largest_key(rounds: int) -> int:
    """Bytes of a key's frame, at most: 32 commitments a round and what stands around them."""
    return 1024 + 32 * 32 * rounds


def seal_key_for(card: Card, dealer: int, candidates: Sequence[int]) -> bytes:
    """The sealing key that the card's owner made for `dealer`; the card skips its owner among the candidates.

    Raises:
        RefusedError: the card holds no key for that dealer.
    """
    others = [index for index in candidates if index != card.sender]
    keys = entries(card.seal, 32)
    if dealer not in others or len(keys) != len(others):
        raise RefusedError(f"the card of candidate {card.sender} holds no key for {dealer}")
    return keys[others.index(dealer)]


def check_list(cards: CardList, held: Mapping[int, bytes], smallest: int) -> tuple[int, ...]:
    """T, if every card that the list names is held with just that hash.

    Args:
        cards: the coordinator's list.
        held: card hash by candidate.
        smallest: the policy's `committee_min`.

    Raises:
        RefusedError: too few, or a card that is not the one held.
    """
    hashes = cards.hashes()
    if len(hashes) < smallest:
        raise RefusedError(f"the list holds {len(hashes)} candidates, the policy asks for {smallest}")
    if any(held.get(member) != card_hash for member, card_hash in hashes):
        raise RefusedError("the list names a card that is not the one published")
    return tuple(member for member, _ in hashes)


def check_key(key: CommitteeKey, call: Call, list_hash: bytes, threshold: int) -> None:
    """Raise RefusedError unless the dealer's key is of this attempt and has exactly t commitments a round."""
    if (key.epoch, key.list, key.first, key.rounds, key.not_after) != (
        call.epoch,
        list_hash,
        call.first,
        call.rounds,
        call.not_after,
    ):
        raise RefusedError(f"dealer {key.sender}: a key of another attempt")
    if len(key.points) != 32 * call.rounds * threshold:
        raise RefusedError(f"dealer {key.sender}: not exactly {threshold} commitments a round")


def transcript(
    call: Call,
    keys: Mapping[int, tuple[bytes, CommitteeKey]],
    cards: Mapping[int, Card],
    members: Sequence[int],
) -> Transcript:
    """The transcript, from verified bytes alone.

    Args:
        call: the attempt.
        keys: (key hash, key) of every member, each passed by `check_key`.
        cards: the cards of every member.
        members: T, ascending.

    Raises:
        MalformedError: an invalid point among the keys, or two equal ones.
    """
    points = [keys[member][1].points for member in members]
    committee.check_keys(points)
    threshold = len(members) - call.f
    leaves = [committee.leaf(call.epoch, k, committee.round_points(points, threshold, k)) for k in range(call.rounds)]
    root, manifest = max(cards[member].pair() for member in members)
    return Transcript(
        call.epoch,
        call.committee,
        call.first,
        call.rounds,
        call.f,
        call.not_after,
        pack_indices(list(members)),
        b"".join(keys[member][0] for member in members),
        b"".join(leaves),
        root,
        manifest,
    )


def box_header(key_hash: bytes, dealer: int, member: int) -> bytes:
    """What a box's content begins with: `key hash ‖ from u32 ‖ to u32`."""
    return key_hash + dealer.to_bytes(4, "little") + member.to_bytes(4, "little")


def open_box(
    box: Box, secret: bytes, key_hash: bytes, key: CommitteeKey, members: Sequence[int], threshold: int, draw: Draw
) -> list[bytes]:
    """The R shares that a signed box holds for its receiver, each checked against the dealer's commitments.

    Args:
        box: signed by its dealer, for this attempt.
        secret: the receiver's sealing secret for that dealer.
        key_hash, key: the dealer's key.
        members: T, ascending; the receiver's position from 1 is its evaluation point.
        threshold: t.
        draw: randomness for the combined check.

    Raises:
        WrongBoxError: it does not open, or header, length, a scalar or a commitment is wrong.
    """
    try:
        content = unseal(box.box, secret)
        header = box_header(key_hash, box.sender, box.to)
        if content[: len(header)] != header or len(content) != len(header) + 32 * key.rounds:
            raise MalformedError("header or length")
        shares = list(entries(content[len(header) :], 32))
        position = list(members).index(box.to) + 1
        committee.check_sheet_shares(shares, position, key.points, threshold, draw)
    except HushfleetError:
        raise WrongBoxError(f"the box of dealer {box.sender} for member {box.to} holds something else") from None
    return shares


def judge(
    complaint: Complaint,
    document: CommitteeDocument,
    fleet: bytes,
    cards: Mapping[int, Card],
    keys: Mapping[int, tuple[bytes, CommitteeKey]],
    list_hash: bytes,
    members: Sequence[int],
    threshold: int,
    draw: Draw,
) -> int:
    """Who lied: the dealer of the box, or the member that complains.

    Raises:
        RefusedError: the complaint is about no box of this epoch and list; it does not count.
    """
    candidates = document.candidates()
    box = read_message(
        Frame.from_bytes(complaint.box),
        Box,
        fleet,
        lambda index: candidates[index].key if index in candidates else None,
    )
    dealer, member = box.sender, complaint.sender
    if dealer not in keys or member not in members or (box.epoch, box.list) != (complaint.epoch, list_hash):
        raise RefusedError("a complaint about no box of this attempt")
    if box.key != keys[dealer][0] or member not in cards:
        raise RefusedError("a complaint about a box for another key, or of a member whose card is not here")
    if box.to != member or dealer == member:
        return member
    if public_of(complaint.secret) != seal_key_for(cards[member], dealer, list(candidates)):
        return member
    try:
        open_box(box, complaint.secret, *keys[dealer], members, threshold, draw)
    except WrongBoxError:
        return dealer
    return member
