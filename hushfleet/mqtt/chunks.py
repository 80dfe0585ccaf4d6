"""Cutting what exceeds one message into chunks, and putting it together again (docs/protocol.md, section 11.5).

Chunk 0 of a topic is a header (`header` for uploads, `chunks` for everything else: hushfleet.wire.round) with the
length, the slice size and a 16-byte hash of every slice; chunk j ≥ 1 is the bare slice j − 1. Here slices are counted
from 0.
No I/O: what is stored, sent or asked for again is the caller's matter.
"""

from collections.abc import Iterable, Sequence

from hushfleet.errors import MalformedError, RefusedError
from hushfleet.hashing import digest

SMALLEST = 256
"""Bytes of a slice, at least (the last one may be shorter)."""
LARGEST = 61_440
"""Bytes of a slice, at most; also of any message on a topic without chunks."""
HASH = 16
"""Bytes of a slice's hash."""
HEADER_MARK = b"\x93\xa6chunks"
"""A payload on chunk 0 that starts so is a `chunks` header; anything else there is the message itself."""


def cut(data: bytes, size: int) -> list[bytes]:
    """Slices of `size` bytes each, the last one what is left.

    Raises:
        MalformedError: nothing to cut, or a size outside 256 to 61,440.
    """
    _check_size(size)
    if not data:
        raise MalformedError("nothing to cut into chunks: the message is empty")
    return [data[start : start + size] for start in range(0, len(data), size)]


def chunk_hash(piece: bytes) -> bytes:
    """The 16-byte hash of one slice."""
    return digest("chnk", piece, size=HASH)


def chunk_hashes(pieces: Iterable[bytes]) -> bytes:
    """The hashes of all slices, concatenated, as a header carries them."""
    return b"".join(map(chunk_hash, pieces))


def upload_hash(length: int, hashes: bytes) -> bytes:
    """The 32-byte hash that a claim signs: over the upload's length (u32) and its slices' hashes (section 4)."""
    return digest("upld", length.to_bytes(4, "little"), hashes)


def bitmap(indices: Iterable[int], count: int) -> bytes:
    """A bit for each of `count` slices, least significant first; bit j, slice j, chunk j + 1 of the topic."""
    bits = 0
    for index in indices:
        bits |= 1 << index
    return bits.to_bytes((count + 7) // 8, "little")


def from_bitmap(bits: bytes, count: int) -> list[int]:
    """The slices, ascending, whose bit is set.

    Raises:
        MalformedError: longer than `count` slices need, or a bit set beyond them.
    """
    value = int.from_bytes(bits, "little")
    if len(bits) > (count + 7) // 8 or value >> count:
        raise MalformedError(f"a bitmap of {len(bits)} bytes names chunks beyond the {count} there are")
    return [index for index in range(count) if value >> index & 1]


class Assembly:
    """The slices that have arrived of one chunked message.

    Args:
        length: bytes of the whole, at least 1. The caller has bounded it by manifest, plan or kind.
        size: bytes of a slice, 256 to 61,440.
        hashes: the slices' hashes, concatenated.

    Raises:
        MalformedError: a size or a number of hashes that does not fit.
    """

    def __init__(self, length: int, size: int, hashes: bytes) -> None:
        _check_size(size)
        count = -(-length // size)
        if length < 1 or len(hashes) != count * HASH:
            raise MalformedError(
                f"a header for {length} bytes in chunks of {size} needs {max(count, 0)} hashes of {HASH} bytes,"
                f" it has {len(hashes)} bytes"
            )
        self.length = length
        self.size = size
        self.hashes = hashes
        self._pieces: list[bytes | None] = [None] * count

    @property
    def count(self) -> int:
        """The number of slices."""
        return len(self._pieces)

    @property
    def complete(self) -> bool:
        """Whether every slice is here."""
        return None not in self._pieces

    def check(self, index: int, piece: bytes) -> None:
        """Whether this is slice `index`.

        Raises:
            RefusedError: no such slice, another length, or another hash.
        """
        if not 0 <= index < self.count:
            raise RefusedError(f"chunk {index + 1} of {self.count} does not exist")
        expected = min(self.size, self.length - index * self.size)
        if len(piece) != expected:
            raise RefusedError(f"chunk {index + 1} has {len(piece)} bytes instead of {expected}")
        if chunk_hash(piece) != self.hashes[index * HASH : (index + 1) * HASH]:
            raise RefusedError(f"chunk {index + 1} does not have the hash that the header gives it")

    def offer(self, index: int, piece: bytes) -> bool:
        """Take slice `index`; False if it was here already.

        Raises:
            RefusedError: as `check`.
        """
        self.check(index, piece)
        new = self._pieces[index] is None
        self._pieces[index] = piece
        return new

    def missing(self) -> list[int]:
        """The slices, ascending, that are not here yet."""
        return [index for index, piece in enumerate(self._pieces) if piece is None]

    def data(self) -> bytes:
        """The whole.

        Raises:
            RefusedError: not complete yet.
        """
        pieces: Sequence[bytes] = [piece for piece in self._pieces if piece is not None]
        if len(pieces) != self.count:
            raise RefusedError(f"{self.count - len(pieces)} of {self.count} chunks are missing")
        return b"".join(pieces)


def _check_size(size: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise MalformedError(f"a chunk size of {size} bytes is outside {SMALLEST} to {LARGEST}")
