"""The newest base models that a device has answered, packed, with a number for each: how often, or when. No I/O.

A rollback leads back to an earlier base, and a coordinator that lies leads to and fro: the last base alone will not do.
"""

from typing import Annotated

from hushfleet.wire.framing import Binary, entries

LONGEST = 64
"""Bases remembered: more than an honest coordinator goes back, which keeps twenty versions; a policy may allow more."""
SIZE = 40

Bases = Annotated[bytes, Binary(multiple=SIZE)]
"""32 bytes of hash and 8 of the number each, in the order of the answers."""


def unpacked(packed: bytes) -> dict[bytes, int]:
    """The number of each base, by hash."""
    return {entry[:32]: int.from_bytes(entry[32:], "little") for entry in entries(packed, SIZE)}


def with_base(packed: bytes, base: bytes, number: int) -> bytes:
    """The same with this base as the newest; the oldest are forgotten."""
    others = [entry for entry in entries(packed, SIZE) if entry[:32] != base]
    return b"".join([*others, base + number.to_bytes(8, "little")][-LONGEST:])
