"""Decoders take the golden messages and nothing near them; whatever else arrives is refused, never worse."""

import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import golden_fleet
import golden_round
import msgpack
import pytest
from described_fleet import WIRE
from golden_fleet import ISSUED, MEMBERS, SIZE, fixed, verified
from hypothesis import given, settings
from hypothesis import strategies as st
from second_writing import VECTORS

from hushfleet import ceremony
from hushfleet.codec import unpack_opened
from hushfleet.errors import HushfleetError, MalformedError, RefusedError
from hushfleet.learning.server import open_snapshot
from hushfleet.mqtt.chunks import HEADER_MARK, Assembly, from_bitmap
from hushfleet.mqtt.inbox import Inbox
from hushfleet.mqtt.topics import Topics
from hushfleet.plans import read_transcript
from hushfleet.secagg import committee
from hushfleet.secagg.residues import Vector, unpack
from hushfleet.secagg.sealing import unseal
from hushfleet.trust import READY, UPGRADE, Trust
from hushfleet.wire import canonical
from hushfleet.wire import committee as set_up
from hushfleet.wire import round as rounds
from hushfleet.wire.committee import CardList, CommitteeKey, Complaint
from hushfleet.wire.documents import CommitteeDocument
from hushfleet.wire.framing import (
    Frame,
    Signer,
    read,
    read_message,
    read_unsigned,
)

OWNED, SETUP, PLAYED = golden_fleet.documents(), golden_fleet.setup(), golden_round.played()
FLEET = OWNED.fleet
REFUSED: dict[str, list[dict[str, Any]]] = json.loads((VECTORS / "refused.json").read_text())
FRAMES = {
    entry["type"]: Frame.from_bytes(bytes.fromhex(entry["frame"]))
    for name in ("documents", "setup", "round")
    for entry in json.loads((VECTORS / f"{name}.json").read_text())["frames"]
}
"""One golden frame of each type."""

KEYS: dict[Signer, bytes] = {index: credential.cert.key for index, credential in OWNED.credentials.items()}
for key_set in (*OWNED.owner.key_sets().values(), OWNED.next_owner.root):
    KEYS |= {identity.signer: identity.public_key for identity in key_set.identities()}


def cases(name: str) -> pytest.MarkDecorator:
    """One test for each vector that must be refused."""
    return pytest.mark.parametrize(
        "case", REFUSED[name], ids=lambda case: f"{case.get('type', '')} {case['why']}".strip()
    )


def key_of(index: int) -> bytes | None:
    return KEYS.get(index)


# ---- vectors that must be refused


@cases("frames")
def test_no_frame(case: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Frame.from_bytes(bytes.fromhex(case["frame"]))


@cases("bodies")
def test_no_table(case: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        WIRE[case["type"]].from_body(bytes.fromhex(case["body"]))


def test_every_table_has_vectors_that_it_refuses() -> None:
    assert {case["type"] for case in REFUSED["bodies"]} == set(FRAMES)


def offer(trust: Trust, what: str, data: bytes) -> Any:
    match what:
        case "root":
            return trust.offer_root(data)
        case "manifest":
            return trust.offer_manifest(data)
        case "date":
            return trust.offer_date(data)
        case "certificate":
            return trust.offer_certificate(data, OWNED.credentials[9].cert.key)
        case name:
            return trust.offer_document(name, data)


def test_the_golden_documents_are_taken() -> None:
    trust = verified()
    assert trust.state(ISSUED) == READY
    trust.offer_root(OWNED.next_root.to_bytes())


@cases("documents")
def test_no_document(case: dict[str, Any]) -> None:
    trust = verified()
    before = (trust.pair, trust.root, trust.date, trust.certificate, trust.policy, trust.valid_until())
    with pytest.raises((MalformedError, RefusedError)):
        offer(trust, case["offer"], bytes.fromhex(case["frame"]))
    assert (trust.pair, trust.root, trust.date, trust.certificate, trust.policy, trust.valid_until()) == before
    assert trust.state(ISSUED) == (UPGRADE if case["why"] == "a newer protocol" else READY)


@cases("messages")
def test_no_message(case: dict[str, Any]) -> None:
    table = WIRE[case["type"]]
    with pytest.raises(MalformedError):
        frame = Frame.from_bytes(bytes.fromhex(case["frame"]))
        if case["type"] in ("header", "chunks"):
            read_unsigned(frame, table)
        else:
            read_message(frame, table, FLEET, key_of)


@pytest.mark.parametrize("kind", [kind for kind, table in WIRE.items() if hasattr(table, "sender")])
def test_the_golden_messages_are_taken(kind: str) -> None:
    assert read_message(FRAMES[kind], WIRE[kind], FLEET, key_of).to_body() == FRAMES[kind].body


@cases("lists")
def test_no_list(case: dict[str, Any]) -> None:
    held = {member: card.hash(FLEET) for member, card in SETUP.cards.items()}
    assert ceremony.check_list(CardList.from_body(SETUP.card_list.body), held, 3) == MEMBERS
    with pytest.raises(RefusedError):
        ceremony.check_list(CardList.from_body(Frame.from_bytes(bytes.fromhex(case["frame"])).body), held, 3)


@cases("keys")
def test_no_keys(case: dict[str, Any]) -> None:
    committee.check_keys([SETUP.points(member) for member in MEMBERS])
    with pytest.raises(MalformedError):
        committee.check_keys([bytes.fromhex(points) for points in case["points"].values()])


@cases("complaints")
def test_who_lied(case: dict[str, Any]) -> None:
    complaint = read_message(Frame.from_bytes(bytes.fromhex(case["frame"])), Complaint, FLEET, key_of)

    def judged() -> int:
        return ceremony.judge(
            complaint,
            CommitteeDocument.from_body(OWNED.documents["committee"].body),
            FLEET,
            {member: set_up.Card.from_body(card.body) for member, card in SETUP.cards.items()},
            {m: (frame.hash(FLEET), CommitteeKey.from_body(frame.body)) for m, frame in SETUP.keys.items()},
            SETUP.card_list.hash(FLEET),
            MEMBERS,
            golden_fleet.THRESHOLD,
            fixed("judge"),
        )

    if case["liar"] is None:
        with pytest.raises((MalformedError, RefusedError)):
            judged()
    else:
        assert judged() == case["liar"]


@cases("chunks")
def test_no_slice(case: dict[str, Any]) -> None:
    data = PLAYED.uploads[9].data
    header = rounds.Header.from_body(PLAYED.uploads[9].header.body)
    assembly = Assembly(header.length, header.size, header.hashes)
    with pytest.raises(RefusedError):
        assembly.offer(case["index"], bytes.fromhex(case["slice"]))
    assert assembly.offer(0, data[:SIZE])
    assert assembly.offer(1, data[SIZE:])
    assert assembly.data() == data


@cases("lengths")
def test_no_vector(case: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        if "vector" in case:
            Vector.from_bytes(bytes.fromhex(case["vector"]), 16, 81, 8)
        else:
            unpack_opened(bytes.fromhex(case["delta"]), 16, 81)


# ---- near the golden messages


def taken(frame: Frame) -> bool:
    """Whether a decoder takes the frame's body as a table of its type."""
    try:
        WIRE[frame.kind].from_body(frame.body)
    except (MalformedError, KeyError):
        return False
    return True


def genuine(frame: Frame) -> bool:
    """Whether every signature on the frame is its signer's."""
    return all(name in KEYS and frame.signed_by(name, KEYS[name], FLEET) for name, _ in frame.signatures)


@pytest.mark.parametrize("kind", FRAMES)
def test_no_byte_of_a_message_can_change(kind: str) -> None:
    """Every byte, changed in several ways: it does not decode, or hash or signature are another's."""
    golden, data = FRAMES[kind], FRAMES[kind].to_bytes()
    assert genuine(golden)
    for position in range(len(data)):
        for bit in {0, 7, position % 8}:
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            try:
                frame = Frame.from_bytes(bytes(changed))
            except MalformedError:
                continue
            if (frame.kind, frame.body) == (golden.kind, golden.body):
                assert not genuine(frame), f"a signature survives a change at {position}"
            else:
                assert not taken(frame) or frame.hash(FLEET) != golden.hash(FLEET)
                if frame.signatures and bit == position % 8:
                    assert not genuine(frame), f"a signature covers a change at {position}"


@pytest.mark.parametrize("kind", FRAMES)
def test_no_byte_of_a_message_can_be_missing_or_follow(kind: str) -> None:
    data, body = FRAMES[kind].to_bytes(), FRAMES[kind].body
    for end in range(len(data)):
        with pytest.raises(MalformedError):
            Frame.from_bytes(data[:end])
    for end in range(len(body)):
        with pytest.raises(MalformedError):
            WIRE[kind].from_body(body[:end])
    for following in (b"\0", b"\xc0", b"\x90", data):
        with pytest.raises(MalformedError):
            Frame.from_bytes(data + following)


@pytest.mark.parametrize("kind", FRAMES)
def test_no_message_passes_as_one_of_another_type(kind: str) -> None:
    for other, table in WIRE.items():
        if other != kind:
            with pytest.raises(MalformedError):
                read(FRAMES[kind], table)


@pytest.mark.parametrize("kind", [kind for kind, frame in FRAMES.items() if frame.signatures])
def test_no_signature_passes_under_another_type_or_fleet(kind: str) -> None:
    frame = FRAMES[kind]
    for signer, _ in frame.signatures:
        assert frame.signed_by(signer, KEYS[signer], FLEET)
        assert not frame.signed_by(signer, KEYS[signer], bytes(16))
        for other in WIRE:
            if other != kind:
                assert not Frame(other, frame.body, frame.signatures).signed_by(signer, KEYS[signer], FLEET)


# ---- anything at all

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=70)
    | st.binary(max_size=140),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)

plain = st.recursive(
    st.integers(0, 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(max_codepoint=127), max_size=70)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=18)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=8), inner, max_size=18).map(
            lambda table: dict(sorted(table.items()))
        )
    ),
    max_leaves=6,
)

DECODERS: list[Callable[[bytes], object]] = [
    Frame.from_bytes,
    canonical.decode,
    *(table.from_body for table in WIRE.values()),
    lambda data: read_transcript(data, CommitteeDocument.from_body(OWNED.documents["committee"].body), FLEET),
    lambda data: unseal(data, bytes(range(32))),
    lambda data: Vector.from_bytes(data, 16, 81, 8),
    lambda data: unpack(data, 5, 64),
    lambda data: unpack_opened(data, 16, 81),
    lambda data: open_snapshot(data, 81, bytes(32)),
    lambda data: from_bitmap(data, 12),
    lambda data: Assembly(600, 256, data),
    lambda data: Inbox().offer("key", 0, HEADER_MARK + data, 1024),
    lambda data: Topics(FLEET).parse(data.decode("latin-1")),
    *(partial(offer, verified(), what) for what in ("root", "manifest", "date", "certificate", "policy")),
]  # fmt: skip


@settings(max_examples=60)
@given(data=st.binary(max_size=400))
def test_random_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(data)
        except HushfleetError:
            continue


@settings(max_examples=200)
@given(data=st.binary(max_size=40) | values.map(msgpack.packb))
def test_what_is_decoded_would_be_encoded_as_it_came(data: bytes) -> None:
    try:
        value = canonical.decode(data)
    except MalformedError:
        return
    assert canonical.encode(value) == data


@pytest.mark.parametrize("sizes", [[65_535], [65_536], [3, 65_536], [70_000, 0, 200_000]])
def test_a_map_with_large_values_is_written_as_the_library_writes_it(sizes: list[int]) -> None:
    table = {"at": 7, **{f"value {size}": b"x" * size for size in sizes}, "why": "text"}
    assert canonical.encode(table) == msgpack.packb(table)


@settings(max_examples=100)
@given(value=plain)
def test_what_is_of_the_protocol_s_types_is_read_back(value: Any) -> None:
    assert canonical.decode(canonical.encode(value)) == value


@settings(max_examples=100)
@given(value=values)
def test_random_values_are_refused_and_nothing_else(value: Any) -> None:
    data = msgpack.packb(value)
    for table in WIRE.values():
        with pytest.raises(MalformedError):
            table.from_body(data)
    with pytest.raises(MalformedError):
        Frame.from_bytes(data)


@settings(max_examples=100)
@given(kind=st.sampled_from(sorted(FRAMES)), data=st.data())
def test_a_random_value_in_a_field_is_refused_or_stands_as_it_is(kind: str, data: st.DataObject) -> None:
    fields = msgpack.unpackb(FRAMES[kind].body)
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(values)
    body = msgpack.packb(fields)
    try:
        table = WIRE[kind].from_body(body)
    except MalformedError:
        return
    assert table.to_body() == body


@settings(max_examples=60)
@given(kind=st.sampled_from(sorted(FRAMES)), data=st.data())
def test_a_message_with_a_piece_of_another_is_refused_or_stands_as_it_is(kind: str, data: st.DataObject) -> None:
    body, other = FRAMES[kind].body, FRAMES[data.draw(st.sampled_from(sorted(FRAMES)))].body
    cut, begin = data.draw(st.integers(0, len(body))), data.draw(st.integers(0, len(other)))
    spliced = (
        body[:cut]
        + other[begin : begin + data.draw(st.integers(0, 40))]
        + body[data.draw(st.integers(cut, len(body))) :]
    )
    try:
        table = WIRE[kind].from_body(spliced)
    except MalformedError:
        return
    assert table.to_body() == spliced


LIMIT = 4 * 1024 * 1024
BOMBS = {
    "arrays in arrays": b"\x91" * LIMIT,
    "arrays that claim 65,535 entries, in one another": b"\xdc\xff\xff" * 20_000,
    "arrays that claim as much as a long message has bytes": b"\xdd\x00\x3f\x00\x00" * 2_000 + bytes(LIMIT - 10_000),
    "arrays that claim as much as is allowed": b"\xdc\x04\x00" * 20_000,
    "maps that claim 65,535 entries, in one another": b"\xde\xff\xff\xa1a" * 10_000,
    "an array that claims 2^32 - 1": b"\xdd\xff\xff\xff\xff",
    "a map that claims 2^32 - 1": b"\xdf\xff\xff\xff\xff",
    "bytes that claim 2^32 - 1": b"\xc6\xff\xff\xff\xff",
    "text that claims 2^32 - 1": b"\xdb\xff\xff\xff\xff",
    "an extension that claims 2^32 - 1": b"\xc9\xff\xff\xff\xff\x01",
    "a million small arrays": b"\xdd\x00\x0f\x42\x40" + b"\x90" * 1_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_claim_of_length_costs_no_memory(name: str) -> None:
    data = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError):
            Frame.from_bytes(data, LIMIT)
        with pytest.raises(MalformedError):
            rounds.Acks.from_body(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


def test_no_collection_is_longer_than_any_table_needs() -> None:
    most = [0] * canonical.LARGEST_COLLECTION
    assert canonical.decode(canonical.encode(most)) == most
    with pytest.raises(MalformedError):
        canonical.decode(canonical.encode([*most, 0]))
    with pytest.raises(MalformedError):
        rounds.Acks(1, bytes(32), bytes(32), (b"",) * (len(most) + 1), b"", ()).to_body()


def test_nothing_is_nested_deeper_than_any_table_needs() -> None:
    deep = canonical.encode([[[[[[[[]]]]]]]])
    assert canonical.encode(canonical.decode(deep)) == deep
    with pytest.raises(MalformedError):
        canonical.decode(b"\x91" + deep)
    with pytest.raises(MalformedError):
        canonical.decode(b"\x81\xa1a" + deep)
