"""Frames and bodies that no decoder may take, each with the rule of docs/protocol.md and the reason."""

from collections.abc import Iterator
from typing import Any

import golden_fleet
import golden_round
import msgpack
from second_writing import TABLES

Case = dict[str, Any]
Fields = dict[str, Any]
DROPPED: Any = object()
DOCUMENTS = ("root", "manifest", "date", "committee", "roster", "policy", "model", "profile", "schema", "certificate")


def case(rule: str, why: str, **hexed: Any) -> Case:
    """One vector; bytes become hex."""
    return {"rule": rule, "why": why} | {k: v.hex() if isinstance(v, bytes) else v for k, v in hexed.items()}


def _raw(value: Any) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


# ---- frames


def frames() -> Iterator[Case]:
    one, two, key = [1, bytes(64)], [2, bytes(64)], [bytes(8), bytes(64)]
    good = _raw(["plan", b"\x80", [one]])
    wrong: list[tuple[str, bytes]] = [
        ("nothing at all", b""),
        ("cut short", good[:-1]),
        ("a byte follows", good + b"\0"),
        ("no array", _raw({"type": "plan"})),
        ("an array of two", _raw(["plan", b"\x80"])),
        ("an array of four", _raw(["plan", b"\x80", [], []])),
        ("the type is no text", _raw([b"plan", b"\x80", []])),
        ("the type is not ASCII", _raw(["plän", b"\x80", []])),
        ("the type is not even UTF-8", b"\x93\xa1\xff\xc4\x01\x80\x90"),
        ("the type is longer than 64", _raw(["p" * 65, b"\x80", []])),
        ("the body is a map, not bytes", _raw(["plan", {}, []])),
        ("the body is text", _raw(["plan", "\x00", []])),
        ("the signatures are nil", _raw(["plan", b"\x80", None])),
        ("the signatures are a map", _raw(["plan", b"\x80", {1: bytes(64)}])),
        ("33 signatures", _raw(["plan", b"\x80", [[index, bytes(64)] for index in range(33)]])),
        ("signers descend", _raw(["plan", b"\x80", [two, one]])),
        ("a signer twice", _raw(["plan", b"\x80", [one, one]])),
        ("a key id twice", _raw(["plan", b"\x80", [key, key]])),
        ("an index and a key id", _raw(["plan", b"\x80", [one, key]])),
        ("a signer above u32", _raw(["plan", b"\x80", [[2**32, bytes(64)]]])),
        ("a negative signer", _raw(["plan", b"\x80", [[-1, bytes(64)]]])),
        ("a signer that is true", _raw(["plan", b"\x80", [[True, bytes(64)]]])),
        ("a signer that is text", _raw(["plan", b"\x80", [["1", bytes(64)]]])),
        ("a key id of 7 bytes", _raw(["plan", b"\x80", [[bytes(7), bytes(64)]]])),
        ("a whole key as key id", _raw(["plan", b"\x80", [[bytes(32), bytes(64)]]])),
        ("a signature of 63 bytes", _raw(["plan", b"\x80", [[1, bytes(63)]]])),
        ("a signature of 65 bytes", _raw(["plan", b"\x80", [[1, bytes(65)]]])),
        ("a signature without its signer", _raw(["plan", b"\x80", [[bytes(64)]]])),
        ("array16 where the short form fits", b"\xdc\x00\x03" + good[1:]),
        ("str8 where the short form fits", b"\x93\xd9\x04plan" + good[6:]),
        ("bin16 where bin8 fits", b"\x93\xa4plan\xc5\x00\x01\x80\x90"),
        ("the signer in a long form", b"\x93\xa4plan\xc4\x01\x80\x91\x92\xcc\x01\xc4\x40" + bytes(64)),
        ("nested a thousand deep", b"\x91" * 1_000 + b"\x90"),
        ("an array that claims 2^32 - 1 entries", b"\xdd\xff\xff\xff\xff" + bytes(64)),
        ("a map that claims 2^32 - 1 entries", b"\xdf\xff\xff\xff\xff" + bytes(64)),
        ("a body that claims 2^32 - 1 bytes", b"\x93\xa4plan\xc6\xff\xff\xff\xff" + bytes(64)),
        ("a type that claims 2^32 - 1 bytes", b"\x93\xdb\xff\xff\xff\xff" + bytes(64)),
        ("the byte that msgpack never uses", b"\x93\xa4plan\xc1\x90"),
    ]
    for why, frame in wrong:
        yield case("11.1", why, frame=frame)


# ---- bodies


def golden_bodies() -> dict[str, bytes]:
    """One valid body of each type that stands alone."""
    owned, setup, played = golden_fleet.documents(), golden_fleet.setup(), golden_round.played()
    frames = [
        owned.root, owned.manifest, owned.date, *owned.documents.values(), owned.certificate,
        setup.call, setup.cards[2], setup.card_list, setup.keys[2], setup.boxes[2, 3], setup.transcript,
        setup.complaint, played.plan, played.uploads[9].header, played.chunks, played.receipts["accepted"],
        played.decline,
        played.survivors, played.acks[2], played.acks_frame, played.answers[2], played.requests[2], played.shares[2],
        played.blame, played.result, played.sums, played.delta,
    ]  # fmt: skip
    return {frame.kind: frame.body for frame in frames}


def with_change(table: str, /, **changes: Any) -> bytes:
    """The golden body of that type with fields replaced, dropped or added, in the order of the wire."""
    fields: Fields = msgpack.unpackb(golden_bodies()[table]) | changes
    return _raw({name: fields[name] for name in sorted(fields) if fields[name] is not DROPPED})


def bodies() -> Iterator[Case]:
    for rule, make in (
        ("11.1", _wrong_types),
        ("11.2", _wrong_documents),
        ("11.3", _wrong_setup),
        ("11.4", _wrong_round),
    ):
        for kind, why, body in make():
            yield case(rule, why, type=kind, body=body)


def _wrong_types() -> Iterator[tuple[str, str, bytes]]:
    """The types of section 11.1, each in a table that has it; then every table without a field, and with one more."""
    for kind, why, name, value in [
        ("transcript", "256 is no u8", "f", 256),
        ("plan", "65,536 is no u16", "steps", 65_536),
        ("call", "2^32 is no u32", "epoch", 2**32),
        ("call", "a negative integer", "first", -1),
        ("decline", "true is no integer", "reason", True),
        ("decline", "nil", "reason", None),
        ("call", "a float is no integer", "epoch", 7.0),
        ("plan", "an integer is no float64", "rate", 1),
        ("plan", "not a number", "rate", float("nan")),
        ("plan", "infinite", "rate", float("inf")),
        ("plan", "minus infinite", "momentum", float("-inf")),
        ("plan", "bytes are no float64", "rate", bytes(8)),
        ("ack", "31 bytes are no b32", "link", bytes(31)),
        ("ack", "33 bytes are no b32", "link", bytes(33)),
        ("ack", "no bytes are no b32", "link", b""),
        ("ack", "text is no b32", "link", "x" * 32),
        ("header", "63 bytes are no b64", "sig", bytes(63)),
        ("date", "15 bytes are no b16", "fleet", bytes(15)),
        ("roster", "3 bytes are no b4*", "revoked", bytes(3)),
        ("header", "15 bytes are no b16*", "hashes", bytes(15)),
        ("plan", "31 bytes are no b32*", "points", bytes(31)),
        ("list", "35 bytes are no b36*", "cards", bytes(35)),
        ("roster", "45 bytes are no b46*", "devices", bytes(45)),
        ("survivors", "131 bytes are no b132*", "entries", bytes(131)),
        ("masksum", "text is no b", "sum", "x"),
        ("model", "bytes are no s", "name", b"golden"),
        ("model", "65 characters are no s", "name", "x" * 65),
        ("model", "not ASCII", "name", "modèle"),
        ("acks", "a map is no array", "acks", {}),
        ("acks", "an array of text", "acks", ["x"]),
        ("root", "an array of 31 bytes", "signer", [bytes(31)]),
        ("certificate", "an array is no map", "cert", []),
        ("result", "a table inside with a field more", "metrics", {"correct": 0}),
        ("plan", "an extension", "kind", msgpack.ExtType(1, b"x")),
        ("plan", "a timestamp", "opens", msgpack.Timestamp(1)),
    ]:
        yield kind, f"{name}: {why}", with_change(kind, **{name: value})
    decline = msgpack.unpackb(golden_bodies()["decline"])
    pairs = [_raw(name) + _raw(decline[name]) for name in sorted(decline)]
    yield "decline", "fields in another order", b"\x83" + pairs[1] + pairs[0] + pairs[2]
    yield "decline", "a field twice", b"\x84" + b"".join(pairs) + pairs[2]
    yield "decline", "map16 where the short form fits", b"\xde\x00\x03" + b"".join(pairs)
    yield "decline", "a key as bytes", b"\x83" + b"\xc4\x04from" + pairs[0][5:] + pairs[1] + pairs[2]
    yield "decline", "a key as str8", b"\x83" + b"\xd9\x04" + pairs[0][1:] + pairs[1] + pairs[2]
    yield "decline", "an integer as a key", b"\x84\x00\x00" + b"".join(pairs)
    yield "decline", "nil as a key", b"\x84\xc0\x00" + b"".join(pairs)
    for name, long in [
        ("u8", b"\xcc\x02"),
        ("u16", b"\xcd\x00\x02"),
        ("u32", b"\xce\0\0\0\x02"),
        ("u64", b"\xcf" + bytes(7) + b"\x02"),
        ("int8", b"\xd0\x02"),
    ]:
        yield "decline", f"an integer in the long form {name}", b"\x83" + pairs[0] + pairs[1] + _raw("reason") + long
    yield (
        "decline",
        "bin16 where bin8 fits",
        b"\x83" + pairs[0] + _raw("plan") + b"\xc5\x00\x20" + decline["plan"] + pairs[2],
    )
    yield (
        "delta",
        "a float32",
        with_change("delta").replace(_raw("rate") + _raw(1.0), _raw("rate") + b"\xca\x3f\x80\0\0"),
    )
    for kind, body in golden_bodies().items():
        yield kind, "no map", _raw([])
        yield kind, "nothing", b""
        yield kind, "a byte follows", body + b"\0"
        yield kind, "an unknown field", with_change(kind, zzz=0)
        for name in TABLES[kind]:
            yield kind, f"without {name}", with_change(kind, **{name: DROPPED})


def _wrong_documents() -> Iterator[tuple[str, str, bytes]]:
    root = msgpack.unpackb(golden_bodies()["root"])
    keys, doc = root["root"], {"hash": bytes(32), "length": 1, "name": "policy", "version": 1}
    committee = msgpack.unpackb(golden_bodies()["committee"])
    certs, cert = committee["certs"], msgpack.unpackb(golden_bodies()["certificate"])["cert"]
    roster = msgpack.unpackb(golden_bodies()["roster"])
    lines = [roster["devices"][at : at + 46] for at in range(0, len(roster["devices"]), 46)]
    layer = {"act": "none", "in": 2, "kind": "dense", "out": 2}
    mean = {"channels": 1, "kind": "global_average", "length": 2}
    firmware = msgpack.unpackb(golden_bodies()["profile"])["profiles"][0]
    channel = msgpack.unpackb(golden_bodies()["schema"])["channels"][0]
    cases: list[tuple[str, str, Fields]] = [
        *((kind, "version 0", {"version": 0}) for kind in DOCUMENTS if kind != "certificate"),
        *((kind, "protocol 0", {"protocol": 0}) for kind in DOCUMENTS),
        ("root", "no key of a role", {"fresh": []}),
        ("root", "a threshold of 0", {"root_n": 0}),
        ("root", "a threshold above the number of keys", {"signer_n": 2}),
        ("root", "keys descend", {"root": keys[::-1]}),
        ("root", "a key twice in a role", {"root": [keys[0], keys[0], keys[1]]}),
        ("root", "a key in two roles", {"signer": [keys[0]]}),
        ("manifest", "names descend", {"docs": [doc | {"name": "roster"}, doc]}),
        ("manifest", "a name twice", {"docs": [doc, doc]}),
        ("manifest", "no document of that name", {"docs": [doc | {"name": "root"}]}),
        ("manifest", "a document of version 0", {"docs": [doc | {"version": 0}]}),
        ("committee", "no coordinator", {"certs": certs[1:]}),
        ("committee", "two coordinators", {"certs": [certs[0], certs[0] | {"index": 2}]}),
        ("committee", "a mere participant's certificate", {"certs": [*certs, cert | {"index": 800, "roles": 1}]}),
        ("committee", "certificates descend", {"certs": certs[::-1]}),
        ("committee", "revoked indices descend", {"revoked": b"\4\0\0\0\3\0\0\0"}),
        ("committee", "a revoked index twice", {"revoked": b"\4\0\0\0\4\0\0\0"}),
        ("committee", "the coordinator is revoked", {"revoked": b"\1\0\0\0"}),
        ("certificate", "role 0", {"cert": cert | {"roles": 0}}),
        ("certificate", "role 8", {"cert": cert | {"roles": 8}}),
        ("certificate", "a member with a sealing key", {"cert": cert | {"seal": bytes(32)}}),
        ("certificate", "a coordinator without a sealing key", {"cert": cert | {"roles": 4}}),
        ("certificate", "a coordinator with two sealing keys", {"cert": cert | {"roles": 4, "seal": bytes(64)}}),
        ("certificate", "a version that is not the serial", {"cert": cert | {"serial": 9}}),
        ("roster", "devices descend", {"devices": lines[1] + lines[0]}),
        ("roster", "a device twice", {"devices": lines[0] + lines[0]}),
        ("roster", "a profile that is not listed", {"profiles": []}),
        ("roster", "revoked indices descend", {"revoked": b"\4\0\0\0\3\0\0\0"}),
        ("policy", "largest_survivor_set 0", {"largest_survivor_set": 0}),
        ("policy", "largest_survivor_set above 16,383", {"largest_survivor_set": 16_384}),
        ("policy", "smallest_survivor_set 0", {"smallest_survivor_set": 0}),
        ("policy", "smallest_survivor_set above the largest", {"smallest_survivor_set": 101}),
        ("policy", "smallest_survivor_set below colluders + 5, without tiny_fleet", {"tiny_fleet": 0}),
        ("policy", "a weight below 1", {"largest_weight": 0.5}),
        ("policy", "a weight above 4", {"largest_weight": 4.5}),
        ("policy", "a clipping norm of 0", {"clip": 0.0}),
        ("policy", "an audit rate above 1", {"audit_rate": 1.5}),
        ("policy", "a committee of one", {"committee_min": 1, "recoveries": 0}),
        ("policy", "as many recoveries as members", {"recoveries": 3}),
        ("policy", "no honest member can be corrupt-tolerated, without committee_trusted", {"committee_trusted": 0}),
        ("policy", "epochs of 0 rounds", {"epoch_rounds": 0}),
        ("policy", "epochs of 1,025 rounds", {"epoch_rounds": 1025}),
        ("policy", "an epoch age of 0", {"epoch_age": 0}),
        ("policy", "no shards", {"shards": 0}),
        ("policy", "no uploads per base", {"uploads_per_base": 0}),
        ("policy", "groups of 0", {"smallest_group": 0}),
        ("policy", "a negative epsilon", {"epsilon": -1.0}),
        ("policy", "a flag of 2", {"tiny_fleet": 2}),
        ("model", "no layers", {"layers": []}),
        ("model", "layers that do not fit", {"layers": [layer, layer | {"in": 3}]}),
        ("model", "an unknown kind of layer", {"layers": [layer | {"kind": "conv"}]}),
        ("model", "an unknown activation", {"layers": [layer | {"act": "gelu"}]}),
        ("model", "a layer without outputs", {"layers": [layer | {"out": 0}]}),
        *(("model", why, {"layers": layers}) for why, layers in _wrong_layers(layer)),
        ("model", "every layer personal", {"personal": 2}),
        ("model", "more layers personal than there are", {"personal": 3}),
        ("model", "personal layers without parameters", {"layers": [layer, mean], "personal": 1}),
        ("model", "shared layers without parameters", {"layers": [mean | {"channels": 2}, layer], "personal": 1}),
        ("profile", "names that descend", {"profiles": [firmware, firmware | {"name": "a"}]}),
        ("profile", "a name twice", {"profiles": [firmware, firmware]}),
        ("profile", "a chunk below 256", {"profiles": [firmware | {"chunk": 255}]}),
        ("profile", "a chunk above 61,440", {"profiles": [firmware | {"chunk": 61_441}]}),
        ("profile", "no window", {"profiles": [firmware | {"window": 0}]}),
        ("profile", "a window above 64", {"profiles": [firmware | {"window": 65}]}),
        ("profile", "a keepalive below 5", {"profiles": [firmware | {"keepalive": 4}]}),
        ("profile", "a keepalive above an hour", {"profiles": [firmware | {"keepalive": 3_601}]}),
        ("schema", "no channel", {"channels": []}),
        ("schema", "a name twice", {"channels": [channel, channel]}),
        ("schema", "a channel without a name", {"channels": [channel | {"name": ""}]}),
        ("schema", "low above high", {"channels": [channel | {"low": 2.0, "high": 1.0}]}),
        ("schema", "low is high", {"channels": [channel | {"low": 1.0, "high": 1.0}]}),
        *(("schema", why, {"channels": [wrong]}) for why, wrong in _wrong_channels(channel)),
        ("schema", "more than 64 channels", {"channels": [channel | {"name": str(at)} for at in range(65)]}),
        ("schema", "no rate", {"rate": 0.0}),
        ("schema", "no samples", {"samples": 0}),
        ("schema", "no step", {"step": 0}),
        ("schema", "all may be missing", {"missing": 1.0}),
        ("schema", "less than none missing", {"missing": -0.1}),
        ("schema", "a mask of 2", {"mask": 2}),
        ("schema", "windows above 2^20 values", {"samples": 2**19}),
        ("schema", "an unknown task", {"task": "guess"}),
        ("schema", "classes of a forecast", {"classes": ["a", "b"]}),
        ("schema", "one class", {"task": "classes", "classes": ["a"], "horizon": 0}),
        ("schema", "a class twice", {"task": "classes", "classes": ["a", "a"], "horizon": 0}),
        ("schema", "a forecast of now", {"horizon": 0}),
        ("schema", "a horizon of a value", {"task": "value"}),
        ("schema", "a target that is no channel", {"target": 2}),
        ("profile", "a model pinned twice", {"profiles": [firmware | {"models": [bytes(32), bytes(32)]}]}),
    ]  # fmt: skip
    for kind, why, changes in cases:
        yield kind, why, with_change(kind, **changes)


def _wrong_channels(plain: Fields) -> Iterator[tuple[str, Fields]]:
    """Channels that no one may take, beside the plain ones."""
    standardised = {"high": 10_000.0, "kind": "standardised", "low": 300.0, "mean": 812.5, "name": "co2", "sd": 240.25}
    standardised |= {"unit": "ppm"}
    yield "a plain channel that says so", dict(sorted((plain | {"kind": "channel"}).items()))
    yield "a mean without a kind", {name: value for name, value in standardised.items() if name != "kind"}
    yield "standardised without a deviation", {name: value for name, value in standardised.items() if name != "sd"}
    for why, change in (
        ("a channel of an unknown kind", {"kind": "scaled"}),
        ("a mean below the range", {"mean": 299.5}),
        ("a mean above the range", {"mean": 10_000.5}),
        ("no deviation", {"sd": 0.0}),
        ("a range of more than 1,000 deviations", {"sd": 9.6875}),
    ):
        yield why, standardised | change


def _wrong_layers(dense: Fields) -> Iterator[tuple[str, list[Any]]]:
    """Layer lists that no one may take, beside those of dense layers."""
    conv = {"act": "none", "channels": 3, "filters": 4, "kernel": 3, "kind": "conv1d", "length": 12, "stride": 2}

    def changed(layer: Fields, **changes: Any) -> Fields:
        fields = layer | changes
        return {name: fields[name] for name in sorted(fields) if fields[name] is not DROPPED}

    yield "a layer that is no map", [[]]
    yield "a layer without a kind", [changed(dense, kind=DROPPED)]
    yield "a kind that is no text", [changed(dense, kind=1)]
    yield "a dense layer with a kernel", [changed(dense, kernel=3)]
    yield "a dense layer called conv1d", [changed(dense, kind="conv1d")]
    yield "conv1d called dense", [changed(conv, kind="dense")]
    yield "conv1d with inputs", [changed(conv, **{"in": 36})]
    yield "conv1d without a stride", [changed(conv, stride=DROPPED)]
    yield "conv1d with an unknown activation", [changed(conv, act="gelu")]
    yield "conv1d with 65,536 filters", [changed(conv, filters=65_536)]
    for name in ("channels", "filters", "kernel", "length", "stride"):
        yield f"conv1d: {name} of 0", [changed(conv, **{name: 0})]
    yield "conv1d with a kernel longer than its length", [changed(conv, kernel=13)]
    yield "more than 2^20 steps", [changed(conv, length=2**20 + 1, channels=1, kernel=1, stride=65_535)]
    yield "a spread above 2^20", [changed(conv, length=2**19, channels=1, kernel=3, stride=1)]
    pool = {"channels": 3, "kind": "maxpool", "length": 12, "size": 4}
    for kind in ("maxpool", "avgpool"):
        yield f"{kind} with a size of 0", [changed(pool, kind=kind, size=0)]
        yield f"{kind} with a size above its length", [changed(pool, kind=kind, size=13)]
        yield f"{kind} with an activation", [changed(pool, kind=kind, act="relu")]
    depthwise = changed(conv, kind="depthwise_conv1d", filters=DROPPED)
    yield "depthwise_conv1d with filters", [changed(depthwise, filters=3)]
    yield "depthwise_conv1d with a kernel longer than its length", [changed(depthwise, kernel=13)]
    yield "depthwise_conv1d with a spread above 2^20", [changed(depthwise, length=2**18, kernel=3, stride=1)]
    average = changed(pool, kind="global_average", size=DROPPED)
    yield "global_average with a size", [changed(average, size=12)]
    yield "global_average of more than 2^20 values", [changed(average, length=2**19)]
    norm = changed(average, kind="layer_norm", act="none")
    yield "layer_norm without an activation", [changed(norm, act=DROPPED)]
    yield "layer_norm of no channel", [changed(norm, channels=0)]
    gru = changed(average, kind="gru", units=5)
    yield "gru without units", [changed(gru, units=0)]
    yield "gru with an activation", [changed(gru, act="tanh")]
    yield "gru with a spread above 2^20", [changed(gru, length=2**10, channels=1, units=2**10)]
    yield "steps behind gru that are not a dense layer's", [changed(gru, units=6), changed(norm, length=2, channels=2)]
    yield "as many values as the next takes, but other steps", [conv, changed(conv, length=4, channels=5)]
    yield "a sequence of other width than the next dense layer", [conv, changed(dense, **{"in": 21})]
    yield "more parameters than a plan counts", [changed(dense, **{"in": 2**16, "out": 2**16})]


def _wrong_setup() -> Iterator[tuple[str, str, bytes]]:
    call = msgpack.unpackb(golden_bodies()["call"])
    line = msgpack.unpackb(golden_bodies()["list"])["cards"][:36]
    lines = [index.to_bytes(4, "little") + bytes(32) for index in range(33)]
    cases: list[tuple[str, str, Fields]] = [
        ("call", "no rounds", {"rounds": 0}),
        ("call", "1,025 rounds", {"rounds": 1025}),
        ("call", "deadlines out of order", {"keys_by": call["cards_by"]}),
        ("call", "an epoch that ends before its members are ready", {"not_after": call["ready_by"]}),
        ("card", "two equal sealing keys", {"seal": bytes(64)}),
        ("list", "a committee of one", {"cards": line}),
        ("list", "a committee of none", {"cards": b""}),
        ("list", "a committee of 33", {"cards": b"".join(lines)}),
        ("list", "members descend", {"cards": lines[3] + lines[2]}),
        ("list", "a member twice", {"cards": line + line}),
        ("key", "no rounds", {"rounds": 0}),
        ("key", "1,025 rounds", {"rounds": 1025}),
        ("transcript", "members descend", {"members": b"\3\0\0\0\2\0\0\0\4\0\0\0"}),
        ("transcript", "a member twice", {"members": b"\2\0\0\0\2\0\0\0\4\0\0\0"}),
        ("transcript", "a committee of one", {"members": b"\2\0\0\0", "keys": bytes(32), "f": 0}),
        ("transcript", "as many recoveries as members", {"f": 3}),
        ("transcript", "a key hash too few", {"keys": bytes(64)}),
        ("transcript", "a leaf too many", {"leaves": bytes(128)}),
        ("transcript", "no rounds", {"rounds": 0, "leaves": b""}),
        ("complaint", "a secret of 31 bytes", {"secret": bytes(31)}),
    ]
    for kind, why, changes in cases:
        yield kind, why, with_change(kind, **changes)


def _wrong_round() -> Iterator[tuple[str, str, bytes]]:
    plan = msgpack.unpackb(golden_bodies()["plan"])
    result = msgpack.unpackb(golden_bodies()["result"])
    unmoved = {"version": result["base"], "version_hash": result["base_hash"]}
    line = msgpack.unpackb(golden_bodies()["survivors"])["entries"][:132]
    cases: list[tuple[str, str, Fields]] = [
        ("plan", "an unknown kind", {"kind": 2}),
        ("plan", "a sample above 2^32", {"sample": 2**32 + 1}),
        ("plan", "a flag of 2", {"grouped": 2}),
        ("plan", "an unknown codec", {"codec": 2}),
        ("plan", "an unknown tail", {"tail": 2}),
        ("plan", "1 bit", {"bits": 1}),
        ("plan", "17 bits", {"bits": 17}),
        ("plan", "no coordinates", {"coords": 0}),
        ("plan", "closes when it opens", {"closes": plan["opens"]}),
        ("plan", "no time for answers", {"until": plan["closes"]}),
        ("plan", "a clipping norm of 0", {"clip": 0.0}),
        ("plan", "a negative step", {"step": -1.0}),
        ("plan", "negative noise", {"noise": -1.0}),
        ("plan", "a negative learning rate", {"rate": -1.0}),
        *((kind, "chunks of 255 bytes", {"size": 255}) for kind in ("header", "chunks")),
        *((kind, "chunks of 61,441 bytes", {"size": 61_441}) for kind in ("header", "chunks")),
        *((kind, "nothing to send", {"length": 0, "hashes": b""}) for kind in ("header", "chunks")),
        *((kind, "a hash too many", {"hashes": bytes(16 * 9)}) for kind in ("header", "chunks")),
        *((kind, "a length that needs more hashes", {"length": 2**32 - 1}) for kind in ("header", "chunks")),
        ("receipt", "an unknown state", {"state": 3}),
        ("receipt", "an unknown reason", {"state": 1, "reason": 7}),
        ("receipt", "refused without a reason", {"state": 1}),
        ("receipt", "accepted with a reason", {"reason": 1}),
        ("receipt", "accepted, chunks missing", {"missing": b"\1"}),
        ("receipt", "chunks missing, but not which", {"state": 2}),
        ("decline", "no reason", {"reason": 0}),
        ("decline", "an unknown reason", {"reason": 9}),
        ("survivors", "a survivor twice", {"entries": line + line}),
        ("survivors", "survivors descend", {"entries": line + b"\0" + line[1:]}),
        ("result", "an unknown outcome", {"outcome": 4}),
        ("result", "an unknown reason", {"outcome": 1, "reason": 8}),
        ("result", "a bitmap that ends with 0", {"included": result["included"] + b"\0"}),
        ("result", "a new version without a delta", {"delta": bytes(32)}),
        ("result", "applied, the model stayed, and no sums", unmoved | {"delta": bytes(32)}),
        ("result", "aborted with a delta", unmoved | {"outcome": 1}),
        ("result", "aborted, yet the model moved", {"outcome": 1, "delta": bytes(32)}),
        ("result", "a rollback that goes forward", {"outcome": 3, "delta": bytes(32)}),
        ("result", "a rollback to where it was", unmoved | {"outcome": 3, "delta": bytes(32)}),
        ("sums", "of no device", {"devices": 0}),
        ("sums", "in units of nothing", {"top": 0}),
        ("sums", "without a number", {"sums": b""}),
        ("sums", "half a number", {"sums": bytes(12)}),
        ("delta", "1 bit", {"bits": 1}),
        ("delta", "17 bits", {"bits": 17}),
        ("delta", "a step of 0", {"step": 0.0}),
        ("delta", "a negative step", {"step": -0.5}),
        ("delta", "no weight", {"weight": 0}),
    ("delta", "an unknown codec", {"codec": 2}),
    ("delta", "a momentum of 1", {"codec": 1, "momentum": 1.0}),
    ("delta", "momentum with the plain codec", {"momentum": 0.5}),
    ("delta", "a single number for adam", {"adam": [0.99]}),
    ("delta", "three numbers for adam", {"adam": [0.99, 0.001, 0.0]}),
    ("delta", "a second moment that never forgets", {"adam": [1.0, 0.001]}),
    ("delta", "a negative second momentum", {"adam": [-0.5, 0.001]}),
    ("delta", "adam with a tau of 0", {"adam": [0.99, 0.0]}),
    ("delta", "adam with a negative tau", {"adam": [0.99, -0.001]}),
    ("delta", "adam with a tau that is no number", {"adam": [0.99, float("nan")]}),
    ("delta", "adam and a momentum of 1", {"momentum": 1.0, "adam": [0.99, 0.001]}),
    ]  # fmt: skip
    for kind, why, changes in cases:
        yield kind, why, with_change(kind, **changes)
