"""Masks: what a participant adds, the members take away; every input counts; no y twice."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import second_writing as book
from golden_fleet import fixed
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import randombytes_buf_deterministic
from second_writing import BAD_POINTS

from hushfleet.errors import MalformedError
from hushfleet.secagg import group
from hushfleet.secagg.masks import (
    BODY,
    CHUNK,
    TAIL,
    MaskContext,
    RoundKey,
    add_keystream,
    add_masks,
    mask_sum,
    round_key,
)
from hushfleet.secagg.residues import Vector, add_into, reduce, subtract_from, word_dtype

CONTEXT = MaskContext(bytes(range(16)), bytes(range(32)), 2**40)


def secrets(label: str, count: int) -> dict[int, bytes]:
    """Scalars by index; the indices are not in a row."""
    draw = fixed(label)
    return {3 * n + 2: group.reduce(draw(64)) for n in range(count)}


def points(scalars: dict[int, bytes]) -> list[tuple[int, bytes]]:
    return [(index, group.base_multiply(scalar)) for index, scalar in scalars.items()]


def random_vector(label: str, coords: int, bits: int, lanes: int) -> Vector:
    vector = Vector.zeros(coords, bits, lanes)
    words = np.frombuffer(fixed(label)(8 * (len(vector.body) + lanes)), "<u8")
    vector.body[:] = reduce(words[: len(vector.body)].astype(word_dtype(bits)), bits)
    vector.tail[:] = words[len(vector.body) :]
    return vector


def masked(vector: Vector, y: bytes, index: int, members: Sequence[tuple[int, bytes]]) -> Vector:
    upload = Vector(vector.body.copy(), vector.tail.copy())
    add_masks(upload, RoundKey(y, group.base_multiply(y)), CONTEXT, index, members)
    return upload


@settings(max_examples=30)
@given(
    member_count=st.integers(1, 4),
    participant_count=st.integers(1, 5),
    bits=st.integers(2, 16),
    coords=st.integers(1, 200),
    lanes=st.sampled_from([2, 8]),
    data=st.data(),
)
def test_masks_cancel_over_just_the_survivors(
    member_count: int, participant_count: int, bits: int, coords: int, lanes: int, data: st.DataObject
) -> None:
    """For any committee, width and length; uploads on the wire, mask sums on the wire, in any order."""
    member_secrets, ys = secrets("members", member_count), secrets("participants", participant_count)
    members, everyone = points(member_secrets), points(ys)
    survivors = data.draw(st.lists(st.sampled_from(everyone), min_size=1, unique=True))
    total, expected = Vector.zeros(coords, bits, lanes), Vector.zeros(coords, bits, lanes)
    for index, _ in survivors:
        vector = random_vector(f"vector {index}", coords, bits, lanes)
        add_into(expected, vector)
        upload = masked(vector, ys[index], index, members).to_bytes(bits)
        assert upload != vector.to_bytes(bits)
        add_into(total, Vector.from_bytes(upload, bits, coords, lanes))
    for member, secret in member_secrets.items():
        answer = mask_sum(Vector.zeros(coords, bits, lanes), secret, member, CONTEXT, survivors).to_bytes(bits)
        subtract_from(total, Vector.from_bytes(answer, bits, coords, lanes))
    assert total.to_bytes(bits) == expected.to_bytes(bits)


def test_one_member_s_masks_hide_everything_alone() -> None:
    """With all mask sums but one, or over another set, what is left is no sum of updates."""
    member_secrets, ys = secrets("members", 3), secrets("participants", 3)
    members, everyone = points(member_secrets), points(ys)
    plain = random_vector("plain", 64, 16, 2)
    total, expected = Vector.zeros(64, 16, 2), Vector.zeros(64, 16, 2)
    for index, y in ys.items():
        add_into(total, masked(plain, y, index, members))
        add_into(expected, plain)
    for number, (member, secret) in enumerate(member_secrets.items()):
        over = everyone if number < 2 else everyone[:2]
        subtract_from(total, mask_sum(Vector.zeros(64, 16, 2), secret, member, CONTEXT, over))
    different = total.body != expected.body
    assert different.mean() > 0.9
    assert (total.tail != expected.tail).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("length", [64, CHUNK - 64, CHUNK, CHUNK + 64, 2 * CHUNK + 128])
def test_every_chunk_of_65536_residues_has_a_seed_of_its_own(bits: int, length: int) -> None:
    seed, vector = fixed("seed")(32), Vector.zeros(length, bits, 3)
    add_keystream(vector, seed)
    stream, word = b"", vector.body.dtype.itemsize
    for n in range(-(-length // 65_536)):
        sub = book.hashed("mask", bytes((0,)) + book.little(n, 4), key=seed)
        stream += randombytes_buf_deterministic(word * min(65_536, length - 65_536 * n), sub)
    assert vector.body.astype(vector.body.dtype.newbyteorder("<")).tobytes() == stream
    tail = randombytes_buf_deterministic(24, book.hashed("mask", bytes((1,)) + book.little(0, 4), key=seed))
    assert vector.tail.astype("<u8").tobytes() == tail


def test_the_keystream_is_added_not_written() -> None:
    seed, once, twice = fixed("seed")(32), Vector.zeros(128, 16, 2), Vector.zeros(128, 16, 2)
    add_keystream(once, seed)
    add_keystream(twice, seed)
    add_keystream(twice, seed)
    assert (twice.body == once.body + once.body).all()
    assert (twice.tail == once.tail + once.tail).all()


def test_body_and_tail_share_no_keystream() -> None:
    assert (BODY, TAIL) == (0, 1)
    vector = Vector.zeros(64, 16, 16)
    add_keystream(vector, fixed("seed")(32))
    assert vector.body.tobytes()[:32] not in vector.tail.tobytes()


@pytest.mark.parametrize("survivor_count", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_make_no_difference(survivor_count: int, threads: int) -> None:
    survivors, secret = points(secrets("participants", survivor_count)), secrets("member", 1)[2]
    alone = mask_sum(Vector.zeros(300, 16, 8), secret, 2, CONTEXT, survivors, threads=1)
    together = mask_sum(Vector.zeros(300, 16, 8), secret, 2, CONTEXT, survivors, threads=threads)
    assert alone.to_bytes(16) == together.to_bytes(16)


def test_the_order_of_survivors_makes_no_difference() -> None:
    survivors, secret = points(secrets("participants", 5)), secrets("member", 1)[2]
    forth = mask_sum(Vector.zeros(64, 5, 2), secret, 2, CONTEXT, survivors)
    back = mask_sum(Vector.zeros(64, 5, 2), secret, 2, CONTEXT, survivors[::-1])
    assert forth.to_bytes(5) == back.to_bytes(5)


def test_every_input_of_a_seed_counts() -> None:
    """A mask is of one fleet, plan, round, participant and member, one Y, one S and one shared point."""

    def seed(
        context: MaskContext = CONTEXT,
        shared: bytes = bytes(32),
        participant: int = 1,
        member: int = 2,
        y_point: bytes = b"y" * 32,
        s_point: bytes = b"s" * 32,
    ) -> bytes:
        return context.seed(shared, participant, member, y_point, s_point)

    seeds = [
        seed(),
        seed(replace(CONTEXT, fleet=bytes(16))),
        seed(replace(CONTEXT, plan=bytes(32))),
        seed(replace(CONTEXT, round=1)),
        seed(shared=b"\1" * 32),
        seed(participant=2, member=1),
        seed(participant=3),
        seed(member=3),
        seed(y_point=b"z" * 32),
        seed(s_point=b"z" * 32),
    ]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("name", BAD_POINTS)
def test_a_survivor_with_a_bad_point_is_refused(name: str) -> None:
    """A part of small order would tell its sender a bit of the member's secret."""
    good = points(secrets("participants", 2))
    with pytest.raises(MalformedError):
        mask_sum(Vector.zeros(64, 16, 2), secrets("member", 1)[2], 2, CONTEXT, [*good, (9, BAD_POINTS[name])])


@pytest.mark.parametrize("name", ["of small order 0", "of small order 4", "off the curve", "31 bytes"])
def test_a_member_s_bad_point_is_refused(name: str) -> None:
    y = secrets("participant", 1)[2]
    with pytest.raises(MalformedError):
        masked(Vector.zeros(64, 16, 2), y, 1, [(2, BAD_POINTS[name])])


# ---- y


def key(vault: bytes = bytes(32), draw: str = "y", plan: bytes = bytes(32), vector: bytes = bytes(32)) -> RoundKey:
    return round_key(vault, fixed(draw), plan, vector)


def test_y_is_hedged() -> None:
    """With one random source stuck, as after a snapshot or on a cloned card, everything else still makes another y."""
    other = b"\1" * 32
    same, others = key(), [key(vault=other), key(draw="z"), key(plan=other), key(vector=other)]
    assert key() == same
    assert len({same.y, *(another.y for another in others)}) == 5
    stuck = [round_key(bytes(32), bytes, bytes(32), bytes([n]) * 32).y for n in range(5)]
    assert len(set(stuck)) == 5


def test_y_is_a_scalar_and_its_point() -> None:
    for n in range(5):
        made = key(vault=bytes([n]) * 32)
        assert group.check_scalar(made.y) == made.y
        assert made.point == book.point_bytes(book.multiply(int.from_bytes(made.y, "little"), book.BASE))


def test_one_draw_of_32_bytes_makes_y() -> None:
    asked: list[int] = []

    def draw(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    round_key(bytes(32), draw, bytes(32), bytes(32))
    assert asked == [32]


def test_a_round_key_shows_no_secret() -> None:
    made = key()
    assert repr(made.y)[2:-1] not in repr(made)
    assert made.y.hex() not in repr(made)
