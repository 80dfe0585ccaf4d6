"""Eight-bit snapshots that are exact (docs/protocol.md, sections 6 and 11.7).

At a key frame everyone, the coordinator included, replaces the model by its own rounding in a rotated basis. Who was
there computes it; who was not fetches a byte a parameter, and both have the same model bit for bit.
"""

import numpy as np
from numpy.typing import NDArray

from hushfleet.encoding.rotation import Floats, Rotation
from hushfleet.errors import MalformedError
from hushfleet.hashing import digest

EIGHT_BIT = b"\x08"
"""The first byte of an eight-bit snapshot; its length tells it from float32, which has none."""
_LARGEST = 127


def eight_bit(state: Floats, parameters: int, version: int) -> bytes:
    """The eight-bit snapshot: for each part of d coordinates a scale and a byte a coordinate.

    Args:
        state: flat vector, with the velocity behind it if there is one: float32, shape (d,) or (2·d,), finite.
        parameters: d.
        version: the key frame's.
    """
    rotation = _rotation(parameters, version)
    parts = [rotation.forward(part) for part in state.reshape(-1, parameters)]
    return EIGHT_BIT + b"".join(map(_rounded, parts))


def length_of(parts: int, parameters: int) -> int:
    """Bytes of an eight-bit snapshot of one part, or of two."""
    return 1 + parts * (4 + parameters)


def open_eight_bit(data: bytes, parameters: int, version: int) -> Floats:
    """The state that an eight-bit snapshot stands for: float32, shape (d,) or (2·d,).

    Raises:
        MalformedError: another length or first byte, or numbers that make no finite state.
    """
    parts = next((parts for parts in (1, 2) if len(data) == length_of(parts, parameters)), 0)
    if not parts or data[:1] != EIGHT_BIT:
        raise MalformedError(f"not an eight-bit snapshot of {parameters} parameters")
    rotation = _rotation(parameters, version)
    size = 4 + parameters
    with np.errstate(over="ignore", invalid="ignore"):
        restored = [rotation.inverse(_restored(data[1 + n * size : 1 + (n + 1) * size])) for n in range(parts)]
    state = np.concatenate(restored)
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
        levels = np.clip(np.rint(rotated / scale), -_LARGEST, _LARGEST).astype(np.int8)
    return scale.astype("<f4").tobytes() + levels.tobytes()


def _restored(part: bytes) -> Floats:
    scale = np.frombuffer(part, "<f4", 1).astype(np.float32)
    return np.frombuffer(part, np.int8, offset=4).astype(np.float32) * scale
