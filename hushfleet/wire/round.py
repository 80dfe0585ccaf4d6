"""Messages of a round: plan, upload header, receipt, survivors, mask sum, recovery, blame, result, delta (11.4)."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from hushfleet.errors import MalformedError
from hushfleet.hashing import digest
from hushfleet.wire.framing import (
    B32,
    B64,
    F64,
    U8,
    U16,
    U32,
    U64,
    Array,
    Binary,
    Bytes,
    Flag,
    Frames,
    ManyB16,
    ManyB32,
    Nested,
    Real,
    Sender,
    Table,
    Unsigned,
    check_ascending,
    entries,
    signed_bytes,
    verify,
)

TRAIN, STATISTICS = 0, 1
PLAIN, ROTATED = 0, 1
ACCEPTED, REFUSED, MISSING = 0, 1, 2
NONE, CLOSED, NOT_CERTIFIED, BAD_SIGNATURE, BAD_FORM, ANOTHER_HELD, FULL = range(7)
"""Reasons of a receipt."""
RECEIPT_REASONS = (
    None,
    "the round is closed",
    "not certified",
    "wrong signature",
    "malformed",
    "another upload of this round is held",
    "full",
)

BUDGET, BATTERY, DATA, POLICY, BASE_USED_UP, STALE_FLEET, UPGRADE_NEEDED, BUSY = range(1, 9)
"""Reasons of a decline."""
DECLINE_REASONS = (
    None,
    "privacy budget",
    "battery",
    "data",
    "policy",
    "base used up",
    "stale fleet",
    "upgrade needed",
    "busy",
)

APPLIED, ABORTED, VOID, ROLLBACK = range(4)
OUTCOMES = ("applied", "aborted", "void", "rollback")
NO_REASON, TOO_FEW, MEMBERS_MISSING, CHECKSUM, LANE_RANGE, NORM, OPERATOR, RESTART = range(8)
"""Outcomes and reasons of a result."""
RESULT_REASONS = (
    None,
    "too few uploads",
    "members missing",
    "wrong checksum",
    "a lane out of its range",
    "a sum that is too long",
    "the operator",
    "a restart",
)
"""Each reason in words, by its number; None where nothing is to be said."""

KEYFRAME_EVERY = 16
"""A version divisible by this has a snapshot; if the rotated codec made it, it is a key frame (section 6)."""

SMALLEST_CHUNK, LARGEST_CHUNK = 256, 61_440


@dataclass(frozen=True, slots=True)
class Plan(Table):
    """One round as the coordinator announces it."""

    KIND: ClassVar[str] = "plan"
    sender: Sender
    round: U64
    kind: Annotated[int, Unsigned(8, 1)]
    model: B32
    base: U32
    base_hash: B32
    roster: B32
    policy: B32
    epoch: U32
    transcript: B32
    points: ManyB32
    opens: U64
    closes: U64
    until: U64
    sample: Annotated[int, Unsigned(64, 1 << 32)]
    grouped: Flag
    codec: Annotated[int, Unsigned(8, 1)]
    bits: U8
    coords: U32
    keep: F64
    clip: F64
    step: F64
    seed: B32
    noise: F64
    tail: Annotated[int, Unsigned(8, 1)]
    steps: U16
    batch: U16
    rate: F64
    momentum: F64
    proximal: F64

    def check(self) -> None:
        if not self.opens < self.closes < self.until:
            raise MalformedError("plan: opens, closes and until follow each other")
        if not 2 <= self.bits <= 16 or not self.coords:
            raise MalformedError("plan: bits from 2 to 16, coords above 0")
        if min(self.clip, self.step) <= 0 or min(self.keep, self.noise, self.rate, self.momentum, self.proximal) < 0:
            raise MalformedError("plan: clip and step above 0, the other numbers not negative")


def _check_chunks(length: int, size: int, hashes: bytes) -> None:
    if not SMALLEST_CHUNK <= size <= LARGEST_CHUNK or not length:
        raise MalformedError(f"chunks have {SMALLEST_CHUNK} to {LARGEST_CHUNK} bytes, and there is at least one")
    if len(hashes) != 16 * math.ceil(length / size):
        raise MalformedError("one 16-byte hash for each chunk")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a participant signs: that it uploaded just this, for just this plan, with just this Y."""

    roster: bytes
    plan: bytes
    round: int
    index: int
    y: bytes
    upload: bytes

    def to_bytes(self) -> bytes:
        """The 140 bytes that stand as body of type `upload`."""
        return (
            self.roster
            + self.plan
            + self.round.to_bytes(8, "little")
            + self.index.to_bytes(4, "little")
            + self.y
            + self.upload
        )

    def verify(self, public_key: bytes, fleet: bytes, signature: bytes) -> bool:
        """Whether `signature` is the participant's over this claim."""
        return verify(public_key, signed_bytes("upload", fleet, self.to_bytes()), signature)


@dataclass(frozen=True, slots=True)
class Header(Table):
    """Chunk 0 of an upload. The receiver rebuilds the claim from its own plan."""

    KIND: ClassVar[str] = "header"
    round: U64
    y: B32
    length: U32
    size: U16
    hashes: ManyB16
    sig: B64

    def check(self) -> None:
        _check_chunks(self.length, self.size, self.hashes)

    def upload_hash(self) -> bytes:
        """The hash that claim, receipt and survivor set name."""
        return digest("upld", self.length.to_bytes(4, "little"), self.hashes)


@dataclass(frozen=True, slots=True)
class Chunks(Table):
    """Chunk 0 of anything else too long for one chunk; what is inside gets verified, not this."""

    KIND: ClassVar[str] = "chunks"
    length: U32
    size: U16
    hashes: ManyB16

    def check(self) -> None:
        _check_chunks(self.length, self.size, self.hashes)


@dataclass(frozen=True, slots=True)
class Receipt(Table):
    """The coordinator's word on an upload; the only acknowledgement that means it is on disk."""

    KIND: ClassVar[str] = "receipt"
    sender: Sender
    round: U64
    upload: B32
    state: Annotated[int, Unsigned(8, MISSING)]
    reason: Annotated[int, Unsigned(8, FULL)]
    missing: Bytes

    def check(self) -> None:
        if bool(self.missing) != (self.state == MISSING) or (self.reason != NONE) != (self.state == REFUSED):
            raise MalformedError("receipt: missing chunks, reason and state do not fit each other")


@dataclass(frozen=True, slots=True)
class Decline(Table):
    """A participant sits this round out; sealed to the coordinator."""

    KIND: ClassVar[str] = "decline"
    sender: Sender
    plan: B32
    reason: Annotated[int, Unsigned(8, BUSY)]

    def check(self) -> None:
        if not self.reason:
            raise MalformedError("decline: a reason is from 1 to 8")


@dataclass(frozen=True, slots=True)
class Survivor:
    """One accepted upload, as it stands in the survivor set."""

    index: int
    y: bytes
    upload: bytes
    signature: bytes

    SIZE: ClassVar[int] = 132

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read `index u32 ‖ Y 32 ‖ upload hash 32 ‖ claim's signature 64`."""
        return cls(int.from_bytes(data[:4], "little"), data[4:36], data[36:68], data[68:])

    def to_bytes(self) -> bytes:
        """The 132 bytes of this entry."""
        return self.index.to_bytes(4, "little") + self.y + self.upload + self.signature

    def claim(self, plan: Plan, plan_hash: bytes) -> Claim:
        """The claim that `signature` must cover."""
        return Claim(plan.roster, plan_hash, plan.round, self.index, self.y, self.upload)


@dataclass(frozen=True, slots=True)
class Survivors(Table):
    """Who made it into a round; what a member is asked to cancel."""

    KIND: ClassVar[str] = "survivors"
    sender: Sender
    plan: B32
    entries: Annotated[bytes, Binary(multiple=Survivor.SIZE)]

    def check(self) -> None:
        check_ascending(self.indices(), "survivors.entries")

    def indices(self) -> list[int]:
        """The roster indices alone, ascending: a set may have ten thousand entries."""
        starts = range(0, len(self.entries), Survivor.SIZE)
        return [int.from_bytes(self.entries[at : at + 4], "little") for at in starts]

    def survivors(self) -> tuple[Survivor, ...]:
        """The entries, ascending by roster index."""
        return tuple(map(Survivor.from_bytes, entries(self.entries, Survivor.SIZE)))


@dataclass(frozen=True, slots=True)
class Ack(Table):
    """A member has recorded the set; its chain link feeds beta."""

    KIND: ClassVar[str] = "ack"
    sender: Sender
    plan: B32
    set: B32
    link: B32


@dataclass(frozen=True, slots=True)
class Acks(Table):
    """The acks that fix the groups of a set."""

    KIND: ClassVar[str] = "acks"
    sender: Sender
    plan: B32
    set: B32
    acks: Frames
    first: Bytes
    first_acks: Frames


@dataclass(frozen=True, slots=True)
class MaskSum(Table):
    """The sum of one member's masks over exactly one set; signed inside, sealed outside."""

    KIND: ClassVar[str] = "masksum"
    sender: Sender
    plan: B32
    set: B32
    group: U16
    part: B32
    sum: Bytes
    root: U32
    manifest: U32


@dataclass(frozen=True, slots=True)
class Request(Table):
    """The coordinator asks a member for its share of one that did not answer."""

    KIND: ClassVar[str] = "request"
    sender: Sender
    plan: B32
    set: B32
    lost: U32


@dataclass(frozen=True, slots=True)
class Share(Table):
    """One scalar: the sender's share of the lost member's secret of this round."""

    KIND: ClassVar[str] = "share"
    sender: Sender
    plan: B32
    set: B32
    lost: U32
    share: B32


@dataclass(frozen=True, slots=True)
class Blame(Table):
    """Evidence that a member lied, which anyone can recompute."""

    KIND: ClassVar[str] = "blame"
    sender: Sender
    plan: B32
    lost: U32
    set: Bytes
    sums: Frames
    scalar: B32


@dataclass(frozen=True, slots=True)
class Metrics(Table):
    """What the opened lanes say about the round; 0 where there is no lane."""

    KIND: ClassVar[str] = "metrics"
    examples: U64
    training_loss: F64
    evaluated: U64
    evaluation_loss: F64
    correct: U64
    norm: F64


@dataclass(frozen=True, slots=True)
class Result(Table):
    """How a round ended, who was in, and the model that it made."""

    KIND: ClassVar[str] = "result"
    sender: Sender
    plan: B32
    round: U64
    outcome: Annotated[int, Unsigned(8, ROLLBACK)]
    reason: Annotated[int, Unsigned(8, RESTART)]
    base: U32
    base_hash: B32
    version: U32
    version_hash: B32
    delta: B32
    included: Bytes
    step: F64
    metrics: Annotated[Metrics, Nested(Metrics)]

    def check(self) -> None:
        if self.included[-1:] == b"\0":
            raise MalformedError("result: the bitmap's last byte is 0")
        if self.moves() and self.outcome not in (APPLIED, ROLLBACK):
            raise MalformedError("result: only an applied round or a rollback changes the model")
        if self.outcome == ROLLBACK and self.version >= self.base:
            raise MalformedError("result: a rollback goes back")
        if (self.delta != bytes(32)) != (self.outcome == APPLIED):
            raise MalformedError("result: exactly an applied round has a delta, or sums")

    def moves(self) -> bool:
        """Whether the model is another one after the round."""
        return (self.version, self.version_hash) != (self.base, self.base_hash)

    def makes_version(self) -> bool:
        """Whether the round's sum made the model's next version; that of a statistics round makes none."""
        return self.outcome == APPLIED and self.moves()

    def includes(self, index: int) -> bool:
        """Whether the upload of that device is in the sum."""
        return index // 8 < len(self.included) and bool(self.included[index // 8] >> index % 8 & 1)


def bitmap(positions: tuple[int, ...] | list[int]) -> bytes:
    """Bit i, least significant first, for each position; as short as possible."""
    packed = bytearray(max(positions, default=-1) // 8 + 1)
    for position in positions:
        packed[position // 8] |= 1 << position % 8
    return bytes(packed)


def positions(packed: bytes) -> list[int]:
    """The positions of a bitmap, ascending."""
    return [8 * at + bit for at, byte in enumerate(packed) if byte for bit in range(8) if byte >> bit & 1]


@dataclass(frozen=True, slots=True)
class Sums(Table):
    """The opened sums of a statistics round, in units of 1/top, as every device may read them."""

    KIND: ClassVar[str] = "sums"
    sender: Sender
    plan: B32
    schema: B32
    devices: U32
    top: U64
    sums: Annotated[bytes, Binary(multiple=8)]

    def check(self) -> None:
        if not self.devices or not self.top or not self.sums:
            raise MalformedError("sums: devices, top and at least one number")

    def numbers(self) -> tuple[int, ...]:
        """In the order of the schema."""
        return tuple(int.from_bytes(entry, "little") for entry in entries(self.sums, 8))


@dataclass(frozen=True, slots=True)
class Delta(Table):
    """The opened sum, as every device replays it; `adam` is empty, or FedAdam's β2 and τ."""

    KIND: ClassVar[str] = "delta"
    sender: Sender
    version: U32
    plan: B32
    bits: U8
    body: Bytes
    step: F64
    weight: U64
    rate: F64
    codec: Annotated[int, Unsigned(8, 1)]
    momentum: F64
    adam: Annotated[tuple[float, ...], Array(Real())]

    def check(self) -> None:
        if not 2 <= self.bits <= 16 or self.step <= 0 or not self.weight:
            raise MalformedError("delta: bits from 2 to 16, step and weight above 0")
        if not 0 <= self.momentum < 1 or (self.momentum and self.codec == PLAIN and not self.adam):
            raise MalformedError("delta: momentum from 0, below 1, and 0 with the plain codec unless there is adam")
        if self.adam and (len(self.adam) != 2 or not 0 <= self.adam[0] < 1 or not self.adam[1] > 0):
            raise MalformedError("delta: adam is nothing, or β2 from 0, below 1, and τ above 0")
