"""The floor: the primitives alone that a round cannot do without, on the same sizes, without the project's code.

    python benchmarks/secagg_floor.py DEVICES PARAMETERS

Plain calls into libsodium, hashlib and numpy, nothing checked, nothing framed; prints one line of JSON. Everything is
done over and over, and the median counts.
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

import numpy as np
from nacl import bindings
from nacl.utils import random
from numpy.typing import NDArray

MEMBERS = 7
TAIL = 8
CHUNK = 65_536
"""Words of a keystream made at once."""
SIGNED = 148
"""Bytes of a claim as it is signed, about."""
RECEIPTS = 2


class Round:
    """What the parties of one round hold: a vector of 16-bit words, points, signatures."""

    def __init__(self, parameters: int) -> None:
        self.words = -(-parameters // 64) * 64
        self.vector = np.frombuffer(random(2 * self.words), np.uint16).copy()
        self.total = np.zeros(self.words, np.uint16)
        self.update = np.frombuffer(random(8 * self.words), np.uint64) * 2.0**-64
        self.scalar = bindings.crypto_core_ed25519_scalar_reduce(random(64))
        self.point = bindings.crypto_scalarmult_ed25519_base_noclamp(self.scalar)
        self.public, self.secret = bindings.crypto_sign_seed_keypair(random(32))
        self.signed = bindings.crypto_sign(random(SIGNED), self.secret)
        self.packed = self.vector.tobytes()
        box_secret = random(32)
        box_public = bindings.crypto_scalarmult_base(box_secret)
        self.pair, self.nonce = (box_public, box_secret), random(24)
        self.sealed = bindings.crypto_box(self.packed, self.nonce, *self.pair)

    def client(self) -> None:
        """Verify the plan and two receipts; round, check-sum, hash, make a point, add c masks, hash again, sign."""
        for part in self.client_parts().values():
            part()

    def client_parts(self) -> dict[str, Callable[[], None]]:
        """What a client cannot do without, by its name."""
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
            stream = bindings.randombytes_buf_deterministic(2 * len(part), seed)
            np.add(part, np.frombuffer(stream, np.uint16), out=part)
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

    def pack(self, words: NDArray[np.uint16]) -> bytes:
        """16-bit words as their low bytes, then their high bytes."""
        return words.astype(np.uint8).tobytes() + (words >> 8).astype(np.uint8).tobytes()

    def unpack(self, data: bytes) -> NDArray[np.uint16]:
        """Undo `pack`."""
        octets = np.frombuffer(data, np.uint8, 2 * self.words)
        words = octets[self.words :].astype(np.uint16)
        words <<= 8
        words |= octets[: self.words]
        return words

    def add(self, words: NDArray[np.uint16]) -> None:
        """One vector more in the sum."""
        np.add(self.total, words, out=self.total)


def measure(devices: int, parameters: int) -> dict[str, dict[str, float]]:
    """Processor seconds, bytes and memory that a round cannot do without."""
    made = Round(parameters)
    figures = {
        "client_seconds": _seconds(made.client),
        "member_seconds": devices * _seconds(made.member),
        "coordinator_seconds": devices * _seconds(made.coordinator_upload) + _seconds(made.coordinator_open),
        # A masked vector with the point and the signature that make it one; the opened sum.
        "bytes_up": 2 * made.words + 8 * TAIL + 32 + 64,
        "bytes_down": 2 * made.words,
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
    print(json.dumps(measure(*map(int, sys.argv[1:3]))))
