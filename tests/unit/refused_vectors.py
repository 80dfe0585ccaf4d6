"""Vectors that must be refused, each with the rule of docs/protocol.md that refuses it and the reason.

frames       no receiver may decode these as a frame
bodies       no receiver may take this body as a table of that type
documents    refused by one who has verified root 1, the manifest, its documents and date of documents.json
messages     refused by one who knows the keys of documents.json's devices
lists, keys, complaints, chunks, lengths    refused in the set-up and round of setup.json and round.json
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import golden_fleet
import golden_round
import msgpack
from golden_fleet import COORDINATOR_INDEX, EPOCH, ISSUED, LOST, MEMBERS, POLICY, fixed
from refused_bodies import Case, bodies, case, frames, with_change
from second_writing import add, point_bytes, point_of

from fleet.owner import Owner
from hushfleet import ceremony
from hushfleet.hashing import key_id
from hushfleet.secagg import group
from hushfleet.secagg.sealing import seal
from hushfleet.wire.committee import Box, Card, CardList, Complaint
from hushfleet.wire.documents import Certificate, Date, Document, Manifest, Root
from hushfleet.wire.framing import Frame, Identity, Signer


def refused() -> dict[str, list[Case]]:
    """Every vector, by what refuses it."""
    return {
        "frames": list(frames()),
        "bodies": list(bodies()),
        "documents": list(_documents()),
        "messages": list(_messages()),
        "lists": list(_lists()),
        "keys": list(_keys()),
        "complaints": list(_complaints()),
        "chunks": list(_chunks()),
        "lengths": list(_lengths()),
    }


# ---- signed documents


def signed(table: Document, *who: Identity, kind: str = "", fleet: bytes = b"") -> Frame:
    """`table` signed by these; under another type or for another fleet, the frame still says its own."""
    kind, fleet, body = kind or table.KIND, fleet or table.fleet, table.to_body()
    signatures: dict[Any, bytes] = {one.signer: one.sign(kind, fleet, body) for one in who}
    return Frame(table.KIND, body, tuple((name, signatures[name]) for name in sorted(signatures)))


def _documents() -> Iterator[Case]:
    for offer, make in (("manifest", _manifests), ("root", _roots), ("date", _dates), ("certificate", _certificates)):
        for why, frame in make():
            yield case("2", why, offer=offer, frame=frame.to_bytes())
    for why, data in _policies():
        yield case("11.2", why, offer="policy", frame=data)


def _manifests() -> Iterator[tuple[str, Frame]]:
    owned, stranger = golden_fleet.documents(), Owner.create(fixed("stranger"))
    owner = owned.owner
    signer, fresh, root = (keys.identities()[0] for keys in (owner.signer, owner.fresh, owner.root))
    manifest = Manifest.from_body(owned.manifest.body)
    newer, foreign = replace(manifest, version=13), replace(manifest, version=13, fleet=stranger.fleet)
    body = newer.to_body()
    yield "nobody signed", signed(newer)
    yield "by the freshness key", signed(newer, fresh)
    yield "by a root key", signed(newer, root)
    yield "by another owner", signed(newer, stranger.signer.identities()[0])
    yield (
        "under the signer's key id by another key",
        Frame("manifest", body, ((signer.signer, fresh.sign("manifest", owner.fleet, body)),)),
    )
    yield (
        "under an index instead of a key id",
        Frame("manifest", body, ((1, signer.sign("manifest", owner.fleet, body)),)),
    )
    yield "signed as a date", signed(newer, signer, kind="date")
    yield "signed for another fleet", signed(newer, signer, fleet=stranger.fleet)
    yield "of another fleet, signed for this one", signed(foreign, signer, fleet=owner.fleet)
    yield "a date in its place", owned.date
    yield "goes back", signed(replace(manifest, version=11), signer)
    yield "jumps by 1,001", signed(replace(manifest, version=1013), signer)
    yield "a second one of its version", signed(replace(manifest, not_after=manifest.not_after + 1), signer)
    yield "of another root", signed(replace(newer, root=2), signer)
    yield "its policy goes back", signed(_listing(newer, "policy", version=2), signer)
    yield "its roster jumps by 1,001", signed(_listing(newer, "roster", version=1301), signer)
    yield "a second policy of one version", signed(_listing(newer, "policy", hash=bytes(32)), signer)
    yield "a newer protocol", signed(replace(newer, protocol=2), signer)


def _listing(manifest: Manifest, name: str, **changes: Any) -> Manifest:
    return replace(manifest, docs=tuple(replace(e, **changes) if e.name == name else e for e in manifest.docs))


def _roots() -> Iterator[tuple[str, Frame]]:
    owned, stranger = golden_fleet.documents(), Owner.create(fixed("stranger"))
    old, new = owned.owner.root.identities(), owned.next_owner.root.identities()
    root = Root.from_body(owned.next_root.body)
    foreign = replace(root, fleet=stranger.fleet)
    yield "by the old keys alone", signed(root, *old)
    yield "by the new keys alone", signed(root, *new)
    yield "one old signature short", signed(root, old[0], *new)
    yield "one new signature short", signed(root, *old, new[0])
    yield "skips a version", signed(replace(root, version=3), *old, *new)
    yield "root 1 again", owned.root
    yield "signed for another fleet", signed(root, *old, *new, fleet=stranger.fleet)
    yield "of another fleet, signed for this one", signed(foreign, *old, *new, fleet=owned.fleet)
    yield "signed as a manifest", signed(root, *old, *new, kind="manifest")


def _dates() -> Iterator[tuple[str, Frame]]:
    owner, date = golden_fleet.documents().owner, Date.from_body(golden_fleet.documents().date.body)
    later, fresh = replace(date, not_after=date.not_after + 1), owner.fresh.identities()[0]
    issued = Manifest.from_body(golden_fleet.documents().manifest.body).issued
    yield "nobody signed", signed(later)
    yield "by the signer", signed(later, owner.signer.identities()[0])
    yield "for another manifest", signed(replace(later, manifest=bytes(32)), fresh)
    yield "of another version than its manifest", signed(replace(later, version=13), fresh)
    yield "issued before its manifest", signed(replace(later, issued=issued - 1), fresh)


def _certificates() -> Iterator[tuple[str, Frame]]:
    """Offered to device 9."""
    owned = golden_fleet.documents()
    cert = replace(owned.credentials[9].cert, serial=9)
    certificate = Certificate(owned.fleet, ISSUED, 1, 9, cert)
    yield "nobody signed", signed(certificate)
    yield "by the freshness key", signed(certificate, owned.owner.fresh.identities()[0])
    yield "for another key", owned.owner.certificate(owned.credentials[10].cert, issued=ISSUED)


def _policies() -> Iterator[tuple[str, bytes]]:
    owned = golden_fleet.documents()
    policy, model = owned.documents["policy"], owned.documents["model"]
    signer = owned.owner.signer.identities()[0]
    own = Frame("policy", policy.body, ((signer.signer, signer.sign("policy", owned.fleet, policy.body)),))
    yield "with a signature", own.to_bytes()
    yield "a roster in its place", owned.documents["roster"].to_bytes()
    yield "a certificate in its place", owned.certificate.to_bytes()
    yield "its body under another type", Frame("roster", policy.body).to_bytes()
    for version in (3, 4):
        other = owned.owner.policy(POLICY, [model], version=version, issued=ISSUED + 5)
        yield f"another than the manifest lists, of version {version}", other.to_bytes()
    yield "a byte longer than the manifest says", policy.to_bytes() + b"\0"


# ---- messages


def _messages() -> Iterator[Case]:
    owned, played = golden_fleet.documents(), golden_round.played()
    fleet, stranger = owned.fleet, fixed("stranger")(16)
    share, body = played.shares[2], played.shares[2].body
    me, another = owned.identity(2), owned.identity(3)

    def by(signer: Signer, who: Identity, kind: str = "share", body: bytes = body, under: bytes = fleet) -> Frame:
        return Frame("share", body, ((signer, who.sign(kind, under, body)),))

    signature = share.signatures[0][1]
    wrong: list[tuple[str, str, Frame]] = [
        ("nobody signed", "share", Frame("share", body)),
        ("signed by another than its sender", "share", by(3, another)),
        ("another's signature under the sender's index", "share", by(2, another)),
        ("two signatures", "share", Frame("share", body, ((2, signature), (3, another.sign("share", fleet, body))))),
        ("signed under a key id", "share", by(key_id(me.public_key), me)),
        ("a signature for another fleet", "share", by(2, me, under=stranger)),
        ("a signature over another type", "share", by(2, me, kind="request")),
        ("a sender without a certificate", "share", by(5, me, body=with_change("share", **{"from": 5}))),
        ("a request as share", "share", played.requests[2]),
        ("an ack as share", "share", played.acks[2]),
        ("a signature of zeros", "share", Frame("share", body, ((2, bytes(64)),))),
        ("a signature whose scalar is not below L", "share", Frame("share", body, ((2, _malleable(signature)),))),
        ("a header with a signature", "header", Frame("header", played.uploads[9].header.body, ((9, signature),))),
        ("a chunks header with a signature", "chunks", Frame("chunks", played.chunks.body, ((1, signature),))),
    ]  # fmt: skip
    for why, kind, frame in wrong:
        yield case("11.1", why, type=kind, frame=frame.to_bytes())


def _malleable(signature: bytes) -> bytes:
    """The other scalar that an unstrict verifier takes."""
    return signature[:32] + (int.from_bytes(signature[32:], "little") + group.ORDER).to_bytes(32, "little")


# ---- the set-up


def _lists() -> Iterator[Case]:
    owned, setup = golden_fleet.documents(), golden_fleet.setup()
    lines = {member: member.to_bytes(4, "little") + setup.cards[member].hash(owned.fleet) for member in MEMBERS}

    def listing(*entries: bytes) -> bytes:
        table = CardList(COORDINATOR_INDEX, EPOCH, b"".join(entries))
        return owned.frame(COORDINATOR_INDEX, table).to_bytes()

    yield case("3", "fewer candidates than the policy asks for", frame=listing(lines[2], lines[3]))
    yield case(
        "11.3", "a card that nobody holds", frame=listing(*lines.values(), (701).to_bytes(4, "little") + bytes(32))
    )
    other = lines[700][:4] + bytes(32)
    yield case("11.3", "another card than the one published", frame=listing(lines[2], lines[3], other))


def _keys() -> Iterator[Case]:
    setup = golden_fleet.setup()
    good = {member: setup.points(member) for member in MEMBERS}
    identity = b"\1" + bytes(31)
    order_two = (2**255 - 20).to_bytes(32, "little")
    mixed = group_sum(good[3][:32], order_two)
    not_canonical = (2**255 - 18).to_bytes(32, "little")
    for why, points in [
        ("the identity", identity),
        ("a point of order two", order_two),
        ("a point with a small-order part", mixed),
        ("a point in another encoding than its own", not_canonical),
        ("no point of the curve", b"\2" + bytes(31)),
        ("the dealer's other commitment again", good[3][32:64]),
        ("another dealer's point", good[2][:32]),
    ]:
        wrong = good | {3: points + good[3][32:]}
        yield case("3", why, points={str(member): value.hex() for member, value in wrong.items()})


def group_sum(one: bytes, other: bytes) -> bytes:
    """The sum of two points, also where the library would refuse an operand."""

    return point_bytes(add(point_of(one), point_of(other)))


def _complaints() -> Iterator[Case]:
    """Complaints, with the member that lied; without one if the complaint does not count."""
    owned, setup = golden_fleet.documents(), golden_fleet.setup()
    fleet, list_hash = owned.fleet, setup.card_list.hash(owned.fleet)
    key_hash, secret = setup.keys[LOST].hash(fleet), setup.seal_secrets[3, LOST]
    public = ceremony.seal_key_for(Card.from_body(setup.cards[3].body), LOST, MEMBERS)
    shares = setup.sheets[LOST].shares(2)
    header = ceremony.box_header(key_hash, LOST, 3)
    good = Box(LOST, EPOCH, list_hash, key_hash, 3, b"")

    def box(content: bytes, seal_to: bytes = public, **changes: Any) -> bytes:
        sealed = seal(content, seal_to, fixed("wrong box"))
        return owned.frame(LOST, replace(good, box=sealed, **changes)).to_bytes()

    def complaint(box: bytes, secret: bytes = secret) -> bytes:
        return owned.frame(3, Complaint(3, EPOCH, box, secret)).to_bytes()

    to_another = ceremony.box_header(key_hash, LOST, 2)
    unsigned = Frame("box", setup.boxes[LOST, 3].body, ((LOST, bytes(64)),))
    wrong = shares[0][:31] + bytes((shares[0][31] ^ 1,))
    own = Box(3, EPOCH, list_hash, setup.keys[3].hash(fleet), 3, bytes(80))
    cases: list[tuple[str, bytes, int | None]] = [
        ("the box is right", setup.complaint.to_bytes(), 3),
        ("a share is wrong", complaint(box(header + wrong + b"".join(shares[1:]))), LOST),
        ("a share is 0", complaint(box(header + bytes(32) + b"".join(shares[1:]))), LOST),
        ("a share is not below L", complaint(box(header + b"\xff" * 32 + b"".join(shares[1:]))), LOST),
        ("a share is missing", complaint(box(header + b"".join(shares[1:]))), LOST),
        ("another's shares", complaint(box(header + b"".join(setup.sheets[LOST].shares(1)))), LOST),
        ("the header names another member", complaint(box(to_another + b"".join(shares))), LOST),
        ("the header names another key", complaint(box(bytes(32) + header[32:] + b"".join(shares))), LOST),
        ("sealed to another key", complaint(box(header + b"".join(shares), owned.credentials[1].cert.seal)), LOST),
        ("the secret is not the card's", complaint(setup.boxes[LOST, 3].to_bytes(), setup.seal_secrets[3, 2]), 3),
        ("a box for another member", complaint(setup.boxes[LOST, 2].to_bytes()), 3),
        ("a box to oneself", complaint(owned.frame(3, own).to_bytes()), 3),
        ("a box of another epoch", complaint(box(header + b"".join(shares), epoch=8)), None),
        ("a box of another list", complaint(box(header + b"".join(shares), list=bytes(32))), None),
        ("a box for another key", complaint(box(header + b"".join(shares), key=bytes(32))), None),
        ("a box its dealer did not sign", complaint(unsigned.to_bytes()), None),
        ("no box at all", complaint(b""), None),
    ]  # fmt: skip
    for why, frame, liar in cases:
        yield case("11.3", why, frame=frame, liar=liar)


# ---- chunks and lengths


def _chunks() -> Iterator[Case]:
    """Slices (counted from 0) that do not belong to the upload of device 9."""
    data = golden_round.played().uploads[9].data
    first, last = data[:256], data[256:]
    for why, index, piece in [
        ("a slice one byte short", 0, first[:-1]),
        ("a slice one byte long", 0, first + b"\0"),
        ("a last slice of full length", 1, last + bytes(256 - len(last))),
        ("an empty slice", 1, b""),
        ("a changed slice", 0, b"\xff" + first[1:]),
        ("a slice in another's place", 1, first),
        ("a slice beyond the last", 2, last),
    ]:
        yield case("11.5", why, index=index, slice=piece)


def _lengths() -> Iterator[Case]:
    """Vectors (m = 128 residues of 16 bits, 8 lanes) and bodies of deltas that have the wrong length or padding."""
    played = golden_round.played()
    data, body = played.uploads[9].data, msgpack.unpackb(played.delta.body)["body"]
    yield case("11.5", "an upload one byte short", vector=data[:-1])
    yield case("11.5", "an upload one lane long", vector=data + bytes(8))
    yield case("11.5", "an upload without its tail", vector=data[: 2 * 128])
    yield case("11.5", "a delta one residue short", delta=body[:-2])
    yield case("11.5", "a delta without padding", delta=body[: 2 * 81])
    yield case("11.5", "a delta whose padding is not 0: first residue", delta=body[:81] + b"\1" + body[82:])
    yield case("11.5", "a delta whose padding is not 0: last residue, high byte", delta=body[:255] + b"\1")
