"""What can be chosen: encoding, committee, window; and how many rounds each encoding takes, where that was measured."""

import math
from dataclasses import dataclass

from hushfleet.wire.round import PLAIN, ROTATED
from planner.messages import Committee, Encoding

PLAIN_BITS = 16
PROFILES = {"thrift": 0.05, "default": 0.1, "quarter": 0.25, "fast": 1.0}
"""f by name (docs/protocol.md, section 6); `fast` has server momentum, `quarter` is no profile of the protocol's."""
COMMITTEES = ((3, 0), (4, 1), (5, 1), (7, 1), (7, 2), (9, 3), (11, 4), (16, 3))
"""(c, f)."""
WINDOWS = (1, 2, 4, 8, 16)
AVAILABLE = (PLAIN,)
"""Codecs that the devices of this version take part with."""

MEASURED = (10, 50, 100)
"""Devices in the measurements below."""
MORE_ROUNDS = {
    0.05: (1.19, 1.77, math.inf),
    0.1: (1.12, 1.52, 1.15),
    0.25: (1.02, 1.14, 1.07),
    1.0: (0.5, 0.5, 0.5),
}
"""Rounds by f, to half a point below plain averaging, for each round that this takes, with 10, 50 and 100 devices: a
network of 4,810 parameters on handwritten digits, very different rows on each device, three seeds for 10, one for 50
and 100. At f = 0.05 a hundred devices did not get there. For f = 1 with server momentum only 10 devices were measured;
the others are guessed from it. The two smallest B made no difference beyond chance."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run the fleet."""

    encoding: Encoding
    committee: Committee
    window: int


def encodings(survivors: int) -> tuple[Encoding, ...]:
    """The plain codec, and the rotated one with each f and the two smallest B for so many survivors (section 6)."""
    smallest = 2 + math.ceil(math.log2(max(2, survivors)) / 2)
    rotated = (
        Encoding(f"{name} B={bits}", ROTATED, keep, bits)
        for name, keep in PROFILES.items()
        for bits in (smallest, smallest + 1)
        if bits <= PLAIN_BITS
    )
    return (Encoding("plain", PLAIN, 1.0, PLAIN_BITS), *rotated)


def committees(devices: int) -> tuple[Committee, ...]:
    """Every (c, f) that the fleet has the candidates for, one spare among them where there is one."""
    return tuple(Committee(c, f, min(devices, c + 1)) for c, f in COMMITTEES if c <= devices)


def windows(own: int) -> tuple[int, ...]:
    """Slices under way at once; the profile's own among them."""
    return tuple(sorted({*WINDOWS, own}))


def more_rounds(encoding: Encoding, survivors: int) -> float:
    """Rounds with this encoding for each of plain averaging; infinity if it was not seen to get there."""
    if encoding.codec == PLAIN:
        return 1.0
    nearest = min(range(len(MEASURED)), key=lambda at: abs(math.log(MEASURED[at] / max(1, survivors))))
    return MORE_ROUNDS[encoding.keep][nearest]
