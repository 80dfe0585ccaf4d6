"""Residues: what is masked, added and sent (docs/protocol.md, section 11.5).

A vector is a body of m residues mod 2^B, m a multiple of 64, and a tail of a few lanes mod 2^64. In memory a residue is
the smallest word that holds B bits, and words simply wrap: 2^B divides 2^word, so sums stay right mod 2^B without any
reduction on the way. Reduced is once, when a body is packed or read as signed integers.

On the wire a body takes exactly B bits a residue. B is written in binary (5 = 4 + 1); each of its powers of two w takes
its w bits of every residue as one plane, which is folded, first half | second half << w, until its bytes are full.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hushfleet.errors import MalformedError

Residues = NDArray[np.unsignedinteger[Any]]

SMALLEST_BITS, LARGEST_BITS = 2, 16
_ALIGNMENT = 64


def padded(coords: int) -> int:
    """m, the residues of a body for `coords` coordinates: the next multiple of 64."""
    return -(-coords // _ALIGNMENT) * _ALIGNMENT


def vector_length(coords: int, bits: int, lanes: int) -> int:
    """Bytes of a vector on the wire: packed body, then `lanes` words of 8 bytes."""
    return padded(coords) * bits // 8 + 8 * lanes


def word_dtype(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The word that holds one residue of B bits: uint8 up to 8, uint16 above."""
    return np.dtype(np.uint8) if bits <= 8 else np.dtype(np.uint16)


def pack(residues: Residues, bits: int) -> bytes:
    """The body's bytes: m·B/8 of them. Bits of a word above B are dropped, which is the reduction mod 2^B.

    Args:
        residues: words of `word_dtype(bits)`, shape (m,), m a multiple of 64.
        bits: B, 2 to 16.

    Raises:
        MalformedError: bits or length out of these bounds.
    """
    _check(bits, len(residues))
    if bits <= 8:
        return _fold(np.ascontiguousarray(residues, dtype=np.uint8), bits)
    return residues.astype(np.uint8).tobytes() + _fold((residues >> 8).astype(np.uint8), bits - 8)


def unpack(data: bytes, bits: int, count: int) -> Residues:
    """The residues of a packed body: words of `word_dtype(bits)`, shape (count,), each below 2^B, writable.

    Every string of the right length is the packing of exactly one body.

    Raises:
        MalformedError: data is not exactly count·B/8 bytes, or bits or count is out of `pack`'s bounds.
    """
    _check(bits, count)
    expected = count * bits // 8
    if len(data) != expected:
        raise MalformedError(f"a body of {count} residues of {bits} bits has {expected} bytes, not {len(data)}")
    octets = np.frombuffer(data, dtype=np.uint8)
    if bits <= 8:
        return _unfold(octets, bits, count)
    residues = _unfold(octets[count:], bits - 8, count).astype(np.uint16)
    residues <<= 8
    residues |= octets[:count]
    return residues


def reduce(body: Residues, bits: int) -> Residues:
    """The residues mod 2^B, in words as before."""
    return body & body.dtype.type((1 << bits) - 1)


def signed(body: Residues, bits: int) -> NDArray[np.int64]:
    """The residues as the signed integers they stand for, in [-2^(B-1), 2^(B-1)): int64, shape (m,)."""
    sign = 1 << (bits - 1)
    return (reduce(body, bits) ^ body.dtype.type(sign)).astype(np.int64) - sign


def signed_tail(tail: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The lanes as the signed integers they stand for, in [-2^63, 2^63)."""
    return tail.view(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """What a device uploads, a member answers and the coordinator sums.

    The arrays are changed in place: `np.add(vector.body, words, out=vector.body)`.

    Attributes:
        body: words of `word_dtype(bits)`, shape (m,); above B bits they hold whatever the sums left there.
        tail: uint64, shape (lanes,).
    """

    body: Residues = field(repr=False)
    tail: NDArray[np.uint64] = field(repr=False)

    @classmethod
    def zeros(cls, coords: int, bits: int, lanes: int) -> Self:
        """The empty sum."""
        return cls(np.zeros(padded(coords), word_dtype(bits)), np.zeros(lanes, np.uint64))

    @classmethod
    def from_bytes(cls, data: bytes, bits: int, coords: int, lanes: int) -> Self:
        """A vector from the wire; `coords` counts with or without the padding.

        Raises:
            MalformedError: data is not exactly `vector_length(coords, bits, lanes)` bytes, or bits is not 2 to 16.
        """
        expected = vector_length(coords, bits, lanes)
        if len(data) != expected:
            raise MalformedError(f"the vector has {len(data)} bytes instead of {expected}")
        tail_start = expected - 8 * lanes
        body = unpack(data[:tail_start], bits, padded(coords))
        return cls(body, np.frombuffer(data, dtype="<u8", offset=tail_start).astype(np.uint64))

    def to_bytes(self, bits: int) -> bytes:
        """The wire form: packed body ‖ tail lanes, u64 little-endian each."""
        return pack(self.body, bits) + self.tail.astype("<u8").tobytes()


def add_into(accumulator: Vector, vector: Vector) -> None:
    """accumulator += vector, lane by lane, mod 2^word. Both are of one form."""
    _same_form(accumulator, vector)
    np.add(accumulator.body, vector.body, out=accumulator.body)
    np.add(accumulator.tail, vector.tail, out=accumulator.tail)


def subtract_from(accumulator: Vector, vector: Vector) -> None:
    """accumulator -= vector, lane by lane, mod 2^word. Both are of one form."""
    _same_form(accumulator, vector)
    np.subtract(accumulator.body, vector.body, out=accumulator.body)
    np.subtract(accumulator.tail, vector.tail, out=accumulator.tail)


def _same_form(one: Vector, other: Vector) -> None:
    # numpy would stretch a single residue or lane over all others without a word.
    if one.body.dtype != other.body.dtype or one.body.shape != other.body.shape or one.tail.shape != other.tail.shape:
        raise MalformedError("vectors of different lengths or widths cannot be added")


def _check(bits: int, count: int) -> None:
    if not SMALLEST_BITS <= bits <= LARGEST_BITS:
        raise MalformedError(f"a residue has {SMALLEST_BITS} to {LARGEST_BITS} bits, not {bits}")
    if count % _ALIGNMENT:
        raise MalformedError(f"a body of {count} residues is not padded to a multiple of {_ALIGNMENT}")


# Below, eight residues of one byte go through one 64-bit word. No bit ever crosses from byte to byte (what a shift
# drags over is masked off), so the byte order of the host does not matter.


def _fold(octets: NDArray[np.uint8], bits: int) -> bytes:
    """Pack the low 1 to 8 bits of each byte; 8 are the byte as it is."""
    if bits == 8:
        return octets.tobytes()
    words = octets.view(np.uint64)
    planes = []
    taken = 0
    for width in _powers_of_two(bits):
        plane = (words >> np.uint64(taken)) & _in_every_byte(width)
        taken += width
        while width < 8:
            half = len(plane) // 2
            plane = plane[:half] | (plane[half:] << np.uint64(width))
            width *= 2
        planes.append(plane.tobytes())
    return b"".join(planes)


def _unfold(octets: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Undo `_fold`."""
    if bits == 8:
        return octets.copy()
    words = np.zeros(count // 8, np.uint64)
    start = taken = 0
    for width in _powers_of_two(bits):
        end = start + count * width // 8
        plane = octets[start:end].view(np.uint64)
        full = 8
        while full > width:
            full //= 2
            mask = _in_every_byte(full)
            plane = np.concatenate((plane & mask, (plane >> np.uint64(full)) & mask))
        words |= plane << np.uint64(taken)
        start, taken = end, taken + width
    return words.view(np.uint8)


def _powers_of_two(bits: int) -> list[int]:
    return [width for width in (8, 4, 2, 1) if bits & width]


def _in_every_byte(width: int) -> np.uint64:
    """The low `width` bits of each of a word's eight bytes."""
    return np.uint64(((1 << width) - 1) * 0x0101010101010101)
