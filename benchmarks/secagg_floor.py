"""The floor: the primitives alone that a round cannot do without, on the same sizes, without the project's code.

    python benchmarks/secagg_floor.py DEVICES PARAMETERS COORDS BITS

COORDS of the PARAMETERS are sent, with BITS each; if that is not all of them, they are drawn in a rotated basis. Plain
calls into libsodium, hashlib and numpy, nothing checked, nothing framed; prints one line of JSON. Everything is done
over and over, and the median counts.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
import resource
import sys
from collections.abc import Callable
from hashlib import blake2b
from statistics import median
from time import process_time
from typing import Any

import numpy as np
from nacl import bindings
from nacl.utils import random
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]

MEMBERS = 7
TAIL = 8
CHUNK = 65_536
"""Words of a keystream made at once."""
SIGNED = 148
"""Bytes of a claim as it is signed, about."""
RECEIPTS = 2
ROWS = 32
"""Of a matrix, transposed at once."""


class Round:
    """What the parties of one round hold: a vector of words, points, signatures."""

    def __init__(self, parameters: int, coords: int, bits: int) -> None:
        self.words, self.bits = -(-coords // 64) * 64, bits
        self.word = np.dtype(np.uint16 if bits > 8 else np.uint8)
        self.vector = np.frombuffer(random(self.word.itemsize * self.words), self.word).copy()
        self.total = np.zeros(self.words, self.word)
        self.model, self.rotates = np.ones(parameters, np.float32), coords < parameters
        # Room that is there already: fresh pages of memory are nothing that a rotation could not do without.
        self.flips = np.empty((2, parameters), np.uint32)
        self.room = np.empty(1 << (parameters.bit_length() - 1), np.float32)
        self.update = np.frombuffer(random(8 * self.words), np.uint64) * 2.0**-64
        self.scalar = bindings.crypto_core_ed25519_scalar_reduce(random(64))
        self.point = bindings.crypto_scalarmult_ed25519_base_noclamp(self.scalar)
        self.public, self.secret = bindings.crypto_sign_seed_keypair(random(32))
        self.signed = bindings.crypto_sign(random(SIGNED), self.secret)
        self.packed = self.pack(self.vector)
        box_secret = random(32)
        box_public = bindings.crypto_scalarmult_base(box_secret)
        self.pair, self.nonce = (box_public, box_secret), random(24)
        self.sealed = bindings.crypto_box(self.packed, self.nonce, *self.pair)

    def client(self) -> None:
        """Verify the plan and two receipts; round, check-sum, hash, make a point, add c masks, hash again, sign."""
        for part in self.client_parts().values():
            part()

    def client_parts(self) -> dict[str, Callable[[], None]]:
        """What a client cannot do without, by its name. Of a part of the coordinates the rest is next to nothing."""
        if self.rotates:
            return {
                "signatures": self.signatures,
                "rotation there and back": self.rotation,
                "multiplications": self.multiplications,
                "keystreams": self.keystreams,
            }
        return {
            "signatures": self.signatures,
            "rounding": self.rounding,
            "checksum": self.checksum,
            "hashing": self.hashing,
            "multiplications": self.multiplications,
            "keystreams": self.keystreams,
        }

    def signatures(self) -> None:
        """A plan's and two receipts' are verified, one is made."""
        for _ in range(1 + RECEIPTS):
            self.verify()
        bindings.crypto_sign(self.packed[:SIGNED], self.secret)

    def rotation(self) -> None:
        """Signs, a transform, signs, a transform, each of the largest power of two that fits; and backwards."""
        pieces = (self.model[: len(self.room)], self.model[-len(self.room) :])
        words = self.model.view(np.uint32)
        for flips, piece in zip(self.flips, pieces, strict=True):
            stream = bindings.randombytes_buf_deterministic(len(words) // 8 + 1, self.secret[:32])
            flips[:] = np.unpackbits(np.frombuffer(stream, np.uint8), count=len(words))
            np.left_shift(flips, np.uint32(31), out=flips)
            np.bitwise_xor(words, flips, out=words)
            transform(piece, self.room)
        for flips, piece in zip(self.flips[::-1], pieces[::-1], strict=True):
            transform(piece, self.room)
            np.bitwise_xor(words, flips, out=words)

    def hashing(self) -> None:
        """The vector is packed and hashed before masking and after it."""
        for _ in range(2):
            blake2b(self.pack(self.vector)).digest()

    def multiplications(self) -> None:
        """A point of one's own, and one shared with each member."""
        bindings.crypto_scalarmult_ed25519_base_noclamp(self.scalar)
        for _ in range(MEMBERS):
            self.shared_seed()

    def keystreams(self) -> None:
        """A mask for each member is made and added."""
        for _ in range(MEMBERS):
            self.add_keystream(self.packed[:32])

    def member(self) -> None:
        """For one survivor: verify its claim, multiply, expand, add."""
        self.verify()
        self.mask()

    def coordinator_upload(self) -> None:
        """For one upload: hash, verify, unpack, add; two receipts are signed."""
        blake2b(self.packed).digest()
        self.verify()
        self.add(self.unpack(self.packed))
        for _ in range(RECEIPTS):
            bindings.crypto_sign(self.packed[:SIGNED], self.secret)

    def coordinator_open(self) -> None:
        """For the round: open and take away c mask sums, check the checksum, make and hash the delta."""
        for _ in range(MEMBERS):
            opened = bindings.crypto_box_open(self.sealed, self.nonce, *self.pair)
            blake2b(opened).digest()
            self.verify()
            self.add(self.unpack(opened))
        self.checksum()
        blake2b(self.pack(self.total)).digest()

    def verify(self) -> None:
        """One signature."""
        bindings.crypto_sign_open(self.signed, self.public)

    def mask(self) -> None:
        """One shared point, its seed's keystream, its sum."""
        self.add_keystream(self.shared_seed())

    def shared_seed(self) -> bytes:
        """A multiplication and a hash."""
        point = bindings.crypto_scalarmult_ed25519_noclamp(self.scalar, self.point)
        return blake2b(point, digest_size=32).digest()

    def add_keystream(self, seed: bytes) -> None:
        """One seed's keystream in the sum."""
        for start in range(0, self.words, CHUNK):
            part = self.total[start : start + CHUNK]
            stream = bindings.randombytes_buf_deterministic(part.nbytes, seed)
            np.add(part, np.frombuffer(stream, self.word), out=part)
        bindings.randombytes_buf_deterministic(8 * TAIL, seed)

    def rounding(self) -> None:
        """Randomness for every coordinate, and rounding by it."""
        for start in range(0, self.words, CHUNK // 8):
            part = self.update[start : start + CHUNK // 8]
            noise = np.frombuffer(bindings.randombytes_buf_deterministic(8 * len(part), self.secret[:32]), np.uint64)
            self.vector[start : start + CHUNK // 8] = np.floor(part + noise * 2.0**-64).astype(np.uint16)

    def checksum(self) -> None:
        """The inner product with a keystream of 64-bit words."""
        stream = np.frombuffer(bindings.randombytes_buf_deterministic(8 * self.words, self.secret[:32]), np.uint64)
        for start in range(0, self.words, CHUNK // 8):
            stream[start : start + CHUNK // 8] @ self.vector[start : start + CHUNK // 8].astype(np.uint64)

    def pack(self, words: Words) -> bytes:
        """16-bit words as their low bytes, then their high bytes; what packing fewer bits costs is left out."""
        if self.bits < 16:
            return words.tobytes()[: self.words * self.bits // 8]
        return words.astype(np.uint8).tobytes() + (words >> 8).astype(np.uint8).tobytes()

    def unpack(self, data: bytes) -> Words:
        """Undo `pack`."""
        if self.bits < 16:
            return self.vector
        octets = np.frombuffer(data, np.uint8, 2 * self.words)
        words = octets[self.words :].astype(np.uint16)
        words <<= 8
        words |= octets[: self.words]
        return words

    def add(self, words: Words) -> None:
        """One vector more in the sum."""
        np.add(self.total, words, out=self.total)


def transform(vector: NDArray[np.float32], room: NDArray[np.float32]) -> None:
    """Walsh and Hadamard's, in place, all of it in long additions: half of the strides after a transposition."""
    rows = 1 << (len(vector).bit_length() // 2)
    source, target = vector.reshape(rows, -1), room.reshape(rows, -1)
    for _ in range(2):
        half = len(source) // 2
        while half:
            pairs, sums = (part.reshape(-1, 2, half * source.shape[1]) for part in (source, target))
            np.add(pairs[:, 0], pairs[:, 1], out=sums[:, 0])
            np.subtract(pairs[:, 0], pairs[:, 1], out=sums[:, 1])
            source, target, half = target, source, half // 2
        target = target.reshape(source.shape[::-1])
        for start in range(0, len(source), ROWS):
            target[:, start : start + ROWS] = source[start : start + ROWS].T
        source, target = target, source.reshape(target.shape)
    np.multiply(source.reshape(-1), np.float32(len(vector) ** -0.5), out=vector)


def measure(devices: int, parameters: int, coords: int, bits: int) -> dict[str, dict[str, float]]:
    """Processor seconds, bytes and memory that a round cannot do without."""
    made = Round(parameters, coords, bits)
    figures = {
        "client_seconds": _seconds(made.client),
        "member_seconds": devices * _seconds(made.member),
        "coordinator_seconds": devices * _seconds(made.coordinator_upload) + _seconds(made.coordinator_open),
        # A masked vector with the point and the signature that make it one; the opened sum.
        "bytes_up": made.words * bits // 8 + 8 * TAIL + 32 + 64,
        "bytes_down": made.words * bits // 8,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return {"figures": figures, "details": {name: _seconds(part) for name, part in made.client_parts().items()}}


def _seconds(work: Callable[[], None], repetitions: int = 101) -> float:
    """The median of many."""
    seconds = []
    for _ in range(repetitions):
        before = process_time()
        work()
        seconds.append(process_time() - before)
    return median(seconds)


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:5]))))
