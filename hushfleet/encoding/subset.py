"""The coordinates that every participant of a round sends: the same for all (docs/protocol.md, sections 6 and 11.7).

One coordinate is drawn from each of m neighbouring pieces of nearly equal length. A subset of a device's own choice is
never used: a coordinate that one device alone touches is revealed by any secure sum.
"""

import math

import numpy as np
from nacl.bindings import randombytes_buf_deterministic
from numpy.typing import NDArray

from hushfleet.hashing import digest

_MULTIPLE = 64


def coordinates(parameters: int, keep: float) -> int:
    """m: the fraction `keep`, above 0 and at most 1, of `parameters`, up to the next multiple of 64, at most all."""
    return min(parameters, _MULTIPLE * math.ceil(keep * parameters / _MULTIPLE))


def subset(parameters: int, coords: int, name: bytes) -> NDArray[np.int64]:
    """`coords` of `parameters` positions, ascending, as everyone draws them who knows `name`: int64, shape (m,)."""
    words = np.frombuffer(randombytes_buf_deterministic(4 * coords, digest("subs", name)), "<u4")
    edges = np.arange(coords + 1, dtype=np.uint64) * np.uint64(parameters) // np.uint64(coords)
    drawn = words.astype(np.uint64) * (edges[1:] - edges[:-1]) >> np.uint64(32)
    return (edges[:-1] + drawn).astype(np.int64)
