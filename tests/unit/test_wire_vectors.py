"""The golden vectors: the code makes and takes them, and a second, slow writing agrees with every byte."""

import json
import math
import re
import struct
from base64 import b32encode
from hashlib import blake2b
from typing import Any

import make_vectors
import pytest
import second_writing as book
from described_fleet import WIRE
from nacl.public import PrivateKey, SealedBox
from refused_bodies import DOCUMENTS
from second_writing import TABLES, VECTORS, conforms, hashed, little, packed, readable, signed, unpacked, words

from hushfleet.wire import canonical, framing
from hushfleet.wire.framing import Array, Binary, Frame, Nested, OneOf, Real, Text, Unsigned
from hushfleet.wire.layers import ANY_LAYER

PAGE = VECTORS.parent.parent / "docs" / "protocol.md"
GOLDEN = {name: json.loads((VECTORS / f"{name}.json").read_text()) for name in make_vectors.golden()}
LAYERS = {table.KIND for table in ANY_LAYER.tables}
PARTS = {"doc", "cert", "firmware", "channel", "standardised", "metrics", *LAYERS}
"""Tables that stand in others only."""
FLEET = bytes.fromhex(GOLDEN["documents"]["fleet"])
FRAMES = [entry for name in ("documents", "setup", "round") for entry in GOLDEN[name]["frames"]]
BY_NAME = {entry["name"]: entry for entry in FRAMES}
SEEDS: dict[int | str, bytes] = {
    device["index"]: bytes.fromhex(device["seed"]) for device in GOLDEN["documents"]["devices"]
} | {key["id"]: bytes.fromhex(key["seed"]) for keys in GOLDEN["documents"]["owner_keys"].values() for key in keys}


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


def number(text: str) -> int:
    return int.from_bytes(octets(text), "little")


def field(name: str, key: str) -> Any:
    return BY_NAME[name]["fields"][key]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_files_are_those_the_generator_writes(name: str) -> None:
    assert (VECTORS / f"{name}.json").read_text() == make_vectors.written(make_vectors.golden()[name])


# ---- tables


def written_type(kind: framing.FieldType) -> str:
    match kind:
        case Unsigned(bits):
            return f"u{bits}"
        case Binary(None, 1):
            return "b"
        case Binary(None, multiple):
            return f"b{multiple}*"
        case Binary(size):
            return f"b{size}"
        case Text():
            return "s"
        case Real():
            return "f"
        case Array(item):
            return f"[{written_type(item)}]"
        case Nested(table):
            return "{" + table.KIND + "}"
        case OneOf(name):
            return "{" + name + "}"
    raise AssertionError(kind)


def test_every_table_is_that_of_the_specification() -> None:
    code = {
        kind: [(wire, written_type(field_type)) for _, wire, field_type in framing._columns(table)]
        for kind, table in WIRE.items()
    }
    assert code == {kind: list(fields.items()) for kind, fields in TABLES.items()}


def test_the_tables_are_those_that_the_protocol_s_page_shows() -> None:
    """docs/protocol.md, sections 11.2 to 11.4, with the fields that every document or message has besides."""
    page = PAGE.read_text().split("### 11.2 ")[1].split("### 11.5 ")[0]
    shown: dict[str, dict[str, str]] = {}
    for name, text in re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE):
        fields = (
            re.match(r"`(\w+)` (u\d+|b\d*\*?|s|f|\[[^]]+\]|\{\w+\})(?=[ .,;]|$)", part) for part in text.split(" · ")
        )
        shown[name] = dict(found.groups() for found in fields if found)  # type: ignore[misc]
    for name in shown:
        if name in DOCUMENTS:
            shown[name] |= {"fleet": "b16", "issued": "u64", "protocol": "u8", "version": "u32"}
        elif name not in (*PARTS, "transcript", "header", "chunks"):
            shown[name] |= {"from": "u32"}
    assert shown == TABLES


def test_every_table_that_stands_alone_has_a_golden_frame() -> None:
    assert set(WIRE) - PARTS == {entry["type"] for entry in FRAMES}


@pytest.mark.parametrize("case", GOLDEN["framing"], ids=lambda case: str(case["value"])[:20])
def test_msgpack_has_one_form(case: dict[str, Any]) -> None:
    value = canonical.decode(octets(case["encoded"]))
    assert canonical.encode(value) == packed(value) == octets(case["encoded"])
    assert readable(value) == case["value"]
    assert type(value).__name__ == case["type"]


# ---- frames


@pytest.mark.parametrize("entry", FRAMES, ids=lambda entry: entry["name"])
def test_the_code_reads_and_writes_every_frame(entry: dict[str, Any]) -> None:
    data = octets(entry["frame"])
    frame = Frame.from_bytes(data)
    table = framing.read(frame, WIRE[entry["type"]])
    assert table.to_body() == frame.body == octets(entry["body"])
    assert frame.to_bytes() == data
    assert frame.hash(FLEET).hex() == entry["hash"]


@pytest.mark.parametrize("entry", FRAMES, ids=lambda entry: entry["name"])
def test_the_second_writing_makes_every_frame(entry: dict[str, Any]) -> None:
    kind, body = entry["type"], octets(entry["body"])
    assert body == packed(unpacked(body))
    assert conforms(unpacked(body), "{" + kind + "}")
    assert readable(unpacked(body)) == entry["fields"]
    message = signed(kind, FLEET, body)
    assert hashed("body", message).hex() == entry["hash"]
    signatures = []
    for signature in entry["signatures"]:
        signer = signature["signer"]
        assert book.signature(SEEDS[signer], message).hex() == signature["signature"]
        signatures.append([signer if isinstance(signer, int) else octets(signer), octets(signature["signature"])])
    assert packed([kind, body, signatures]) == octets(entry["frame"])
    if "from" in entry["fields"]:
        assert [signer for signer, _ in signatures] == [entry["fields"]["from"]]


def test_keys_have_their_ids() -> None:
    for keys in GOLDEN["documents"]["owner_keys"].values():
        for key in keys:
            assert book.public_key(octets(key["seed"])).hex() == key["key"]
            assert blake2b(octets(key["key"]), digest_size=32).hexdigest()[:16] == key["id"]


def test_the_manifest_vouches_for_hash_and_length() -> None:
    for entry in BY_NAME["manifest"]["fields"]["docs"]:
        document = BY_NAME[entry["name"]]
        assert not document["signatures"]
        assert (entry["hash"], entry["length"]) == (document["hash"], len(octets(document["frame"])))
        assert entry["version"] == document["fields"]["version"]
    assert field("date", "manifest") == BY_NAME["manifest"]["hash"]


def test_a_roster_line_is_index_key_roles_profile_and_date() -> None:
    roster, lines = BY_NAME["roster"]["fields"], octets(field("roster", "devices"))
    for device, at in zip(GOLDEN["documents"]["devices"][1:], range(0, len(lines), 46), strict=True):
        profile = roster["profiles"].index("gateway-2g" if device["index"] > 500 else "gateway-wifi")
        expected = little(device["index"], 4) + octets(device["key"]) + bytes((device["roles"], profile))
        assert lines[at : at + 38] == expected
        assert int.from_bytes(lines[at + 38 : at + 46], "little") == 1_700_000_000 + 10 * 365 * 86_400


# ---- the set-up


def test_cards_hold_a_key_for_every_other_candidate_and_the_chain_s_end() -> None:
    for member in GOLDEN["setup"]["members"]:
        link = octets(member["nonce"])
        for expected in member["links"]:
            assert link.hex() == expected
            link = hashed("link", link)
        card = BY_NAME[f"card of {member['member']}"]["fields"]
        assert card["anchor"] == member["links"][field("call", "rounds")]
        keys = [PrivateKey(octets(secret)).public_key for secret in member["seal_secrets"].values()]
        assert card["seal"] == b"".join(map(bytes, keys)).hex()


def test_the_list_names_cards_by_hash() -> None:
    cards = [(m["member"], BY_NAME[f"card of {m['member']}"]["hash"]) for m in GOLDEN["setup"]["members"]]
    assert field("list", "cards") == "".join(little(member, 4).hex() + card for member, card in cards)


def test_sheets_are_drawn_committed_and_shared_as_the_book_says() -> None:
    list_hash = octets(BY_NAME["list"]["hash"])
    members = GOLDEN["setup"]["members"]
    for member in members:
        points = [octets(member["points"])[at : at + 32] for at in range(0, len(octets(member["points"])), 32)]
        assert field(f"key of {member['member']}", "points") == member["points"]
        for k, polynomial in enumerate(member["coefficients"]):
            for j, coefficient in enumerate(polynomial):
                material = octets(member["random"]) + list_hash + little(k, 2) + little(j, 2)
                wide = hashed("draw", material, key=octets(member["vault_secret"]), size=64)
                assert number(coefficient) == int.from_bytes(wide, "little") % book.ORDER
                assert points[k * len(polynomial) + j] == book.point_bytes(
                    book.multiply(number(coefficient), book.BASE)
                )
            for position, other in enumerate(members, start=1):
                share = number(member["shares_dealt"][str(other["member"])][k])
                assert share == book.share([number(a) for a in polynomial], position)


def test_boxes_are_libsodium_s_sealed_boxes() -> None:
    for box in GOLDEN["setup"]["boxes"]:
        dealer, member = (
            next(m for m in GOLDEN["setup"]["members"] if m["member"] == box[end]) for end in ("from", "to")
        )
        sealed = octets(field(f"box of {box['from']} for {box['to']}", "box"))
        secret = PrivateKey(octets(member["seal_secrets"][str(box["from"])]))
        content = SealedBox(secret).decrypt(sealed)
        key_hash = octets(BY_NAME[f"key of {box['from']}"]["hash"])
        shares = "".join(dealer["shares_dealt"][str(box["to"])])
        assert content == key_hash + little(box["from"], 4) + little(box["to"], 4) + octets(shares)
        assert content.hex() == box["content"]
        assert sealed[:32] == bytes(PrivateKey(octets(box["ephemeral"])).public_key)


def test_the_transcript_holds_the_leaves_of_the_points() -> None:
    transcript, threshold = BY_NAME["transcript"]["fields"], GOLDEN["setup"]["threshold"]
    members = GOLDEN["setup"]["members"]
    leaves = []
    for k in range(transcript["rounds"]):
        at = 32 * k * threshold
        points = b"".join(octets(member["points"])[at : at + 32] for member in members)
        leaves.append(hashed("leaf", little(transcript["epoch"], 4) + little(k, 2) + points))
        if k == field("plan", "round") - transcript["first"]:
            assert field("plan", "points") == points.hex()
    assert transcript["leaves"] == b"".join(leaves).hex()
    assert transcript["keys"] == "".join(BY_NAME[f"key of {m['member']}"]["hash"] for m in members)
    assert transcript["members"] == "".join(little(m["member"], 4).hex() for m in members)
    assert field("plan", "transcript") == BY_NAME["transcript"]["hash"]


# ---- the round


def test_claims_and_upload_hashes() -> None:
    survivors = octets(field("survivors", "entries"))
    for at, claim in enumerate(GOLDEN["round"]["claims"]):
        header, data = BY_NAME[f"header of {claim['index']}"]["fields"], octets(claim["upload"])
        slices = [data[start : start + header["size"]] for start in range(0, len(data), header["size"])]
        assert header["hashes"] == b"".join(hashed("chnk", piece, size=16) for piece in slices).hex()
        assert header["length"] == len(data)
        upload_hash = hashed("upld", little(len(data), 4) + octets(header["hashes"]))
        layout = octets(BY_NAME["roster"]["hash"]) + octets(BY_NAME["plan"]["hash"]) + little(header["round"], 8)
        layout += little(claim["index"], 4) + octets(header["y"]) + upload_hash
        assert layout.hex() == claim["claim"]
        assert len(layout) == 140
        signature = book.signature(SEEDS[claim["index"]], signed("upload", FLEET, layout))
        assert signature.hex() == header["sig"] == claim["signature"]
        line = little(claim["index"], 4) + octets(header["y"]) + upload_hash + signature
        assert survivors[132 * at : 132 * at + 132] == line


def test_answers_are_sealed_to_the_coordinator() -> None:
    secret = PrivateKey(octets(GOLDEN["documents"]["devices"][0]["seal_secret"]))
    assert GOLDEN["documents"]["devices"][0]["roles"] == 4
    names = {"answer": "mask sum of", "share": "share of", "decline": "decline"}
    for sealed in GOLDEN["round"]["sealed_to_coordinator"]:
        kind, _, who = sealed["name"].partition(" ")
        frame = SealedBox(secret).decrypt(octets(sealed["sealed"]))
        assert frame.hex() == BY_NAME[f"{names[kind]} {who}".strip()]["frame"]


def test_masks_are_what_both_sides_derive() -> None:
    """y, seeds and keystreams by hand; uploads minus mask sums open to the sum of the residues."""
    masking = GOLDEN["masking"]
    plan_hash = octets(masking["plan_hash"])
    opened = [0] * 128
    tail = [0] * 8
    sums = {member["member"]: ([0] * 128, [0] * 8) for member in masking["members"]}
    for participant in masking["participants"]:
        plain, index = octets(participant["plain"]), participant["index"]
        assert hashed("body", plain).hex() == participant["plain_hash"]
        material = octets(participant["random"]) + plan_hash + hashed("body", plain)
        wide = hashed("draw", material, key=octets(participant["vault_secret"]), size=64)
        y = int.from_bytes(wide, "little") % book.ORDER
        assert y == number(participant["y"])
        assert book.point_bytes(book.multiply(y, book.BASE)).hex() == participant["Y"]
        body, lanes = book.vector_of(plain, 128)
        opened = [a + q for a, q in zip(opened, body, strict=True)]
        tail = [a + q for a, q in zip(tail, lanes, strict=True)]
        for pair, member in zip(participant["pairs"], masking["members"], strict=True):
            point, their = book.point_of(octets(member["point"])), book.point_of(octets(participant["Y"]))
            shared = book.point_bytes(book.multiply(y, point))
            assert shared == book.point_bytes(book.multiply(number(member["secret"]), their)) == octets(pair["shared"])
            bound = FLEET + plan_hash + little(masking["round"], 8) + little(index, 4) + little(member["member"], 4)
            seed = hashed("seed", bound + octets(participant["Y"]) + octets(member["point"]), key=shared)
            assert seed.hex() == pair["seed"]
            mask = book.mask(seed, 128, 8)
            assert book.vector_bytes(*mask).hex() == pair["mask"]
            body = [a + b for a, b in zip(body, mask[0], strict=True)]
            lanes = [a + b for a, b in zip(lanes, mask[1], strict=True)]
            mine = sums[member["member"]]
            sums[member["member"]] = (
                [a + b for a, b in zip(mine[0], mask[0], strict=True)],
                [a + b for a, b in zip(mine[1], mask[1], strict=True)],
            )
        assert book.vector_bytes(body, lanes).hex() == participant["upload"]
    for member in masking["members"]:
        assert book.vector_bytes(*sums[member["member"]]).hex() == member["mask_sum"]
        assert field(f"mask sum of {member['member']}", "sum") == member["mask_sum"]
    assert book.vector_bytes(opened, tail).hex() == masking["total"]
    residues = [(q + 2**15) % 2**16 - 2**15 for q in opened]
    assert residues == masking["residues"] + [0] * (128 - 81)
    weights = [word | 1 for word in words(book.generated(8 * 135, octets(masking["checksum_seed"])), 8)]
    assert sum(u * q for u, q in zip(weights, residues + tail[:7], strict=True)) % 2**64 == tail[7] % 2**64


def test_a_lost_member_s_scalar_comes_back_from_its_shares() -> None:
    recovery = GOLDEN["masking"]["recovery"]
    shares = [(share["position"], number(share["share"])) for share in recovery["shares"]]
    assert book.secret(shares) == number(recovery["secret"])
    lost = next(m for m in GOLDEN["masking"]["members"] if m["member"] == recovery["lost"])
    assert recovery["secret"] == lost["secret"]
    assert book.point_bytes(book.multiply(number(recovery["secret"]), book.BASE)).hex() == recovery["commitments"][0]
    for position, share in shares:
        a_0, a_1 = (book.point_of(octets(point)) for point in recovery["commitments"])
        assert book.add(a_0, book.multiply(position, a_1)) == book.multiply(share, book.BASE)


def single(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def floats(text: str) -> list[float]:
    return list(struct.unpack(f"<{len(text) // 8}f", octets(text)))


def test_the_next_version_is_rounded_once() -> None:
    delta, result = BY_NAME["delta"]["fields"], BY_NAME["result: applied"]["fields"]
    residues = GOLDEN["masking"]["residues"]
    base, after = floats(GOLDEN["round"]["base"]), floats(GOLDEN["round"]["snapshot"])
    for weight, q, expected in zip(base, residues, after, strict=True):
        step = float(q) * delta["step"] / (delta["weight"] / 65_536) * delta["rate"]
        assert single(weight + single(step)) == expected
    assert delta["step"] == 1.25 * 100 / (32_767 - 100) == field("plan", "step")
    assert hashed("modl", octets(GOLDEN["round"]["base"])).hex() == field("plan", "base_hash") == field("model", "zero")
    assert hashed("modl", octets(GOLDEN["round"]["snapshot"])).hex() == result["version_hash"]
    assert (result["delta"], result["plan"]) == (BY_NAME["delta"]["hash"], BY_NAME["plan"]["hash"])
    included = number(result["included"])
    assert [index for index in range(400) if included >> index & 1] == [9, 300]


def test_acks_hold_the_link_of_their_round() -> None:
    anchor_at, k = field("call", "rounds"), field("plan", "round") - field("call", "first")
    for member in GOLDEN["setup"]["members"][:2]:
        link = octets(field(f"ack of {member['member']}", "link"))
        assert link.hex() == member["links"][anchor_at - 1 - k]
        for _ in range(k + 1):
            link = hashed("link", link)
        assert link.hex() == field(f"card of {member['member']}", "anchor")


# ---- hashes, generator, version 0, topics


def test_hashes() -> None:
    golden = GOLDEN["hashes"]
    assert {name: hashed(name, b"abc").hex() for name in golden["purposes"]} == golden["purposes"]
    assert hashed("draw", b"abc", key=bytes(range(32)), size=64).hex() == golden["keyed_64"]
    chunks = golden["chunks"]
    data = octets(chunks["data"])
    slices = [data[at : at + chunks["size"]] for at in range(0, len(data), chunks["size"])]
    hashes = [hashed("chnk", piece, size=16) for piece in slices]
    assert [digest.hex() for digest in hashes] == chunks["chunk_hashes"]
    assert hashed("upld", little(len(data), 4) + b"".join(hashes)).hex() == chunks["upload_hash"]
    assert octets(chunks["bitmap_of_missing_2"]) == b"\x04"
    for pick in golden["pick"]:
        value = int.from_bytes(hashed("pick", octets(pick["plan_hash"]) + little(pick["index"], 4))[:4], "little")
        assert (value, value < 2**31) == (pick["value"], pick["picked_by_half"])
    weights = golden["checksum_weights"]
    assert hashed("chks", octets(weights["plan_hash"])).hex() == weights["seed"]
    assert [word | 1 for word in words(book.generated(64, octets(weights["seed"])), 8)] == weights["first"]
    for run in golden["generator"]:
        assert book.generated(run["size"], octets(run["seed"])).hex() == run["bytes"]


@pytest.mark.parametrize("model", GOLDEN["hashes"]["version_0"], ids=lambda model: model["name"])
def test_version_0_takes_one_stream_layer_by_layer(model: dict[str, Any]) -> None:
    blocks = [block for layer in model["layers"] for block in book.blocks(layer)]
    stream = iter(words(book.generated(4 * sum(count for count, fans, _ in blocks if fans), octets(model["init"])), 4))
    flat: list[float] = []
    for count, fans, start in blocks:
        limit = single(math.sqrt(6 / fans)) if fans else 0.0
        flat += [single(single((next(stream) >> 8) * 2.0**-23 - 1) * limit) if fans else start for _ in range(count)]
    assert struct.pack(f"<{len(flat)}f", *flat).hex() == model["flat"]
    assert hashed("modl", octets(model["flat"])).hex() == model["hash"]


def test_topics_begin_with_the_fleet() -> None:
    golden = GOLDEN["topics"]
    assert b32encode(FLEET[:5]).decode().lower() == golden["head"]
    assert all(topic.startswith(f"hf/{golden['head']}/") for topic in golden["topics"].values())
    assert golden["topics"]["share of 700"] == f"hf/{golden['head']}/up/0/2/share/5000000001.700/0"
