"""Residues against the fold as section 11.5 tells it, one residue after the other."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hushfleet.errors import MalformedError
from hushfleet.secagg.residues import (
    Vector,
    add_into,
    pack,
    padded,
    reduce,
    signed,
    signed_tail,
    subtract_from,
    unpack,
    vector_length,
    word_dtype,
)

every_width = st.integers(2, 16)
blocks = st.integers(1, 6)
seeds = st.integers(0, 2**32 - 1)


def textbook_pack(residues: list[int], bits: int) -> bytes:
    if bits > 8:
        return bytes(residue & 255 for residue in residues) + textbook_pack([r >> 8 for r in residues], bits - 8)
    packed = b""
    taken = 0
    for plane_width in (8, 4, 2, 1):
        if bits & plane_width:
            x = [(residue >> taken) % (1 << plane_width) for residue in residues]
            taken += plane_width
            w = plane_width
            while w < 8:
                half = len(x) // 2
                x = [low | high << w for low, high in zip(x[:half], x[half:], strict=True)]
                w *= 2
            packed += bytes(x)
    return packed


def any_words(seed: int, count: int, bits: int) -> NDArray[np.unsignedinteger[Any]]:
    """Whole random words: above B bits they hold what sums would leave there."""
    dtype = word_dtype(bits)
    return np.random.default_rng(seed).integers(0, 1 << (8 * dtype.itemsize), count).astype(dtype)


def any_vector(seed: int, coords: int, bits: int, lanes: int) -> Vector:
    tail = np.random.default_rng([seed, 1]).integers(0, 1 << 64, lanes, dtype=np.uint64)
    return Vector(any_words(seed, padded(coords), bits), tail)


@pytest.mark.parametrize(("coords", "expected"), [(0, 0), (1, 64), (63, 64), (64, 64), (65, 128), (100_000, 100_032)])
def test_padding_is_the_next_multiple_of_64(coords: int, expected: int) -> None:
    assert padded(coords) == expected


def test_a_residue_is_the_smallest_word() -> None:
    assert [word_dtype(bits).itemsize for bits in range(2, 17)] == [1] * 7 + [2] * 8


@pytest.mark.parametrize("bits", range(2, 17))
@settings(max_examples=10)
@given(blocks=blocks, seed=seeds)
def test_packing_is_the_fold_of_the_book_without_waste(bits: int, blocks: int, seed: int) -> None:
    words = any_words(seed, 64 * blocks, bits)
    packed = pack(words, bits)
    assert len(packed) == 64 * blocks * bits // 8
    assert packed == textbook_pack([int(word) % (1 << bits) for word in words], bits)


@pytest.mark.parametrize("bits", range(2, 17))
@settings(max_examples=10)
@given(blocks=blocks, seed=seeds)
def test_unpacking_returns_the_reduced_residues(bits: int, blocks: int, seed: int) -> None:
    words = any_words(seed, 64 * blocks, bits)
    unpacked = unpack(pack(words, bits), bits, 64 * blocks)
    assert unpacked.dtype == word_dtype(bits)
    np.testing.assert_array_equal(unpacked, words.astype(np.int64) % (1 << bits))
    unpacked += 1  # writable: it may be summed into


@settings(max_examples=50)
@given(bits=every_width, blocks=blocks, data=st.data())
def test_every_string_of_the_right_length_is_one_body(bits: int, blocks: int, data: st.DataObject) -> None:
    length = 8 * blocks * bits
    packed = data.draw(st.binary(min_size=length, max_size=length))
    assert pack(unpack(packed, bits, 64 * blocks), bits) == packed


def test_a_body_that_is_a_slice_of_another_array_is_packed_by_value() -> None:
    words = any_words(1, 256, 5)
    assert pack(words[::2], 5) == pack(words[::2].copy(), 5)


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("change", [-1, 1])
def test_a_body_of_another_length_is_malformed(bits: int, change: int) -> None:
    with pytest.raises(MalformedError, match=f"{8 * bits} bytes"):
        unpack(bytes(8 * bits + change), bits, 64)


@pytest.mark.parametrize("bits", [-1, 0, 1, 17, 64])
def test_other_widths_are_malformed(bits: int) -> None:
    with pytest.raises(MalformedError, match="2 to 16 bits"):
        unpack(bytes(max(0, 8 * bits)), bits, 64)
    with pytest.raises(MalformedError, match="2 to 16 bits"):
        pack(np.zeros(64, np.uint16), bits)


def test_an_unpadded_body_is_malformed() -> None:
    with pytest.raises(MalformedError, match="multiple of 64"):
        pack(np.zeros(63, np.uint8), 8)
    with pytest.raises(MalformedError, match="multiple of 64"):
        unpack(bytes(63), 8, 63)


@settings(max_examples=50)
@given(bits=every_width, seed=seeds)
def test_signed_is_the_integer_in_the_middle_range(bits: int, seed: int) -> None:
    words = any_words(seed, 64, bits)
    words[:4] = [0, (1 << (bits - 1)) - 1, 1 << (bits - 1), (1 << bits) - 1]
    expected = [int(word) % (1 << bits) for word in words]
    expected = [value - (1 << bits) if value >= 1 << (bits - 1) else value for value in expected]
    assert signed(words, bits).tolist() == expected
    assert signed(words, bits).dtype == np.int64
    assert reduce(words, bits).tolist() == [value % (1 << bits) for value in expected]


def test_a_lane_is_signed_at_half_of_its_range() -> None:
    tail = np.array([0, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    assert signed_tail(tail).tolist() == [0, 2**63 - 1, -(2**63), -1]


@settings(max_examples=50)
@given(coords=st.integers(1, 300), bits=every_width, lanes=st.sampled_from([0, 2, 8]), seed=seeds)
def test_a_vector_travels_in_exactly_its_length(coords: int, bits: int, lanes: int, seed: int) -> None:
    vector = any_vector(seed, coords, bits, lanes)
    data = vector.to_bytes(bits)
    assert len(data) == vector_length(coords, bits, lanes) == padded(coords) * bits // 8 + 8 * lanes
    assert data == pack(vector.body, bits) + b"".join(int(lane).to_bytes(8, "little") for lane in vector.tail)
    for count in (coords, padded(coords)):
        again = Vector.from_bytes(data, bits, count, lanes)
        np.testing.assert_array_equal(again.body, reduce(vector.body, bits))
        np.testing.assert_array_equal(again.tail, vector.tail)
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(MalformedError, match="bytes instead of"):
            Vector.from_bytes(wrong, bits, coords, lanes)


@settings(max_examples=30)
@given(coords=st.integers(1, 200), bits=every_width, seed=seeds, count=st.integers(1, 5))
def test_sums_are_right_mod_2_to_the_b_and_2_to_the_64(coords: int, bits: int, seed: int, count: int) -> None:
    vectors = [any_vector(seed + i, coords, bits, 8) for i in range(count)]
    total = Vector.zeros(coords, bits, 8)
    for vector in vectors:
        add_into(total, vector)
    body = [sum(int(vector.body[j]) for vector in vectors) % (1 << bits) for j in range(padded(coords))]
    assert reduce(total.body, bits).tolist() == body
    assert total.tail.tolist() == [sum(int(vector.tail[j]) for vector in vectors) % (1 << 64) for j in range(8)]
    for vector in vectors:
        subtract_from(total, vector)
    assert not reduce(total.body, bits).any()
    assert not total.tail.any()


@pytest.mark.parametrize("form", [(1, 8, 8), (65, 8, 8), (64, 9, 8), (64, 8, 1)])
@pytest.mark.parametrize("operation", [add_into, subtract_from])
def test_vectors_of_different_forms_do_not_add(operation: Any, form: tuple[int, int, int]) -> None:
    coords, bits, lanes = form
    other = Vector.zeros(coords, bits, lanes) if coords > 1 else Vector(np.ones(1, np.uint8), np.ones(8, np.uint64))
    total = Vector.zeros(64, 8, 8)
    with pytest.raises(MalformedError, match="different lengths or widths"):
        operation(total, other)
    assert not total.body.any()


def test_a_vector_shows_none_of_its_residues() -> None:
    assert repr(any_vector(7, 64, 8, 8)) == "Vector()"
