"""A member's secrets of the epochs it is in, and their erasure (docs/protocol.md, section 3). No I/O.

dealer/highest           the highest epoch number it knows
setup/{epoch}            an attempt, with the exact frames it signed
sheet/{epoch}/{round}    its round secret and the shares it holds of the others', erased round by round
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from hushfleet.actions import Action, Erase, Save, Store
from hushfleet.wire.committee import Call
from hushfleet.wire.framing import B32, Bytes, Flag, Frame, ManyB4, ManyB32, Table, entries, indices, pack_indices

HIGHEST = "dealer/highest"


@dataclass(frozen=True, slots=True)
class Attempt(Table):
    """One attempt at an epoch, as this member has signed it so far; frames are empty until then.

    Attributes:
        call: the call it answers.
        others: the other candidates, ascending.
        secrets: the sealing secrets made for them, in this order, until it is ready.
        nonce: the secret end of the chain whose anchor is in the card.
        card, cards, key, ready: frames of its card, the list, its key and its signed transcript.
        own: its round secrets s_{h,k}, until they go into the sheets of the rounds.
        out: 1 if a signature of its own turned up that this vault never made.
    """

    KIND: ClassVar[str] = "attempt"
    call: Bytes
    others: ManyB4
    secrets: ManyB32
    nonce: B32
    card: Bytes
    cards: Bytes
    key: Bytes
    own: ManyB32
    ready: Bytes
    out: Flag

    @classmethod
    def empty(
        cls,
        call: bytes = b"",
        others: bytes = b"",
        secrets: bytes = b"",
        nonce: bytes = bytes(32),
        card: bytes = b"",
        out: int = 0,
    ) -> Self:
        """An attempt in which no key is signed yet."""
        return cls(call, others, secrets, nonce, card, b"", b"", b"", b"", out)

    def unfinished(self) -> bool:
        """Whether it can still become ready."""
        return bool(self.call) and not self.ready and not self.out

    def secret_for(self, dealer: int) -> bytes:
        """The sealing secret made for that dealer."""
        return entries(self.secrets, 32)[indices(self.others).index(dealer)]

    def not_after(self) -> int:
        """When the epoch ends, in seconds since 1970; 0 for one that this vault sits out."""
        return Call.from_body(Frame.from_bytes(self.call).body).not_after if self.call else 0


@dataclass(frozen=True, slots=True)
class RoundSheet(Table):
    """What a member holds for one round of one epoch: its secret, and a share of each other member's."""

    KIND: ClassVar[str] = "sheet"
    secret: B32
    dealers: ManyB4
    shares: ManyB32

    def share_of(self, member: int) -> bytes | None:
        """f_{member,k}(own position), or None."""
        return dict(zip(indices(self.dealers), entries(self.shares, 32), strict=True)).get(member)


class Sheets:
    """The attempts in memory, the rounds' secrets on disk alone.

    Attributes:
        attempts: by epoch.
        highest: the highest epoch this member knows.
        ended: the newest round that is over: of those up to it no secret is kept any more.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.attempts: dict[int, Attempt] = {
            int(key.removeprefix("setup/")): Attempt.from_body(value) for key, value in store.scan("setup/")
        }
        saved = store.get(HIGHEST)
        self.highest = int.from_bytes(saved, "little") if saved else 0
        self.ended = 0

    def raise_highest(self, epoch: int) -> list[Action]:
        """Epoch numbers only rise."""
        if epoch <= self.highest:
            return []
        self.highest = epoch
        return [Save(HIGHEST, epoch.to_bytes(4, "little"))]

    def save(self, epoch: int, attempt: Attempt) -> list[Action]:
        """Keep an attempt."""
        self.attempts[epoch] = attempt
        return [Save(f"setup/{epoch:010}", attempt.to_body())]

    def save_rounds(self, call: Call, secrets: list[bytes], held: Mapping[int, list[bytes]]) -> list[Action]:
        """Keep one sheet for each round of an epoch: `secrets` by k, `held` by dealer and k.

        None for a round that ended while the epoch was set up: as a rollback, or in another epoch, of which the members
        were ready without this one.
        """
        dealers = pack_indices(list(held))
        return [
            Save(
                _key(call.epoch, call.first + k),
                RoundSheet(secret, dealers, b"".join(shares[k] for shares in held.values())).to_body(),
            )
            for k, secret in enumerate(secrets)
            if call.first + k > self.ended
        ]

    def of_round(self, epoch: int, round_number: int) -> RoundSheet | None:
        """The sheet of one round, unless it is erased or was never dealt."""
        data = self._store.get(_key(epoch, round_number))
        return RoundSheet.from_body(data) if data else None

    def erase_rounds(self, upto: int) -> list[Action]:
        """Erase the secrets of every round ≤ `upto`, in every epoch."""
        return [Erase(key) for key, _ in self._store.scan("sheet/") if int(key.rpartition("/")[2]) <= upto]

    def erase_epoch(self, epoch: int) -> list[Action]:
        """Erase an epoch's attempt and sheets."""
        self.attempts.pop(epoch, None)
        return [Erase(f"setup/{epoch:010}"), *(Erase(key) for key, _ in self._store.scan(f"sheet/{epoch:010}/"))]


def _key(epoch: int, round_number: int) -> str:
    return f"sheet/{epoch:010}/{round_number:020}"
