"""What can be chosen: encoding, committee, window; and how many rounds each encoding takes, where that was measured."""

import math
from dataclasses import dataclass

from hushfleet.codec import PLAIN_BITS
from hushfleet.encoding.profiles import PROFILES, EncodingProfile
from hushfleet.encoding.steps import bits_for
from hushfleet.wire.round import PLAIN, ROTATED
from planner.messages import Committee, Encoding

QUARTER = EncodingProfile(keep=0.25, spare_bits=0, server_rate=1.0, server_momentum=0.0)
"""No profile of the protocol's, but measured beside them."""
MORE_BITS = (0, 1)
"""Bits a coordinate beyond what a profile has."""
COMMITTEES = ((3, 0), (4, 1), (5, 1), (7, 1), (7, 2), (9, 3), (11, 4), (16, 3))
"""(c, f)."""
WINDOWS = (1, 2, 4, 8, 16)
MEASURED = (10, 50, 100)
"""Devices in the measurements below."""
MORE_ROUNDS = {
    0.05: (1.19, 1.77, math.inf),
    0.1: (1.12, 1.52, 1.15),
    0.25: (1.02, 1.14, 1.07),
    1.0: (0.5, 1.0, 1.0),
}
"""Rounds by f, to half a point below plain averaging, for each round that this takes, with 10, 50 and 100 devices: a
network of 4,810 parameters on handwritten digits, very different rows on each device, three seeds for 10, one for 50
and 100. At f = 0.05 a hundred devices did not get there. For f = 1 with server momentum only 10 devices were measured;
with more it is not taken to be any faster than plain averaging. One bit more made no difference beyond chance."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run the fleet."""

    encoding: Encoding
    committee: Committee
    window: int


def encodings(survivors: int) -> tuple[Encoding, ...]:
    """The plain codec, and each profile of the rotated one with its own B for so many survivors and one more."""
    rotated = (
        Encoding(f"{name} B={bits}", ROTATED, profile.keep, bits)
        for name, profile in {**PROFILES, "quarter": QUARTER}.items()
        for bits in (bits_for(survivors, profile.spare_bits + more) for more in MORE_BITS)
    )
    return (Encoding("plain", PLAIN, 1.0, PLAIN_BITS), *rotated)


def is_setting(encoding: Encoding, survivors: int) -> bool:
    """Whether a coordinator can be told to encode so: plain, or a profile of the protocol's with its own B."""
    if encoding.codec == PLAIN:
        return True
    return any(
        (encoding.keep, encoding.bits) == (profile.keep, bits_for(survivors, profile.spare_bits))
        for profile in PROFILES.values()
    )


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
