"""Eight-bit snapshots that are exact (docs/protocol.md, sections 6 and 11.7).

At a key frame everyone, the coordinator included, replaces the model by its own rounding in a rotated basis. Who was
there computes it; who was not fetches a byte a parameter, and both have the same model bit for bit. FedAdam's moments
are rounded each by itself, to two bytes: in the rotated basis all would share the error of the largest, and where the
second moment is small the next step would be many times too long.
"""

import numpy as np
from numpy.typing import NDArray

from hushfleet.encoding.rotation import Floats, Rotation
from hushfleet.errors import MalformedError
from hushfleet.hashing import digest

EIGHT_BIT = b"\x08"
"""The first byte of an eight-bit snapshot; its length tells it from float32, which has none."""
ROTATED_PARTS = {1: 1, 2: 2, 3: 1}
"""How many parts of a state, from the first, are rounded in the rotated basis, by how many it has: the flat vector, and
the velocity; the two moments behind the flat vector are not."""
_LARGEST = 127


def eight_bit(state: Floats, parameters: int, version: int) -> bytes:
    """The eight-bit snapshot: for each part of d coordinates a scale and a byte a coordinate.

    Args:
        state: flat vector; behind it the velocity, or both moments, if there are any: float32, shape (d,), (2·d,) or
            (3·d,), finite.
        parameters: d.
        version: the key frame's.
    """
    rotation = _rotation(parameters, version)
    parts = state.reshape(-1, parameters)
    rotated = ROTATED_PARTS[len(parts)]
    levels = [_rounded(rotation.forward(part)) for part in parts[:rotated]]
    return EIGHT_BIT + b"".join([*levels, *map(_shortened, parts[rotated:])])


def length_of(parts: int, parameters: int) -> int:
    """Bytes of an eight-bit snapshot of a state of one, two or three parts."""
    rotated = ROTATED_PARTS[parts]
    return 1 + rotated * (4 + parameters) + (parts - rotated) * 2 * parameters


def open_eight_bit(data: bytes, parameters: int, version: int) -> Floats:
    """The state that an eight-bit snapshot stands for: float32, shape (d,), (2·d,) or (3·d,).

    Raises:
        MalformedError: another length or first byte, or numbers that make no finite state.
    """
    parts = next((parts for parts in ROTATED_PARTS if len(data) == length_of(parts, parameters)), 0)
    if not parts or data[:1] != EIGHT_BIT:
        raise MalformedError(f"not an eight-bit snapshot of {parameters} parameters")
    rotation = _rotation(parameters, version)
    size = 4 + parameters
    end = 1 + ROTATED_PARTS[parts] * size
    with np.errstate(over="ignore", invalid="ignore"):
        restored = [rotation.inverse(_restored(data[at : at + size])) for at in range(1, end, size)]
    state = np.concatenate([*restored, _lengthened(data[end:])])
    if not np.isfinite(state).all():
        raise MalformedError("the eight-bit snapshot leads to NaN or infinity")
    return state


def _rotation(parameters: int, version: int) -> Rotation:
    return Rotation.seeded(parameters, digest("keyf", version.to_bytes(4, "little")))


def _rounded(rotated: Floats) -> bytes:
    """float32 scale ‖ int8 levels; a scale of 0 stands for a part that is 0."""
    scale: Floats = np.abs(rotated).max(keepdims=True) / np.float32(_LARGEST)
    levels: NDArray[np.int8] = np.zeros(len(rotated), np.int8)
    if scale[0] > 0:
        # The float32 quotient, by way of float64: numpy only approximates it where a 32-bit ARM has NEON.
        quotients = (rotated.astype(np.float64) / scale).astype(np.float32)
        levels = np.clip(np.rint(quotients), -_LARGEST, _LARGEST).astype(np.int8)
    return scale.astype("<f4").tobytes() + levels.tobytes()


def _restored(part: bytes) -> Floats:
    scale = np.frombuffer(part, "<f4", 1).astype(np.float32)
    return np.frombuffer(part, np.int8, offset=4).astype(np.float32) * scale


def _shortened(part: Floats) -> bytes:
    """The upper two bytes of each float32, rounded to nearest: an error of at most 1/256 of each number itself."""
    return ((part.view(np.uint32) + np.uint32(1 << 15)) >> np.uint32(16)).astype("<u2").tobytes()


def _lengthened(moments: bytes) -> Floats:
    upper = np.frombuffer(moments, "<u2").astype(np.uint32)
    return (upper << np.uint32(16)).view(np.float32)
