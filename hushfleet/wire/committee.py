"""Messages of the committee set-up: call, card, list, key, box, transcript, complaint (11.3)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from hushfleet.errors import MalformedError
from hushfleet.wire.framing import (
    B32,
    U8,
    U16,
    U32,
    U64,
    Binary,
    Bytes,
    ManyB4,
    ManyB32,
    Sender,
    Table,
    check_ascending,
    entries,
    indices,
)

LARGEST_COMMITTEE = 32
LARGEST_EPOCH = 1024


def _check_rounds(rounds: int) -> None:
    if not 1 <= rounds <= LARGEST_EPOCH:
        raise MalformedError(f"an epoch has 1 to {LARGEST_EPOCH} rounds")


@dataclass(frozen=True, slots=True)
class Call(Table):
    """The coordinator asks the candidates for a new epoch's committee."""

    KIND: ClassVar[str] = "call"
    sender: Sender
    epoch: U32
    committee: B32
    f: U8
    first: U64
    rounds: U16
    not_after: U64
    cards_by: U64
    keys_by: U64
    ready_by: U64

    def check(self) -> None:
        _check_rounds(self.rounds)
        if not self.cards_by < self.keys_by < self.ready_by < self.not_after:
            raise MalformedError("call: deadlines follow each other")


@dataclass(frozen=True, slots=True)
class Card(Table):
    """A candidate takes part: one sealing key for every other candidate, ascending, and its chain's anchor."""

    KIND: ClassVar[str] = "card"
    sender: Sender
    epoch: U32
    committee: B32
    seal: ManyB32
    anchor: B32
    root: U32
    manifest: U32

    def check(self) -> None:
        keys = entries(self.seal, 32)
        if len(set(keys)) != len(keys):
            raise MalformedError("card: two sealing keys are equal")

    def pair(self) -> tuple[int, int]:
        """The highest (root, manifest) the candidate knows."""
        return self.root, self.manifest


@dataclass(frozen=True, slots=True)
class CardList(Table):
    """Whose cards count: this defines T."""

    KIND: ClassVar[str] = "list"
    sender: Sender
    epoch: U32
    cards: Annotated[bytes, Binary(multiple=36)]

    def check(self) -> None:
        members = [member for member, _ in self.hashes()]
        check_ascending(members, "list.cards")
        if not 2 <= len(members) <= LARGEST_COMMITTEE:
            raise MalformedError(f"list: a committee has 2 to {LARGEST_COMMITTEE} members")

    def hashes(self) -> tuple[tuple[int, bytes], ...]:
        """(member, card hash), ascending by member."""
        return tuple((int.from_bytes(entry[:4], "little"), entry[4:]) for entry in entries(self.cards, 36))


@dataclass(frozen=True, slots=True)
class CommitteeKey(Table):
    """A dealer's commitments for every round of the epoch: A_{h,k,j} at position k·t + j."""

    KIND: ClassVar[str] = "key"
    sender: Sender
    epoch: U32
    list: B32
    first: U64
    rounds: U16
    not_after: U64
    points: ManyB32

    def check(self) -> None:
        _check_rounds(self.rounds)


@dataclass(frozen=True, slots=True)
class Box(Table):
    """The sealed shares of one dealer for one other member."""

    KIND: ClassVar[str] = "box"
    sender: Sender
    epoch: U32
    list: B32
    key: B32
    to: U32
    box: Bytes


@dataclass(frozen=True, slots=True)
class Transcript(Table):
    """What every member of T signs: the committee of an epoch. It has no sender."""

    KIND: ClassVar[str] = "transcript"
    epoch: U32
    committee: B32
    first: U64
    rounds: U16
    f: U8
    not_after: U64
    members: ManyB4
    keys: ManyB32
    leaves: ManyB32
    root: U32
    manifest: U32

    def check(self) -> None:
        _check_rounds(self.rounds)
        members = indices(self.members)
        check_ascending(members, "transcript.members")
        if not 2 <= len(members) <= LARGEST_COMMITTEE or self.f >= len(members):
            raise MalformedError(f"transcript: 2 to {LARGEST_COMMITTEE} members, more than f")
        if len(self.keys) != 32 * len(members) or len(self.leaves) != 32 * self.rounds:
            raise MalformedError("transcript: one key hash a member, one leaf a round")

    def committee_indices(self) -> tuple[int, ...]:
        """T, ascending."""
        return indices(self.members)

    def round_index(self, round_number: int) -> int:
        """k of a round, from 0; MalformedError outside the epoch."""
        k = round_number - self.first
        if not 0 <= k < self.rounds:
            raise MalformedError("the round is outside the epoch")
        return k


@dataclass(frozen=True, slots=True)
class Complaint(Table):
    """A signed box whose content is wrong, with the sealing secret that opens that box and no other."""

    KIND: ClassVar[str] = "complaint"
    sender: Sender
    epoch: U32
    box: Bytes
    secret: B32
