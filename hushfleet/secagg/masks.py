"""Pairwise masks: one seed for each (participant, member) and round, expanded by ChaCha20 (docs/protocol.md, 4, 11.5).

The participant derives a seed from y·S, the member from s·Y: the same point, so the mask costs no bytes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from nacl import bindings
from numpy.typing import NDArray

from hushfleet.actions import Draw
from hushfleet.hashing import digest
from hushfleet.secagg import group
from hushfleet.secagg.residues import Residues, Vector, add_into

BODY, TAIL = 0, 1
LEAST_SHARED = 1_000_000
"""Residues to sum from which a second thread pays for its start."""
CHUNK = 65_536
"""Residues a keystream chunk; a chunk of bytes is 64 KiB, where the generator is fastest."""


@dataclass(frozen=True, slots=True)
class MaskContext:
    """What binds every seed of a round.

    Attributes:
        fleet: 16 bytes.
        plan: the plan hash, 32 bytes.
        round: the round number.
    """

    fleet: bytes
    plan: bytes
    round: int

    def seed(self, shared: bytes, participant: int, member: int, y_point: bytes, s_point: bytes) -> bytes:
        """The pair's seed from the shared point y·S = s·Y."""
        return digest(
            "seed",
            self.fleet,
            self.plan,
            self.round.to_bytes(8, "little"),
            participant.to_bytes(4, "little"),
            member.to_bytes(4, "little"),
            y_point,
            s_point,
            key=shared,
        )


@dataclass(frozen=True, slots=True)
class RoundKey:
    """A participant's y of one round and its point; made, used and forgotten within one call of its owner."""

    y: bytes = field(repr=False)
    point: bytes


def round_key(vault_secret: bytes, draw: Draw, plan_hash: bytes, vector_hash: bytes) -> RoundKey:
    """Draw y, hedged by the vault secret, the plan and the residues, so that no clone or snapshot uses one y twice.

    Args:
        vault_secret: 32 bytes of their own, not the identity key.
        draw: 32 random bytes are taken.
        plan_hash: 32 bytes.
        vector_hash: the `body` hash of the packed vector before masking, 32 bytes.
    """
    y = group.reduce(digest("draw", draw(32), plan_hash, vector_hash, key=vault_secret, size=64))
    return RoundKey(y, group.base_multiply(y))


def add_masks(
    vector: Vector, key: RoundKey, context: MaskContext, participant: int, members: Sequence[tuple[int, bytes]]
) -> None:
    """Add the participant's mask for each (member, S) of T into `vector`, in place, mod 2^word."""
    for member, s_point in members:
        shared = group.multiply(key.y, s_point)
        add_keystream(vector, context.seed(shared, participant, member, key.point, s_point))


def mask_sum(
    empty: Vector,
    secret: bytes,
    member: int,
    context: MaskContext,
    survivors: Sequence[tuple[int, bytes]],
    threads: int = 2,
) -> Vector:
    """A member's sum of masks over exactly these (index, Y): what it must answer, or what recovery computes for it.

    Args:
        empty: a zero vector of the round's form; it is filled and returned.
        secret: s_{h,k}, 32 bytes.
        member: h.
        context: fleet, plan and round.
        survivors: the set's entries.
        threads: libsodium and numpy release the interpreter, so two halves take half the time on two cores.

    Raises:
        MalformedError: a Y that is no valid point of the prime-order subgroup.
    """
    s_point = group.base_multiply(secret)

    def part(entries: Sequence[tuple[int, bytes]]) -> Vector:
        total = Vector(np.zeros_like(empty.body), np.zeros_like(empty.tail))
        for participant, y_point in entries:
            shared = group.multiply(secret, group.check_point(y_point))
            add_keystream(total, context.seed(shared, participant, member, y_point, s_point))
        return total

    if len(survivors) * len(empty.body) < LEAST_SHARED:
        add_into(empty, part(survivors))
        return empty
    with ThreadPoolExecutor(threads) as pool:
        for total in pool.map(part, [survivors[n::threads] for n in range(threads)]):
            add_into(empty, total)
    return empty


def add_keystream(vector: Vector, seed: bytes) -> None:
    """Add one mask, body and tail, into `vector` in place."""
    _add_lane(vector.body, seed, BODY)
    _add_lane(vector.tail, seed, TAIL)


def _add_lane(residues: Residues | NDArray[np.uint64], seed: bytes, lane: int) -> None:
    word = residues.dtype.newbyteorder("<")
    for n, start in enumerate(range(0, len(residues), CHUNK)):
        part = residues[start : start + CHUNK]
        chunk_seed = digest("mask", bytes((lane,)), n.to_bytes(4, "little"), key=seed)
        stream = bindings.randombytes_buf_deterministic(word.itemsize * len(part), chunk_seed)
        np.add(part, np.frombuffer(stream, dtype=word), out=part)
