"""The golden vectors for other implementations. Run as a program it writes tests/vectors/*.json anew.

Bytes are hex, integers in layouts little-endian, floats in their shortest form. codec.json is written by
codec_reference.py; tables.toml is written by hand.
"""

import json
from typing import Any

import described_fleet
import described_statistics
import golden_fleet
import golden_round
import numpy as np
from described_fleet import Section
from golden_fleet import ROUND, SIZE, Documents, fixed
from nacl.bindings import randombytes_buf_deterministic
from refused_vectors import refused
from second_writing import VECTORS, readable

from hushfleet.hashing import digest, key_id
from hushfleet.learning.layers import initial_flat
from hushfleet.mqtt.chunks import bitmap, chunk_hash, chunk_hashes, cut, upload_hash
from hushfleet.mqtt.topics import Topics
from hushfleet.plans import picked
from hushfleet.wire.canonical import encode
from hushfleet.wire.layers import Dense, Layer


def framing() -> Section:
    """msgpack's one form for each kind of value, at the edges."""
    numbers = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
    values: list[Any] = [*numbers, 0.0, -0.0, 1.0, 0.1, -1e300, 5e-324]
    values += ["", "a", "x" * 31, "x" * 32, "x" * 64, b"", b"\0", bytes(255), bytes(256)]
    values += [[], list(range(15)), list(range(16)), {}, {"a": 1, "b": [b"\1", 2.5]}]
    return [
        {"value": readable(value), "type": type(value).__name__, "encoded": encode(value).hex()} for value in values
    ]


def hashes(owned: Documents) -> Section:
    """Every use of the hash outside the frames."""
    data = fixed("chunks")(700)
    slices = cut(data, SIZE)
    plan_hash = golden_round.played().plan_hash()
    layers: dict[str, tuple[Layer, ...]] = {
        "one dense layer": (Dense(3, 2, "none"),),
        "the golden model": golden_fleet.LAYERS,
        **golden_fleet.ALONG_TIME,
    }
    return {
        "purposes": {
            name: digest(name, b"abc").hex()
            for name in [
                "body",
                "seed",
                "mask",
                "leaf",
                "modl",
                "part",
                "pick",
                "draw",
                "chnk",
                "upld",
                "link",
                "beta",
                "sort",
                "chks",
                "nois",
                "rot1",
                "rot2",
                "subs",
                "dith",
                "keyf",
            ]
        },
        "keyed_64": digest("draw", b"abc", key=bytes(range(32)), size=64).hex(),
        "key_id": {"key": bytes(range(32)).hex(), "id": key_id(bytes(range(32))).hex()},
        "chunks": {
            "data": data.hex(),
            "size": SIZE,
            "chunk_hashes": [chunk_hash(piece).hex() for piece in slices],
            "upload_hash": upload_hash(len(data), chunk_hashes(slices)).hex(),
            "bitmap_of_missing_2": bitmap([2], 3).hex(),
        },
        "pick": [
            {
                "plan_hash": plan_hash.hex(),
                "index": index,
                "value": int.from_bytes(digest("pick", plan_hash, index.to_bytes(4, "little"))[:4], "little"),
                "picked_by_half": picked(plan_hash, index, 2**31),
            }
            for index in (0, 9, 70_000, 2**32 - 1)
        ],
        "checksum_weights": {
            "plan_hash": plan_hash.hex(),
            "seed": digest("chks", plan_hash).hex(),
            "first": [
                word | 1
                for word in np.frombuffer(randombytes_buf_deterministic(64, digest("chks", plan_hash)), "<u8").tolist()
            ],
        },
        "generator": [
            {
                "seed": bytes(range(32)).hex(),
                "size": size,
                "bytes": randombytes_buf_deterministic(size, bytes(range(32))).hex(),
            }
            for size in (1, 64, 100)
        ],
        "version_0": [
            {
                "name": name,
                "layers": [layer.to_map() for layer in model],
                "init": bytes(range(32)).hex(),
                "flat": initial_flat(model, bytes(range(32))).astype("<f4").tobytes().hex(),
                "hash": digest("modl", initial_flat(model, bytes(range(32))).astype("<f4").tobytes()).hex(),
            }
            for name, model in layers.items()
        ],
    }


def topics(owned: Documents) -> Section:
    names = Topics(owned.fleet)
    return {
        "fleet": owned.fleet.hex(),
        "head": names.fleet,
        "topics": {
            "root": names.root(2),
            "manifest": names.manifest(),
            "date": names.date(),
            "certificate": names.certificate(70_000),
            "document": names.document("roster", 300, 1),
            "call": names.call(7),
            "card": names.card(7, 700),
            "list": names.list(7),
            "key": names.key(7, 700, 0),
            "box": names.share(7, 700, 3),
            "ready": names.ready(7, 700),
            "transcript": names.transcript(7, 0),
            "complaint": names.complaint(7, 3),
            "plan": names.plan(),
            "upload header": names.up(0, 70_000, "upload", ROUND, 0),
            "first slice of an upload": names.up(0, 70_000, "upload", ROUND, 1),
            "receipt": names.down(70_000, "receipt", ROUND),
            "decline": names.up(1, 9, "decline", ROUND, 0),
            "survivors": names.down(700, "survivors", ROUND),
            "mask sum": names.up(0, 700, "masksum", ROUND, 0),
            "mask sum of group 3": names.up(0, 700, "masksum", ROUND, 0, part=3),
            "request for a share of 700": names.down(2, "request", ROUND, part=700),
            "share of 700": names.up(0, 2, "share", ROUND, 0, part=700),
            "result": names.result(ROUND),
            "sums": names.sums(ROUND, 0),
            "delta": names.model(1, "delta", 0),
            "snapshot": names.model(1, "snapshot", 0),
            "state": names.state(70_000),
        },
    }


def golden() -> dict[str, Section]:
    """Every generated file by name."""
    owned = golden_fleet.documents()
    return {
        "framing": framing(),
        "documents": described_fleet.documents(owned),
        "setup": described_fleet.setup(owned),
        "round": described_fleet.a_round(owned),
        "masking": described_fleet.masking(owned),
        "hashes": hashes(owned),
        "topics": topics(owned),
        "refused": refused(),
        "statistics": described_statistics.statistics(),
    }


def written(section: Section) -> str:
    """A file's text."""
    return json.dumps(section, indent=1) + "\n"


if __name__ == "__main__":
    for name, section in golden().items():
        (VECTORS / f"{name}.json").write_text(written(section))
