"""A version's hash and snapshot."""

from hashlib import blake2b

import numpy as np
import pytest

from hushfleet.errors import MalformedError
from hushfleet.learning.server import model_hash, open_snapshot, snapshot

FLAT = np.array([0.0, -0.0, 1.0, -1.5, 1e-45, 3.4e38], np.float32)


def test_the_hash_is_over_little_endian_float32_under_its_own_purpose() -> None:
    octets = bytes.fromhex("00000000 00000080 0000803f 0000c0bf 01000000 9ec97f7f".replace(" ", ""))
    assert snapshot(FLAT) == octets
    assert model_hash(FLAT) == blake2b(octets, digest_size=32, person=b"hushfleet.modl.1").digest()


def test_a_host_of_the_other_byte_order_computes_the_same_hash() -> None:
    assert model_hash(FLAT.astype(">f4")) == model_hash(FLAT)


def test_the_hash_tells_apart_what_compares_equal() -> None:
    assert model_hash(np.zeros(1, np.float32)) != model_hash(-np.zeros(1, np.float32))


def test_a_snapshot_opens_to_the_version_it_was_taken_of() -> None:
    opened = open_snapshot(snapshot(FLAT), len(FLAT), model_hash(FLAT))
    assert opened.dtype == np.float32
    assert opened.tobytes() == FLAT.tobytes()
    opened += 1  # writable


@pytest.mark.parametrize("change", [-1, 1, -4, 4])
def test_a_snapshot_of_another_length_is_malformed(change: int) -> None:
    data = (snapshot(FLAT) + bytes(4))[: 4 * len(FLAT) + change]
    with pytest.raises(MalformedError, match="24 bytes"):
        open_snapshot(data, len(FLAT), model_hash(FLAT))


def test_a_snapshot_with_one_bit_changed_is_of_no_version() -> None:
    data = bytearray(snapshot(FLAT))
    data[7] ^= 1
    with pytest.raises(MalformedError, match="not of the version"):
        open_snapshot(bytes(data), len(FLAT), model_hash(FLAT))
