"""Chunks: what is cut comes together in any order, and nothing else does."""

from hashlib import blake2b
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hushfleet.errors import MalformedError, RefusedError
from hushfleet.mqtt.chunks import (
    HEADER_MARK,
    LARGEST,
    SMALLEST,
    Assembly,
    bitmap,
    chunk_hash,
    chunk_hashes,
    cut,
    from_bitmap,
    upload_hash,
)


def assembly(data: bytes, size: int) -> Assembly:
    return Assembly(len(data), size, chunk_hashes(cut(data, size)))


@settings(max_examples=50)
@given(data=st.binary(min_size=1, max_size=3000), size=st.integers(SMALLEST, 700), order=st.randoms())
def test_slices_come_together_in_any_order(data: bytes, size: int, order: Random) -> None:
    pieces = list(enumerate(cut(data, size)))
    whole = assembly(data, size)
    assert whole.count == len(pieces)
    order.shuffle(pieces)
    left = {index for index, _ in pieces}
    for index, piece in pieces:
        assert not whole.complete
        assert whole.missing() == sorted(left)
        assert whole.offer(index, piece) is True
        assert whole.offer(index, piece) is False
        left.discard(index)
    assert whole.complete
    assert whole.missing() == []
    assert whole.data() == data


def test_the_slices_sizes() -> None:
    assert [len(piece) for piece in cut(bytes(1000), 256)] == [256, 256, 256, 232]
    assert [len(piece) for piece in cut(bytes(512), 256)] == [256, 256]
    assert [len(piece) for piece in cut(b"x", LARGEST)] == [1]


@pytest.mark.parametrize("size", [-1, 0, SMALLEST - 1, LARGEST + 1])
def test_a_size_out_of_range_is_malformed(size: int) -> None:
    with pytest.raises(MalformedError):
        cut(bytes(1000), size)
    with pytest.raises(MalformedError):
        Assembly(1000, size, bytes(16))


def test_nothing_cannot_be_cut() -> None:
    with pytest.raises(MalformedError):
        cut(b"", 256)


@pytest.mark.parametrize(
    ("length", "hashes"), [(0, 0), (0, 16), (-5, 0), (512, 31), (512, 48), (512, 16), (513, 32), (2**32 - 1, 16)]
)
def test_a_header_with_the_wrong_number_of_hashes_is_malformed(length: int, hashes: int) -> None:
    with pytest.raises(MalformedError):
        Assembly(length, 256, bytes(hashes))


def test_a_wrong_slice_is_refused_and_leaves_no_trace() -> None:
    data = bytes(range(200)) * 4
    pieces = cut(data, 256)
    whole = assembly(data, 256)
    wrong = [
        (-1, pieces[-1]),
        (4, pieces[0]),
        (0, pieces[1]),
        (0, pieces[0][:-1]),
        (0, pieces[0] + b"\0"),
        (3, pieces[0]),
        (3, b""),
        (1, bytes([pieces[1][0] ^ 1]) + pieces[1][1:]),
    ]
    for index, piece in wrong:
        with pytest.raises(RefusedError):
            whole.offer(index, piece)
    assert whole.missing() == [0, 1, 2, 3]
    whole.offer(0, pieces[0])
    with pytest.raises(RefusedError):
        whole.offer(0, pieces[1])
    with pytest.raises(RefusedError, match="3 of 4"):
        whole.data()
    for index, piece in enumerate(pieces):
        whole.offer(index, piece)
    assert whole.data() == data


@given(count=st.integers(0, 70), data=st.data())
@settings(max_examples=50)
def test_bitmaps_read_what_was_written(count: int, data: st.DataObject) -> None:
    indices = data.draw(st.sets(st.integers(0, count - 1))) if count else set()
    bits = bitmap(indices, count)
    assert len(bits) == -(-count // 8)
    assert from_bitmap(bits, count) == sorted(indices)
    assert from_bitmap(bits.rstrip(b"\0"), count) == sorted(indices)


def test_the_bitmap_is_least_significant_bit_first() -> None:
    assert bitmap([0, 3, 8], 10) == bytes([0b1001, 0b1])


@pytest.mark.parametrize(("bits", "count"), [(b"\x04", 2), (b"\0\0", 8), (b"\0", 0)])
def test_a_bitmap_beyond_the_chunks_is_malformed(bits: bytes, count: int) -> None:
    with pytest.raises(MalformedError):
        from_bitmap(bits, count)


def test_the_hashes_are_the_specified_ones() -> None:
    assert chunk_hash(b"slice") == blake2b(b"slice", digest_size=16, person=b"hushfleet.chnk.1").digest()
    hashes = chunk_hashes([b"a", b"b"])
    assert hashes == chunk_hash(b"a") + chunk_hash(b"b")
    expected = blake2b(b"\x02\x01\0\0" + hashes, digest_size=32, person=b"hushfleet.upld.1").digest()
    assert upload_hash(258, hashes) == expected
    assert len(HEADER_MARK) == 8
