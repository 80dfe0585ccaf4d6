"""Masked uploads on their way into the running sum (docs/protocol.md, section 4). No I/O.

Every chunk is a record before it is acknowledged. A complete upload is verified, added, and marked accepted together
with the sum in one transaction; only then does its receipt leave. Memory is one sum, however many upload. Records:

    upload/{device}/header     the header, and whether the upload is in the sum
    upload/{device}/{chunk}    one slice; kept until the result
    sum                        the running sum, words as they are in memory
"""

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import ClassVar

from coordinator.context import Context
from hushfleet.actions import Action, Erase, Note, Save, Wake
from hushfleet.errors import HushfleetError, MalformedError, RefusedError
from hushfleet.mqtt.chunks import Assembly, bitmap
from hushfleet.plans import picked
from hushfleet.secagg import group
from hushfleet.wire.documents import PARTICIPANT, Device, Policy, Roster
from hushfleet.wire.framing import Bytes, Flag, Frame, Table, indices, read_unsigned
from hushfleet.wire.round import (
    ACCEPTED,
    ANOTHER_HELD,
    BAD_FORM,
    BAD_SIGNATURE,
    CLOSED,
    FULL,
    MISSING,
    NONE,
    NOT_CERTIFIED,
    RECEIPT_REASONS,
    REFUSED,
    Header,
    Plan,
    Receipt,
    Survivor,
)

SUM, EVIDENCE = "sum", "evidence/upload"
RECEIPT_EVERY = 1.0
"""Seconds between two receipts to one device."""


@dataclass(frozen=True, slots=True)
class _Record(Table):
    KIND: ClassVar[str] = "upload"
    header: Bytes
    accepted: Flag


class Uploads:
    """The uploads of one round. Built anew from its records at every start.

    Attributes:
        taken: the certified participants that the plan takes, by index.

    Args:
        evidence: keep the first accepted upload as it came, for those who want to see what a coordinator sees.
    """

    def __init__(
        self, context: Context, plan: Plan, plan_hash: bytes, policy: Policy, roster: Roster, evidence: bool
    ) -> None:
        from hushfleet.codec import lanes
        from hushfleet.secagg.residues import Vector, vector_length

        self._context, self._keep_evidence = context, evidence
        self._plan, self._plan_hash, self._policy = plan, plan_hash, policy
        self._devices = participants(roster)
        self.taken = frozenset(
            index
            for index, device in self._devices.items()
            if device.not_after >= plan.opens and picked(plan_hash, index, plan.sample)
        )
        self._lanes = lanes(plan.tail)
        self._length = vector_length(plan.coords, plan.bits, self._lanes)
        self.total: Vector = Vector.zeros(plan.coords, plan.bits, self._lanes)
        self.accepted: dict[int, Survivor] = {}
        self._headers: dict[int, Header] = {}
        self._chunks: dict[int, set[int]] = {}
        self._answered: dict[int, float] = {}
        self._late: dict[int, tuple[Header, int, int]] = {}
        self._due: list[tuple[float, int]] = []
        self.first_chunk: set[int] = set()
        self._restore()

    def _restore(self) -> None:
        import numpy as np

        store = self._context.store
        for key, value in store.scan("upload/"):
            _, device, what = key.split("/")
            index = int(device)
            if what == "header":
                record = _Record.from_body(value)
                header = Header.from_body(Frame.from_bytes(record.header).body)
                self._headers[index] = header
                self._chunks.setdefault(index, set())
                if record.accepted:
                    self.accepted[index] = _survivor(index, header)
            else:
                self._chunks.setdefault(index, set()).add(int(what))
        saved = store.get(SUM)
        if saved is not None:
            body = self.total.body
            body[:] = np.frombuffer(saved, dtype=body.dtype, count=len(body))
            self.total.tail[:] = np.frombuffer(saved, dtype=np.uint64, offset=body.nbytes)

    def full(self) -> bool:
        """Whether the policy's largest survivor set is reached."""
        return len(self.accepted) >= self._policy.largest_survivor_set

    def key_of(self, device: int) -> bytes | None:
        """The key of a certified participant; None for anyone else."""
        certified = self._devices.get(device)
        return certified.key if certified else None

    # A header.

    def on_header(self, device: int, payload: bytes, open_now: bool, now: float) -> list[Action]:
        """Take a header and answer it by a receipt; within a second of the one before, at the end of that second.

        Raises:
            MalformedError: not a header.
        """
        header = read_unsigned(Frame.from_bytes(payload), Header)
        if header.round != self._plan.round:
            return self._receipt(device, header, now, REFUSED, CLOSED)
        held = self._headers.get(device)
        if held is not None and held.upload_hash() == header.upload_hash():
            if device in self.accepted:
                return self._receipt(device, header, now, ACCEPTED, NONE)
            if open_now:
                return self._receipt(device, header, now, MISSING, NONE)
        if not open_now:
            return self._receipt(device, header, now, REFUSED, CLOSED)
        reason = self._judge(device, header, held)
        if reason != NONE:
            return self._receipt(device, header, now, REFUSED, reason)
        self._headers[device], self._chunks[device] = header, set()
        record = _Record(Frame(Header.KIND, header.to_body()).to_bytes(), 0)
        return [
            Save(_key(device, "header"), record.to_body()),
            *self._receipt(device, header, now, MISSING, NONE),
        ]

    def _judge(self, device: int, header: Header, held: Header | None) -> int:
        """The reason to refuse a new header, or NONE."""
        certified = self._devices.get(device)
        if certified is None or certified.not_after < self._plan.opens:
            return NOT_CERTIFIED
        if held is not None:
            return ANOTHER_HELD
        if self.full():
            return FULL
        if header.length != self._length:
            return BAD_FORM
        claim = _survivor(device, header).claim(self._plan, self._plan_hash)
        if not claim.verify(certified.key, self._context.fleet, header.sig):
            return BAD_SIGNATURE
        try:
            # One invalid Y in the survivor set, and every member would refuse the whole set.
            group.check_point(header.y)
        except MalformedError:
            return BAD_FORM
        return NONE

    def _receipt(self, device: int, header: Header, now: float, state: int, reason: int) -> list[Action]:
        if self._answered_lately(device, now) and state != ACCEPTED:
            if device not in self._late:
                heappush(self._due, (self._answered[device], device))
            self._late[device] = (header, state, reason)
            return [Wake(self._answered[device] + RECEIPT_EVERY)]
        self._late.pop(device, None)
        self._answered[device] = now
        missing = b""
        if state == MISSING:
            count = len(header.hashes) // 16
            received = self._chunks[device]
            missing = bitmap((j for j in range(count) if j + 1 not in received), count)
        receipt = Receipt(self._context.index, header.round, header.upload_hash(), state, reason, missing)
        data = self._context.frame(receipt).to_bytes()
        actions: list[Action] = [*self._context.down(device, "receipt", header.round, data)]
        if state == REFUSED:
            said = {"round": header.round, "reason": reason, "why": RECEIPT_REASONS[reason]}
            actions.append(Note("refused-upload", {"device": device, **said}, f"up/{device}"))
        return actions

    def _answered_lately(self, device: int, now: float) -> bool:
        return _lately(self._answered.get(device, 0.0), now)

    def answer_late(self, open_now: bool, now: float) -> list[Action]:
        """The receipts whose second is over: the newest header of each device gets one, however many came."""
        actions: list[Action] = []
        while self._due and not _lately(self._due[0][0], now):
            _, device = heappop(self._due)
            late = self._late.get(device)
            # One that was answered meanwhile is no longer late, or stands further on in the line again.
            if late is not None and not self._answered_lately(device, now):
                header, state, reason = late
                closed = state == MISSING and not open_now
                actions += self._receipt(device, header, now, *((REFUSED, CLOSED) if closed else (state, reason)))
        return actions

    # A chunk.

    def on_chunk(self, device: int, chunk: int, payload: bytes, now: float) -> list[Action]:
        """Store a slice; with the last one, verify, add and accept the upload.

        Raises:
            RefusedError: no header, or a slice that is not the one the header names.
        """
        header = self._headers.get(device)
        if header is None:
            raise RefusedError(f"device {device}: a chunk came without its header")
        if device in self.accepted or chunk in self._chunks[device]:
            return []
        Assembly(header.length, header.size, header.hashes).check(chunk - 1, payload)
        self._chunks[device].add(chunk)
        actions: list[Action] = [Save(_key(device, f"{chunk:05}"), payload)]
        if device not in self.first_chunk:
            self.first_chunk.add(device)
            actions.append(Note("first-chunk", {"device": device, "round": self._plan.round}))
        if len(self._chunks[device]) == len(header.hashes) // 16:
            actions += self._accept(device, header, {chunk: payload}, now)
        return actions

    def _accept(self, device: int, header: Header, fresh: dict[int, bytes], now: float) -> list[Action]:
        """Add a complete upload to the sum; `fresh` are slices whose records are not written yet."""
        from hushfleet.secagg.residues import Vector, add_into

        if self.full():
            return self._receipt(device, header, now, REFUSED, FULL)
        data = self._data(device, header, fresh)
        try:
            vector = Vector.from_bytes(data, self._plan.bits, self._plan.coords, self._lanes)
        except HushfleetError:
            return self._receipt(device, header, now, REFUSED, BAD_FORM)
        evidence = [Save(EVIDENCE, data)] if self._keep_evidence and not self.accepted else []
        add_into(self.total, vector)
        self.accepted[device] = _survivor(device, header)
        record = _Record(Frame(Header.KIND, header.to_body()).to_bytes(), 1)
        return [
            *evidence,
            Save(_key(device, "header"), record.to_body()),
            Save(SUM, b"".join((self.total.body.data, self.total.tail.data))),
            *self._receipt(device, header, now, ACCEPTED, NONE),
            Note("accepted", {"device": device, "round": self._plan.round}),
        ]

    def _data(self, device: int, header: Header, fresh: dict[int, bytes]) -> bytes:
        slices = []
        for chunk in range(1, len(header.hashes) // 16 + 1):
            piece = fresh.get(chunk) or self._context.store.get(_key(device, f"{chunk:05}"))
            if piece is None:
                raise RefusedError(f"device {device}: chunk {chunk} is gone")
            slices.append(piece)
        return b"".join(slices)

    def erase(self) -> list[Action]:
        """The round is over: its uploads and sum go."""
        headers = [_key(device, "header") for device in self._headers]
        chunks = [_key(device, f"{chunk:05}") for device, held in self._chunks.items() for chunk in held]
        return [Erase(key) for key in (*headers, *chunks, SUM)]


def _lately(answered: float, now: float) -> bool:
    """A clock that was set back says nothing, and keeps nobody waiting."""
    return 0 <= now - answered < RECEIPT_EVERY


def participants(roster: Roster) -> dict[int, Device]:
    """Every certified participant by roster index."""
    revoked = set(indices(roster.revoked))
    entries = roster.by_index().items()
    return {index: entry for index, entry in entries if index not in revoked and entry.roles & PARTICIPANT}


def _survivor(device: int, header: Header) -> Survivor:
    return Survivor(device, header.y, header.upload_hash(), header.sig)


def _key(device: int, what: str) -> str:
    return f"upload/{device:010}/{what}"
