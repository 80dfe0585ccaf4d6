"""A random rotation without padding, bit for bit the same everywhere (docs/protocol.md, sections 6 and 11.7).

Signs, a Walsh-Hadamard transform of the first p coordinates, other signs, a transform of the last p, where p is the
largest power of two that fits: orthogonal for every length. Only float32 additions, subtractions and one product by a
constant occur, in a fixed order; a matrix product would be faster on some machines and differ in its last bits.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from nacl.bindings import randombytes_buf_deterministic
from numpy.typing import NDArray

from hushfleet.hashing import digest

Floats = NDArray[np.float32]

_ROWS = 32
"""Of a matrix, turned at once: so many cache lines are filled while they are at hand."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """One orthogonal map of d coordinates.

    Attributes:
        first, second: uint32, shape (d,): the sign bit of a float32 where a sign is flipped, 0 elsewhere.
    """

    first: NDArray[np.uint32]
    second: NDArray[np.uint32]

    @classmethod
    def seeded(cls, parameters: int, name: bytes) -> Self:
        """The rotation of `parameters` ≥ 1 coordinates that everyone draws who knows `name`."""
        return cls(*(_signs(parameters, digest(purpose, name)) for purpose in ("rot1", "rot2")))

    def forward(self, vector: Floats) -> Floats:
        """The rotated vector: float32, shape (d,); the argument is left as it is."""
        rotated = vector.copy()
        size = largest_power(len(rotated))
        _flip(rotated, self.first)
        walsh_hadamard(rotated[:size])
        _flip(rotated, self.second)
        walsh_hadamard(rotated[-size:])
        return rotated

    def inverse(self, rotated: Floats) -> Floats:
        """What `forward` made `rotated` of, up to rounding: float32, shape (d,), in the argument's own memory."""
        size = largest_power(len(rotated))
        walsh_hadamard(rotated[-size:])
        _flip(rotated, self.second)
        walsh_hadamard(rotated[:size])
        _flip(rotated, self.first)
        return rotated


def largest_power(length: int) -> int:
    """The largest power of two that is not above `length`, which is at least 1."""
    return 1 << (length.bit_length() - 1)


def walsh_hadamard(vector: Floats) -> None:
    """The orthonormal transform in natural order, in place: float32, shape (p,), contiguous, p a power of two.

    As if: for stride in p/2, p/4, …, 1: every pair (a, b) at that distance becomes (a + b, a − b); then all times
    float32(1/√p). Strides below √p are taken on the transpose, so that every operation runs over long pieces.
    """
    columns = 1 << (len(vector).bit_length() - 1) // 2
    matrix = vector.reshape(-1, columns)
    done, spare = _butterflies(matrix, np.empty_like(matrix))
    turned = _transposed(done, spare)
    done, spare = _butterflies(turned, done.reshape(turned.shape))
    _transposed(done, spare)
    np.multiply(spare.reshape(matrix.shape), np.float32(1 / math.sqrt(len(vector))), out=matrix)


def _butterflies(matrix: Floats, spare: Floats) -> tuple[Floats, Floats]:
    """All strides along the rows; (result, the other buffer)."""
    columns = matrix.shape[1]
    half = len(matrix) // 2
    while half:
        pairs, target = (part.reshape(-1, 2, half * columns) for part in (matrix, spare))
        np.add(pairs[:, 0], pairs[:, 1], out=target[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=target[:, 1])
        matrix, spare = spare, matrix
        half //= 2
    return matrix, spare


def _transposed(matrix: Floats, target: Floats) -> Floats:
    """The transpose, in the memory of `target`."""
    turned = target.reshape(matrix.shape[1], -1)
    for start in range(0, len(matrix), _ROWS):
        turned[:, start : start + _ROWS] = matrix[start : start + _ROWS].T
    return turned


def _signs(count: int, seed: bytes) -> NDArray[np.uint32]:
    """Bit j of the stream, least significant first, flips coordinate j."""
    stream = np.frombuffer(randombytes_buf_deterministic(-(-count // 8), seed), np.uint8)
    signs = np.unpackbits(stream, count=count, bitorder="little").astype(np.uint32)
    signs <<= np.uint32(31)
    return signs


def _flip(vector: Floats, signs: NDArray[np.uint32]) -> None:
    words = vector.view(np.uint32)
    np.bitwise_xor(words, signs, out=words)
