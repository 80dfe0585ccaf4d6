"""A second writing of the protocol's bytes: tables, frames, hashes, sealed boxes, chunks and topics.

Written from the specification's text alone and without the project's own packages, so that a reading of the text that
the project has and the text does not is found by running the two against each other. Plain and slow.
"""

import base64
import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgpack
from nacl import bindings as sodium

Fields = dict[str, Any]


class Refused(Exception):
    """What came does not verify; the text says why."""


def require(condition: bool, why: str) -> None:
    """Raise `Refused` unless the condition holds."""
    if not condition:
        raise Refused(why)


# Tables (sections 11.2 to 11.4), in the words of the text. `from`, and what every document has, are added below.

DOCUMENT = "fleet b16 · issued u64 · protocol u8 · version u32"
DOCUMENTS = {
    "root": "root [b32] · root_n u8 · signer [b32] · signer_n u8 · fresh [b32] · fresh_n u8 · not_after u64",
    "manifest": "root u32 · docs [{doc}] · not_after u64",
    "date": "manifest b32 · not_after u64",
    "committee": "certs [{cert}] · revoked b4*",
    "certificate": "cert {cert}",
    "roster": "devices b46* · profiles [s] · revoked b4*",
    "policy": (
        "assumed_colluders u32 · audit_rate f · clip f · committee_min u8 · committee_trusted u8 · delta f · "
        "epoch_age u32 · epoch_rounds u16 · epsilon f · interval u32 · largest_survivor_set u32 · largest_weight f · "
        "models [b32] · noise_floor f · noiseless_statistics u8 · recoveries u8 · rollback_versions u16 · shards u16 · "
        "smallest_group u32 · smallest_survivor_set u32 · tiny_fleet u8 · uploads_per_base u16"
    ),
    "model": "name s · layers [{layer}] · init b32 · zero b32 · personal u16",
    "profile": "profiles [{firmware}]",
    "schema": (
        "model b32 · channels [{channel}] · rate f · samples u32 · step u32 · missing f · mask u8 · task s · "
        "classes [s] · target u8 · horizon u32"
    ),
}
MESSAGES = {
    "call": (
        "epoch u32 · committee b32 · f u8 · first u64 · rounds u16 · not_after u64 · cards_by u64 · keys_by u64 · "
        "ready_by u64"
    ),
    "card": "epoch u32 · committee b32 · seal b32* · anchor b32 · root u32 · manifest u32",
    "list": "epoch u32 · cards b36*",
    "key": "epoch u32 · list b32 · first u64 · rounds u16 · not_after u64 · points b32*",
    "box": "epoch u32 · list b32 · key b32 · to u32 · box b",
    "complaint": "epoch u32 · box b · secret b32",
    "plan": (
        "round u64 · kind u8 · model b32 · base u32 · base_hash b32 · roster b32 · policy b32 · epoch u32 · "
        "transcript b32 · points b32* · opens u64 · closes u64 · until u64 · sample u64 · grouped u8 · codec u8 · "
        "bits u8 · coords u32 · keep f · clip f · step f · seed b32 · noise f · tail u8 · steps u16 · batch u16 · "
        "rate f · momentum f · proximal f"
    ),
    "receipt": "round u64 · upload b32 · state u8 · reason u8 · missing b",
    "decline": "plan b32 · reason u8",
    "survivors": "plan b32 · entries b132*",
    "ack": "plan b32 · set b32 · link b32",
    "acks": "plan b32 · set b32 · acks [b] · first b · first_acks [b]",
    "masksum": "plan b32 · set b32 · group u16 · part b32 · sum b · root u32 · manifest u32",
    "request": "plan b32 · set b32 · lost u32",
    "share": "plan b32 · set b32 · lost u32 · share b32",
    "blame": "plan b32 · lost u32 · set b · sums [b] · scalar b32",
    "result": (
        "plan b32 · round u64 · outcome u8 · reason u8 · base u32 · base_hash b32 · version u32 · version_hash b32 · "
        "delta b32 · included b · step f · metrics {metrics}"
    ),
    "sums": "plan b32 · schema b32 · devices u32 · top u64 · sums b8*",
    "delta": (
        "version u32 · plan b32 · bits u8 · body b · step f · weight u64 · rate f · codec u8 · momentum f · adam [f]"
    ),
}
NAMELESS = {
    "transcript": (
        "epoch u32 · committee b32 · first u64 · rounds u16 · f u8 · not_after u64 · members b4* · keys b32* · "
        "leaves b32* · root u32 · manifest u32"
    ),
    "header": "round u64 · y b32 · length u32 · size u16 · hashes b16* · sig b64",
    "chunks": "length u32 · size u16 · hashes b16*",
}
PARTS = {
    "doc": "name s · version u32 · length u32 · hash b32",
    "cert": (
        "device s · index u32 · key b32 · roles u8 · profile s · not_before u64 · not_after u64 · serial u32 · "
        "seal b32*"
    ),
    "channel": "name s · unit s · low f · high f",
    "standardised": "name s · unit s · low f · high f · mean f · sd f · kind s",
    "firmware": "name s · link s · chunk u16 · window u8 · keepalive u16 · daily u64 · models [b32]",
    "dense": "kind s · in u32 · out u32 · act s",
    "conv1d": "kind s · length u32 · channels u16 · filters u16 · kernel u16 · stride u16 · act s",
    "depthwise_conv1d": "kind s · length u32 · channels u16 · kernel u16 · stride u16 · act s",
    "avgpool": "kind s · length u32 · channels u16 · size u16",
    "maxpool": "kind s · length u32 · channels u16 · size u16",
    "global_average": "kind s · length u32 · channels u16",
    "layer_norm": "kind s · length u32 · channels u16 · act s",
    "gru": "kind s · length u32 · channels u16 · units u16",
    "metrics": ("examples u64 · training_loss f · evaluated u64 · evaluation_loss f · correct u64 · norm f"),
}


def _table(text: str) -> dict[str, str]:
    return dict(sorted(field.split() for field in text.split(" · ")))


TABLES: dict[str, dict[str, str]] = {
    **{name: _table(f"{text} · {DOCUMENT}") for name, text in DOCUMENTS.items()},
    **{name: _table(f"{text} · from u32") for name, text in MESSAGES.items()},
    **{name: _table(text) for name, text in NAMELESS.items()},
    **{name: _table(text) for name, text in PARTS.items()},
}


KINDS = ("dense", "conv1d", "depthwise_conv1d", "avgpool", "maxpool", "global_average", "layer_norm", "gru")
"""A {layer} is one of these tables."""


def _fits(value: Any, kind: str) -> bool:
    if kind.startswith("["):
        return type(value) is list and all(_fits(one, kind[1:-1]) for one in value)
    if kind == "{layer}":
        named = value.get("kind") if type(value) is dict else None
        return named in KINDS and _fits(value, f"{{{named}}}")
    if kind == "{channel}" and type(value) is dict and "kind" in value:
        return value["kind"] == "standardised" and _fits(value, "{standardised}")
    if kind.startswith("{"):
        table = TABLES[kind[1:-1]]
        return type(value) is dict and list(value) == list(table) and all(_fits(value[k], t) for k, t in table.items())
    if kind.startswith("u"):
        return type(value) is int and 0 <= value < 2 ** int(kind[1:])
    if kind == "f":
        return type(value) is float and math.isfinite(value)
    if kind == "s":
        return type(value) is str and value.isascii() and len(value) <= 64
    if kind == "b":
        return type(value) is bytes
    if kind.endswith("*"):
        return type(value) is bytes and len(value) % int(kind[1:-1]) == 0
    return type(value) is bytes and len(value) == int(kind[1:])


def pack(name: str, fields: Fields) -> bytes:
    """A body by its table; the keys ascend."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(value[key]) for key in sorted(value)}
        return [ordered(one) for one in value] if isinstance(value, list) else value

    body = ordered(fields)
    assert _fits(body, f"{{{name}}}"), f"our own {name} is wrong: {body}"
    return msgpack.packb(body, use_bin_type=True)  # type: ignore[no-any-return]


def decoded(data: bytes) -> Any:
    """What msgpack of the protocol's types, in its one form, says, or `Refused`."""
    try:
        value = msgpack.unpackb(data, raw=False, use_list=True, strict_map_key=True)
        canonical = msgpack.packb(value, use_bin_type=True) == data
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Refused(f"not msgpack: {error}") from None
    require(canonical and _plain(value), "not canonical")
    return value


def _plain(value: Any) -> bool:
    """Whether it is made of nothing but the protocol's types, the keys of its maps ascending text."""
    if type(value) is dict:
        ascending = all(type(key) is str for key in value) and list(value) == sorted(value)
        return ascending and all(map(_plain, value)) and all(map(_plain, value.values()))
    if type(value) is list:
        return all(map(_plain, value))
    if type(value) is str:
        return value.isascii()
    return type(value) in (bytes, float) or (type(value) is int and value >= 0)


def unpack(name: str, data: bytes) -> Fields:
    """The fields of a body, or `Refused`."""
    value = decoded(data)
    require(_fits(value, f"{{{name}}}"), f"not a {name} body")
    return value  # type: ignore[no-any-return]


# Hashes (sections 2, 4 and 11.1).


def digest(name: str, *parts: bytes, key: bytes = b"", size: int = 32) -> bytes:
    """BLAKE2b with the person of that name."""
    person = f"hushfleet.{name}.1".encode()
    assert len(person) == 16
    return hashlib.blake2b(b"".join(parts), digest_size=size, key=key, person=person).digest()


def key_id(public: bytes) -> bytes:
    """The first 8 bytes of BLAKE2b-256(public key), no key, no person."""
    return hashlib.blake2b(public, digest_size=32).digest()[:8]


def u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


# Signatures and frames.


@dataclass(frozen=True)
class Identity:
    """A signing key and the name that it signs with: a roster index or a key id."""

    signer: int | bytes
    seed: bytes

    @property
    def public(self) -> bytes:
        return sodium.crypto_sign_seed_keypair(self.seed)[0]

    def sign(self, message: bytes) -> bytes:
        secret = sodium.crypto_sign_seed_keypair(self.seed)[1]
        return sodium.crypto_sign(message, secret)[:64]


def signature_holds(signature: bytes, message: bytes, public: bytes) -> bool:
    """Whether an Ed25519 signature is that key's over the message."""
    try:
        sodium.crypto_sign_open(signature + message, public)
    except Exception:  # PyNaCl has one class for a bad signature and others for a key that is no key.
        return False
    return True


def signed_bytes(kind: str, fleet: bytes, body: bytes) -> bytes:
    """What is signed and hashed: "hushfleet." ‖ type ‖ 0 ‖ fleet ‖ body."""
    return b"hushfleet." + kind.encode() + b"\0" + fleet + body


@dataclass(frozen=True)
class Frame:
    """A frame as it was received."""

    kind: str
    fleet: bytes
    body: bytes
    signatures: tuple[tuple[int | bytes, bytes], ...]
    fields: Fields

    @property
    def hash(self) -> bytes:
        """The "X hash" of this body."""
        return digest("body", signed_bytes(self.kind, self.fleet, self.body))

    @property
    def raw(self) -> bytes:
        pairs = [[signer, signature] for signer, signature in self.signatures]
        return msgpack.packb([self.kind, self.body, pairs], use_bin_type=True)  # type: ignore[no-any-return]

    def holds(self, signer: int | bytes, public: bytes) -> bool:
        """Whether that signer's signature is there and right."""
        found = dict(self.signatures).get(signer)
        message = signed_bytes(self.kind, self.fleet, self.body)
        return found is not None and signature_holds(found, message, public)


def make(kind: str, fleet: bytes, fields: Fields, *signers: Identity) -> Frame:
    """A signed frame; a message gets its `from`."""
    if kind in MESSAGES:
        assert len(signers) == 1
        fields = {**fields, "from": signers[0].signer}
    body = pack(kind, fields)
    message = signed_bytes(kind, fleet, body)
    signatures = tuple(sorted((one.signer, one.sign(message)) for one in signers))
    return Frame(kind, fleet, body, signatures, unpack(kind, body))


def parse(payload: bytes, fleet: bytes, *kinds: str) -> Frame:
    """A frame of one of these types, not yet verified; a message's only signer is its sender."""
    value = decoded(payload)
    require(type(value) is list and len(value) == 3, "not a frame")
    kind, body, pairs = value
    require(kind in kinds and type(body) is bytes and type(pairs) is list and len(pairs) <= 32, f"no {kinds} frame")
    for pair in pairs:
        require(type(pair) is list and len(pair) == 2, "a signature is a pair")
        signer, signature = pair
        require(type(signature) is bytes and len(signature) == 64, "a signature has 64 bytes")
        by_index = type(signer) is int and 0 <= signer < 2**32
        require(by_index or (type(signer) is bytes and len(signer) == 8), "a signer is an index or a key id")
        require(type(signer) is type(pairs[0][0]), "signers of two sorts")
    signers = [pair[0] for pair in pairs]
    require(all(a < b for a, b in pairwise(signers)), "signers do not ascend")
    fields = unpack(kind, body)
    if kind in MESSAGES:
        require(signers == [fields["from"]], "the only signer is not the sender")
    if kind in ("committee", "roster", "policy", "model", "profile", "schema", "header", "chunks"):
        require(not pairs, f"a {kind} carries no signature")
    if kind in DOCUMENTS:
        require(fields["fleet"] == fleet and fields["protocol"] == 1, "another fleet's, or another protocol")
    return Frame(kind, fleet, body, tuple((a, b) for a, b in pairs), fields)


def claim(identity: Identity, fleet: bytes, roster: bytes, plan: bytes, number: int, y: bytes, upload: bytes) -> bytes:
    """The claim's signature."""
    assert isinstance(identity.signer, int)
    return identity.sign(claim_bytes(fleet, roster, plan, number, identity.signer, y, upload))


def claim_bytes(fleet: bytes, roster: bytes, plan: bytes, number: int, index: int, y: bytes, upload: bytes) -> bytes:
    """What a participant signs of its upload: 140 bytes and their prefix."""
    return signed_bytes("upload", fleet, roster + plan + u64(number) + u32(index) + y + upload)


# Sealed boxes: libsodium's own, for the specification says that its box is that one.


def sealed(plain: bytes, to: bytes) -> bytes:
    return sodium.crypto_box_seal(plain, to)


def unsealed(box: bytes, secret: bytes) -> bytes:
    """The plain text, or `Refused`."""
    try:
        return sodium.crypto_box_seal_open(box, sodium.crypto_scalarmult_base(secret), secret)
    except Exception as error:
        raise Refused(f"a box that does not open: {error}") from None


# Chunks (11.5).

CHUNKS_MARK = b"\x93\xa6chunks"
LARGEST = 61_440


def slices(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def chunk_hash(piece: bytes) -> bytes:
    return digest("chnk", piece, size=16)


def upload_hash(length: int, hashes: bytes) -> bytes:
    return digest("upld", u32(length), hashes)


def chunked(payload: bytes, fleet: bytes, size: int) -> list[bytes]:
    """Payloads of chunk 0, 1, …: the message itself if it fits in one."""
    if len(payload) <= size:
        return [payload]
    pieces = slices(payload, size)
    fields = {"length": len(payload), "size": size, "hashes": b"".join(map(chunk_hash, pieces))}
    return [make("chunks", fleet, fields).raw, *pieces]


def pieces_of(header: Fields, at_most: int) -> list[tuple[bytes, int]]:
    """(hash, length) of every slice that a `header` or `chunks` announces, or `Refused`."""
    length, size = header["length"], header["size"]
    hashes = slices(header["hashes"], 16)
    require(256 <= size <= LARGEST and 0 < length <= at_most, "a size out of range")
    require(len(hashes) == -(-length // size), "not as many hashes as slices")
    return [(one, min(size, length - at * size)) for at, one in enumerate(hashes)]


def joined(pieces: list[tuple[bytes, int]], have: dict[int, bytes]) -> bytes | None:
    """The whole, as soon as every slice is there and right; wrong ones are dropped. `have[j]` is chunk j + 1."""
    for at, (wanted, length) in enumerate(pieces):
        if at in have and (len(have[at]) != length or chunk_hash(have[at]) != wanted):
            del have[at]
    return b"".join(have[at] for at in range(len(pieces))) if len(have) == len(pieces) else None


# Topics (messaging.md).


def prefix(fleet: bytes) -> str:
    """`hf/F`."""
    return "hf/" + base64.b32encode(fleet[:5]).decode().lower()
