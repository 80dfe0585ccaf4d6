"""How many bits, and how wide a step (docs/protocol.md, section 6; the coordinator's choice, checked by no device).

The modulus is sized for the norm of the sum, not for the largest value that could occur: half the bits. A coordinate
of the sum is nearly Gaussian after the rotation, so 2^B steps are made 2·k times its standard deviation, and of m
coordinates a tenth of one wraps in a round. Up to two wraps are found by the checksum and put right
(`hushfleet.rotated`); more make the round void. The step follows the sum opened last; it cannot run away, because

* B is never below 1 + ceil(log2(g)/2): below, rounding alone fills the modulus, and the step grows without end;
* a sum longer than its survivors' clipping norms allow is never opened, so it moves no step;
* a step changes by a factor from ¼ to 2½, stays within bounds around the first one, and after a round that was lost to
  wrapping it doubles, once for each.
"""

import math

from hushfleet.errors import ConfigurationError

SMALLEST_GROWTH = 1.1
"""Room for a sum that is longer than the last one."""
UNEVEN_GROWTH = 1.5
"""The same where all coordinates are sent: no residual evens the sums out, and one in five is a fifth longer than the
last. With the room of the others a tenth of the rounds was void; a step so much wider costs no accuracy."""
SMALLEST_CHANGE, LARGEST_CHANGE = 0.25, 2.5
UNEVEN_CHANGE, SETTLED = 0.9, 8
"""Where all coordinates are sent, the smallest change after so many sums. Of devices that differ, some rounds' sums are
several times longer than others', and a step that follows a short one loses the long one after it: of fleets with one
class a device, a quarter of which took part in a round, 14 rounds in a hundred were void, and with this 2."""
BELOW_FIRST, ABOVE_FIRST = 2.0**-12, 4.0
"""How far a step may move from the first one. Four times it, and nothing wraps even if all devices agree."""
LARGEST_RATIO = 2.0**20
"""The clipping norm is at most so many steps: the norm lane of 16,383 devices then fits 63 bits."""


def bits_for(expected: int, spare: int = 0) -> int:
    """B for so many expected survivors: 2 + ceil(log2(expected)/2) + spare.

    Raises:
        ConfigurationError: expected is below 1, or spare makes B too few for the step to be stable, or above 16.
    """
    if expected < 1:
        raise ConfigurationError("a round needs at least one expected survivor")
    half = -(-(expected - 1).bit_length() // 2)
    bits = 2 + half + spare
    if bits < max(2, 1 + half):
        raise ConfigurationError(
            f"{bits} bits for {expected} devices: rounding alone would fill the modulus and the step run away; "
            f"take at least {max(2, 1 + half)}"
        )
    if bits > 16:
        raise ConfigurationError(f"{bits} bits a coordinate are more than 16; take fewer spare bits")
    return bits


def deviations(coords: int) -> float:
    """k: how many standard deviations of the sum half the modulus holds, so that 0.1 of m coordinates wraps."""
    return max(3.5, math.sqrt(2 * math.log(2 * coords)))


def first_step(clip: float, expected: int, bits: int, coords: int) -> float:
    """The step while no sum has been opened: half the modulus holds k times half the longest sum there can be."""
    return deviations(coords) * expected * clip / math.sqrt(coords) / (1 << bits)


def growth(opened: int, keep: float) -> float:
    """How much longer than the last one the next sum may be.

    Residuals pile up until every coordinate has been sent once: of similar updates the second sum is twice as long as
    the first, the third half as long again, and so on for 1/keep rounds.

    Args:
        opened: sums opened since a fleet began without residuals, at least 1.
        keep: fraction of the coordinates that are sent.
    """
    return max(SMALLEST_GROWTH, (opened + 1) / opened) if keep < 1 else UNEVEN_GROWTH


def smallest_change(opened: int, keep: float) -> float:
    """By which factor a step may change at least; arguments as of `growth`."""
    return UNEVEN_CHANGE if keep == 1 and opened > SETTLED else SMALLEST_CHANGE


def next_step(
    step: float,
    first: float,
    rms: float,
    bits: int,
    coords: int,
    room: float = SMALLEST_GROWTH,
    smallest: float = SMALLEST_CHANGE,
) -> float:
    """The step after a sum was opened.

    Args:
        step: of the sum.
        first: `first_step` of the round to come.
        rms: root mean square of the centred sum, in steps.
        bits, coords: of the round to come.
        room: `growth`.
        smallest: `smallest_change`.
    """
    change = room * rms * 2 * deviations(coords) / (1 << bits)
    return bounded(step * min(max(change, smallest), LARGEST_CHANGE), first)


def after_wrapping(step: float, first: float) -> float:
    """The step after a round that was void because too many coordinates wrapped."""
    return bounded(2 * step, first)


def bounded(step: float, first: float) -> float:
    """A step within the bounds around the first one."""
    return min(max(step, BELOW_FIRST * first), ABOVE_FIRST * first)
