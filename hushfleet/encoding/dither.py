"""Rounding on a shared dither, and what a sum of it stands for (docs/protocol.md, sections 6 and 11.7).

Everyone rounds to integers after adding an offset from [−½, ½). At one coordinate the devices' offsets are spread
evenly, so that the rounding errors of similar updates cancel; over the shared random start of a coordinate each offset
is uniform, so that every rounding is right on average. Offsets are public: whoever knows the survivors takes their sum
off again. Offsets and centred sums are integers in units of 2^-32: exact, whatever the machine.

A device's place is its roster index times the golden ratio, modulo 1: any run of indices, and any every-other of them,
is spread evenly, and nobody has to know how many devices there will be.
"""

from collections.abc import Sequence

import numpy as np
from nacl.bindings import randombytes_buf_deterministic
from numpy.typing import NDArray

from hushfleet.hashing import digest

Integers = NDArray[np.int64]
Words = NDArray[np.uint32]

UNIT = 2.0**-32
_ONE, _HALF = 1 << 32, 1 << 31
_GOLDEN = 0x9E3779B9
"""2^32 divided by the golden ratio, rounded down to an odd number."""


def starts(coords: int, name: bytes) -> Words:
    """The shared random start of each coordinate, in units of 2^-32: uint32, shape (m,)."""
    return np.frombuffer(randombytes_buf_deterministic(4 * coords, digest("dith", name)), "<u4").astype(np.uint32)


def round_dithered(values: NDArray[np.float64], words: Words, index: int) -> Integers:
    """rint(value + offset) for the device of that roster index: int64, shape (m,).

    Args:
        values: in steps, each of a magnitude below 2^50.
        words: `starts` of these coordinates.
    """
    offsets = (words + np.uint32(_place(index))).astype(np.float64) * UNIT - 0.5
    return np.rint(values + offsets).astype(np.int64)


def offset_sum(indices: Sequence[int], words: Words) -> Integers:
    """The sum of these devices' offsets at each coordinate, in units of 2^-32: int64, shape (m,).

    Args:
        indices: roster indices, at most 2^16 of them.
        words: `starts`.
    """
    places = np.sort(np.array([_place(index) for index in indices], np.int64))
    wide = words.astype(np.int64)
    wrapped = len(places) - np.searchsorted(places, _ONE - wide, side="left")
    total: Integers = int(places.sum()) + len(places) * (wide - _HALF) - wrapped * _ONE
    return total


def centred(residues: Integers, offsets: Integers, bits: int) -> Integers:
    """A sum without its offsets, the representative nearest to 0, in units of 2^-32: int64, shape (m,).

    Args:
        residues: an opened sum, known mod 2^bits.
        offsets: `offset_sum` of the survivors.
        bits: B, 2 to 17.
    """
    span = 1 << (bits + 32)
    shifted: Integers = (residues << 32) - offsets + span // 2
    return (shifted & (span - 1)) - span // 2


def _place(index: int) -> int:
    return index * _GOLDEN % _ONE
