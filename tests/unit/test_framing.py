"""Fields, frames and signatures: what is written is read back, and only what may be written is read."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hushfleet.errors import MalformedError
from hushfleet.hashing import digest, key_id
from hushfleet.wire.framing import (
    B16,
    F64,
    LARGEST_FRAME,
    LARGEST_SIGNER_COUNT,
    U8,
    U64,
    Array,
    Binary,
    Bytes,
    FieldType,
    Frame,
    Identity,
    ManyB4,
    Named,
    Nested,
    Real,
    Sender,
    Str,
    Table,
    Text,
    Unsigned,
    check_ascending,
    entries,
    indices,
    pack_indices,
    read,
    read_message,
    read_unsigned,
    signed_bytes,
    verify,
)
from hushfleet.wire.round import bitmap

FLEET = bytes(range(16))


@dataclass(frozen=True, slots=True)
class Inner(Table):
    KIND: ClassVar[str] = "inner"
    low: U8
    high: U8

    def check(self) -> None:
        if self.low > self.high:
            raise MalformedError("inner: low is above high")


@dataclass(frozen=True, slots=True)
class Outer(Table):
    """A table with a field of every sort."""

    KIND: ClassVar[str] = "outer"
    sender: Sender
    number: U64
    real: F64
    text: Str
    raw: Bytes
    sized: B16
    many: ManyB4
    inner: Annotated[Inner, Nested(Inner)]
    inners: Annotated[tuple[Inner, ...], Array(Nested(Inner))]
    kind: Annotated[int, Unsigned(8, 3), Named("class")]


inners = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(lambda pair: Inner(min(pair), max(pair)))
outers = st.builds(
    Outer,
    sender=st.integers(0, 2**32 - 1),
    number=st.integers(0, 2**64 - 1),
    real=st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(st.characters(max_codepoint=127), max_size=64),
    raw=st.binary(max_size=300),
    sized=st.binary(min_size=16, max_size=16),
    many=st.lists(st.binary(min_size=4, max_size=4), max_size=5).map(b"".join),
    inner=inners,
    inners=st.lists(inners, max_size=20).map(tuple),
    kind=st.integers(0, 3),
)
OUTER = Outer(7, 2**40, 0.5, "text", b"raw", FLEET, b"four", Inner(1, 2), (Inner(3, 4),), 3)


# ---- fields


@given(table=outers)
def test_a_table_is_read_back_as_it_was_written(table: Outer) -> None:
    body = table.to_body()
    again = Outer.from_body(body)
    assert again == table
    assert again.to_body() == body


def test_fields_stand_in_the_order_of_their_names_on_the_wire() -> None:
    assert list(OUTER.to_map()) == [
        "class",
        "from",
        "inner",
        "inners",
        "many",
        "number",
        "raw",
        "real",
        "sized",
        "text",
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (Unsigned(8), 255),
        (Unsigned(64), 2**64 - 1),
        (Unsigned(8, 1), 1),
        (Binary(), b""),
        (Binary(2), b"ab"),
        (Binary(multiple=3), b"abcdef"),
        (Text(), "~" * 64),
        (Real(), -0.0),
        (Array(Unsigned(8)), [1, 2]),
    ],
)
def test_a_field_takes_its_edge(field: FieldType, value: Any) -> None:
    assert field.write(field.read(value)) == value


WRONG: dict[FieldType, list[Any]] = {
    Unsigned(8): [256, -1, True, 1.0, "1", b"1", None, []],
    Unsigned(8, 1): [2],
    Unsigned(64): [2**64],
    Binary(2): [b"a", b"abc", b"", "ab", bytearray(b"ab"), None, 2],
    Binary(multiple=3): [b"ab", b"abcd"],
    Text(): ["x" * 65, "é", b"x", 1, None],
    Real(): [1, True, math.nan, math.inf, -math.inf, "1.0", None],
    Array(Unsigned(8)): [{}, "ab", b"ab", 1, None, [256], [None]],
    Nested(Inner): [{}, [], {"low": 1}, {"high": 1, "low": 0, "more": 0}, {"low": 0, "high": 1}, None],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_field_refuses_another_form(field: FieldType, value: Any) -> None:
    with pytest.raises(MalformedError):
        field.read(value)


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": 2**32},
        {"number": -1},
        {"real": math.nan},
        {"real": 1},
        {"text": "é"},
        {"raw": "raw"},
        {"sized": b"short"},
        {"many": b"abc"},
        {"inner": Inner(2, 1)},
        {"inners": (Inner(2, 1),)},
        {"kind": 4},
    ],
    ids=str,
)
def test_nothing_is_written_that_would_not_be_read(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        replace(OUTER, **changes).to_body()


def test_an_error_names_the_field_and_shows_no_value() -> None:
    with pytest.raises(MalformedError, match=r"^outer\.sized: expected 16 bytes, got 6$"):
        Outer.from_map(OUTER.to_map() | {"sized": b"secret"})


# ---- frames

index_frames = st.lists(st.integers(0, 2**32 - 1), max_size=32, unique=True).map(sorted)
id_frames = st.lists(st.binary(min_size=8, max_size=8), max_size=32, unique=True).map(sorted)


@settings(max_examples=50)
@given(kind=st.from_regex(r"[a-z]{1,20}", fullmatch=True), body=st.binary(max_size=300), names=index_frames | id_frames)
def test_a_frame_is_read_back_as_it_was_written(kind: str, body: bytes, names: list[Any]) -> None:
    frame = Frame(kind, body, tuple((name, bytes(64)) for name in names))
    assert Frame.from_bytes(frame.to_bytes()) == frame


def test_a_frame_has_at_most_32_signatures() -> None:
    signatures = tuple((index, bytes(64)) for index in range(LARGEST_SIGNER_COUNT + 1))
    assert Frame.from_bytes(Frame("plan", b"", signatures[:-1]).to_bytes()).signatures == signatures[:-1]
    with pytest.raises(MalformedError, match="at most 32"):
        Frame.from_bytes(Frame("plan", b"", signatures).to_bytes())


@pytest.mark.parametrize("names", [[2, 1], [1, 1], [1, bytes(8)], [b"b" * 8, b"a" * 8], [bytes(8), bytes(8)]], ids=str)
def test_signers_are_not_written_out_of_order(names: list[Any]) -> None:
    with pytest.raises(MalformedError, match="ascending"):
        Frame("plan", b"", tuple((name, bytes(64)) for name in names)).to_bytes()


def test_a_frame_on_a_topic_of_one_message_has_at_most_61440_bytes() -> None:
    room = LARGEST_FRAME - len(Frame("plan", bytes(60_000)).to_bytes()) + 60_000
    longest = Frame("plan", bytes(room)).to_bytes()
    assert len(longest) == 61_440
    assert Frame.from_bytes(longest).body == bytes(room)
    longer = Frame("plan", bytes(room + 1)).to_bytes()
    with pytest.raises(MalformedError, match="longer than 61440"):
        Frame.from_bytes(longer)
    assert Frame.from_bytes(longer, limit=61_441).body == bytes(room + 1)


def test_a_hash_covers_type_fleet_and_body_and_no_signature() -> None:
    frame = Frame("plan", b"body", ((1, bytes(64)),))
    assert frame.hash(FLEET) == digest("body", b"hushfleet.plan\0" + FLEET + b"body")
    assert frame.hash(FLEET) == Frame("plan", b"body").hash(FLEET)
    others = [Frame("plan", b"bodx").hash(FLEET), Frame("plam", b"body").hash(FLEET), frame.hash(bytes(16))]
    assert frame.hash(FLEET) not in others


# ---- signatures

SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")


def test_ed25519_is_that_of_rfc_8032() -> None:
    identity = Identity(1, SEED)
    assert identity.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert verify(identity.public_key, b"", signature)
    assert not verify(identity.public_key, b"x", signature)
    for key, written in [(identity.public_key + b"\0", signature), (identity.public_key, signature + b"\0")]:
        assert not verify(key, b"", written), "the binding itself reads the first bytes and is content"


@pytest.mark.parametrize(
    "key", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31)], ids=lambda key: key[:1].hex() + str(len(key))
)
def test_no_signature_is_of_a_key_that_is_none(key: bytes) -> None:
    """The last two are points of small order, with which anyone could sign anything."""
    assert not verify(key, b"message", bytes(64))
    assert not verify(key, b"message", b"\x01" + bytes(63))
    assert not verify(key, b"message", b"")


def test_an_identity_shows_no_secret() -> None:
    identity = Identity(1, SEED)
    assert SEED.hex()[:16] not in repr(identity)
    assert repr(SEED)[2:-1] not in repr(identity)


def test_a_message_is_taken_from_its_sender_alone() -> None:
    me, other = Identity(7, SEED), Identity(8, bytes(32))
    keys = {7: me.public_key, 8: other.public_key}
    frame = me.frame(OUTER, FLEET)
    assert frame.signatures[0][1] == me.sign("outer", FLEET, OUTER.to_body())
    assert verify(me.public_key, signed_bytes("outer", FLEET, frame.body), frame.signatures[0][1])
    assert read_message(frame, Outer, FLEET, keys.get) == OUTER
    for wrong in (
        other.frame(OUTER, FLEET),
        Identity(7, bytes(32)).frame(OUTER, FLEET),
        me.frame(OUTER, bytes(16)),
        Frame("outer", frame.body),
        Frame("outer", frame.body, (*frame.signatures, *other.frame(OUTER, FLEET).signatures)),
        Identity(key_id(me.public_key), SEED).frame(OUTER, FLEET),
    ):
        with pytest.raises(MalformedError):
            read_message(wrong, Outer, FLEET, keys.get)
    with pytest.raises(MalformedError, match="not signed by device 7"):
        read_message(frame, Outer, FLEET, {8: other.public_key}.get)
    with pytest.raises(MalformedError, match="expected a inner"):
        read(frame, Inner)


def test_what_carries_no_signature_is_refused_with_one() -> None:
    frame = Identity(7, SEED).frame(OUTER, FLEET)
    assert read_unsigned(Frame("outer", frame.body), Outer) == OUTER
    with pytest.raises(MalformedError, match="no signature"):
        read_unsigned(frame, Outer)


# ---- packed lists


@given(values=st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_indices_are_packed_little_endian(values: list[int]) -> None:
    packed = pack_indices(values)
    assert packed == b"".join(value.to_bytes(4, "little") for value in values)
    assert indices(packed) == tuple(values)
    assert entries(packed, 4) == tuple(value.to_bytes(4, "little") for value in values)


@given(values=st.lists(st.integers(0, 20), max_size=6))
def test_ascending_means_each_once(values: list[int]) -> None:
    if values == sorted(set(values)):
        check_ascending(values, "values")
    else:
        with pytest.raises(MalformedError, match="values"):
            check_ascending(values, "values")


@given(positions=st.lists(st.integers(0, 300), max_size=20, unique=True))
def test_a_bitmap_is_as_short_as_possible(positions: list[int]) -> None:
    packed = bitmap(positions)
    assert not packed or packed[-1]
    assert [at for at in range(8 * len(packed)) if packed[at // 8] >> at % 8 & 1] == sorted(positions)
