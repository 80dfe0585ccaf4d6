"""What the signed documents say when they are asked."""

from dataclasses import replace
from typing import Any

import pytest

from hushfleet.errors import MalformedError
from hushfleet.hashing import digest
from hushfleet.wire.documents import (
    COORDINATOR,
    MEMBER,
    PARTICIPANT,
    Cert,
    Certificate,
    CommitteeDocument,
    Device,
    Document,
    Entry,
    Firmware,
    Manifest,
    ModelSpec,
    Policy,
    Profiles,
    Root,
    Roster,
)
from hushfleet.wire.framing import pack_indices
from hushfleet.wire.layers import Dense

FLEET, ISSUED = bytes(16), 1_700_000_000


def key(index: int) -> bytes:
    return digest("body", index.to_bytes(4, "little"))


def cert(index: int, roles: int) -> Cert:
    seal = bytes(32) if roles & COORDINATOR else b""
    return Cert(f"device-{index}", index, key(index), roles, "test", 0, ISSUED, 1, seal)


def test_a_line_of_the_roster_is_46_bytes_little_endian() -> None:
    device = Device(0x01020304, key(1), PARTICIPANT, 7, 0x0102030405060708)
    assert device.to_bytes() == bytes((4, 3, 2, 1)) + key(1) + bytes((1, 7)) + bytes((8, 7, 6, 5, 4, 3, 2, 1))
    assert len(device.to_bytes()) == Device.SIZE
    assert Device.from_bytes(device.to_bytes()) == device


def test_a_roster_tells_every_device_by_its_index() -> None:
    devices = [Device(index, key(index), PARTICIPANT, 0, ISSUED + index) for index in (3, 70_000)]
    packed = b"".join(device.to_bytes() for device in devices)
    roster = Roster(FLEET, ISSUED, 1, 1, packed, ("test",), pack_indices([3]))
    assert roster.by_index() == {3: devices[0], 70_000: devices[1]}


def test_a_committee_document_tells_its_coordinator_and_the_candidates_that_are_not_revoked() -> None:
    certs = (cert(2, MEMBER), cert(3, MEMBER + PARTICIPANT), cert(5, COORDINATOR), cert(8, MEMBER))
    document = CommitteeDocument(FLEET, ISSUED, 1, 1, certs, pack_indices([3]))
    assert document.coordinator() == certs[2]
    assert document.candidates() == {2: certs[0], 8: certs[3]}


def test_a_manifest_tells_an_entry_by_its_name() -> None:
    entries = (Entry("model", 1, 10, key(1)), Entry("policy", 2, 20, key(2)))
    manifest = Manifest(FLEET, ISSUED, 1, 1, 1, entries, ISSUED)
    assert [manifest.entry(name) for name in ("model", "policy", "roster")] == [*entries, None]


def test_a_root_tells_keys_and_threshold_of_each_role() -> None:
    assert replace(root_of(LOW, HIGH), root_n=2).roles() == {
        "root": ((LOW, HIGH), 2),
        "signer": ((key(8),), 1),
        "fresh": ((key(9),), 1),
    }


def test_profiles_tell_one_by_its_name() -> None:
    profiles = profiles_of("one", "two")
    assert [profiles.named(name) for name in ("one", "two", "three")] == [*profiles.profiles, None]


def test_a_model_has_so_many_parameters() -> None:
    layers = (Dense(5, 7, "relu"), Dense(7, 3, "none"))
    spec = ModelSpec(FLEET, ISSUED, 1, 1, "small", layers, bytes(32), bytes(32))
    assert (spec.shared, spec.parameters()) == (layers, 6 * 7 + 8 * 3)
    headed = replace(spec, personal=1)
    assert (headed.shared, headed.parameters()) == (layers[:1], 6 * 7)


def test_a_layer_has_one_of_four_activations() -> None:
    for activation in ("none", "relu", "tanh", "sigmoid"):
        Dense(1, 1, activation).check()
    for activation in ("", "Relu", "softmax"):
        with pytest.raises(MalformedError, match="unknown kind or activation"):
            Dense(1, 1, activation).check()


def ascending_roster(*order: int, revoked: bytes = b"") -> Roster:
    packed = b"".join(Device(index, key(index), PARTICIPANT, 0, ISSUED).to_bytes() for index in order)
    return Roster(FLEET, ISSUED, 1, 1, packed, ("test",), revoked)


def committee_of(*order: int, revoked: bytes = b"") -> CommitteeDocument:
    certs = tuple(cert(index, COORDINATOR if index == 5 else MEMBER) for index in order)
    return CommitteeDocument(FLEET, ISSUED, 1, 1, certs, revoked)


def manifest_of(*order: str) -> Manifest:
    return Manifest(FLEET, ISSUED, 1, 1, 1, tuple(Entry(name, 1, 10, key(1)) for name in order), ISSUED)


def root_of(*order: bytes) -> Root:
    return Root(FLEET, ISSUED, 1, 1, order, 1, (key(8),), 1, (key(9),), 1, ISSUED)


LOW, HIGH = sorted((key(1), key(2)))


def firmware(name: str, *models: bytes) -> Firmware:
    return Firmware(name, "wifi", 4096, 8, 60, 0, models)


def profiles_of(*order: str) -> Profiles:
    return Profiles(FLEET, ISSUED, 1, 1, tuple(firmware(name) for name in order))


OUT_OF_ORDER: list[tuple[Document | Firmware, Document | Firmware, str]] = [
    (ascending_roster(3, 4), ascending_roster(4, 3), "roster.devices"),
    (
        ascending_roster(3, 4, revoked=pack_indices([3, 4])),
        ascending_roster(3, 4, revoked=pack_indices([4]) + pack_indices([3])),
        "roster.revoked",
    ),
    (committee_of(3, 5), committee_of(5, 3), "committee.certs"),
    (
        committee_of(3, 5, 7, revoked=pack_indices([3, 7])),
        committee_of(3, 5, 7, revoked=pack_indices([7]) + pack_indices([3])),
        "committee.revoked",
    ),
    (manifest_of("model", "policy"), manifest_of("policy", "model"), "manifest.docs"),
    (root_of(LOW, HIGH), root_of(HIGH, LOW), "root keys"),
    (firmware("one", LOW, HIGH), firmware("one", HIGH, LOW), "firmware.models"),
    (profiles_of("one", "two"), profiles_of("two", "one"), "profile.profiles"),
]


@pytest.mark.parametrize(("right", "wrong", "place"), OUT_OF_ORDER, ids=[place for _, _, place in OUT_OF_ORDER])
def test_what_is_out_of_order_is_named(right: Document | Firmware, wrong: Document | Firmware, place: str) -> None:
    right.check()
    with pytest.raises(MalformedError, match=f"^{place}"):
        wrong.check()


POLICY = Policy(
    fleet=FLEET,
    issued=ISSUED,
    protocol=1,
    version=1,
    assumed_colluders=2,
    audit_rate=0.5,
    clip=0.5,
    committee_min=4,
    committee_trusted=0,
    delta=0.0,
    epoch_age=1,
    epoch_rounds=1,
    epsilon=0.0,
    interval=0,
    largest_survivor_set=10,
    largest_weight=1.0,
    models=(key(1),),
    noise_floor=0.0,
    noiseless_statistics=0,
    recoveries=1,
    rollback_versions=0,
    shards=1,
    smallest_group=1,
    smallest_survivor_set=7,
    tiny_fleet=0,
    uploads_per_base=1,
)
COORDINATOR_CERT, MEMBER_CERT = cert(5, COORDINATOR), cert(3, MEMBER)
FIRMWARE = Firmware("gateway", "wifi", 4096, 8, 60, 0, ())
LAYER = Dense(1, 1, "none")
MODEL = ModelSpec(FLEET, ISSUED, 1, 1, "small", (LAYER, LAYER), bytes(32), bytes(32))
BOUNDS: list[tuple[Any, list[dict[str, Any]], list[dict[str, Any]], str]] = [
    (profiles_of(), [], [{"protocol": 0}], "start at 1"),
    (manifest_of(), [{"protocol": 2}, {"version": 2}], [{"protocol": 0}, {"version": 0}], "start at 1"),
    (
        root_of(LOW, HIGH),
        [{"root_n": 2}, {"root": (LOW,)}],
        [{"root_n": 0}, {"root_n": 3}, {"signer_n": 2}, {"fresh_n": 0}],
        "a threshold is not",
    ),
    (root_of(LOW, HIGH), [], [{"signer": (HIGH,)}, {"fresh": (LOW,)}, {"fresh": (key(8),)}], "stands twice"),
    (Entry("model", 1, 1, key(1)), [{"version": 2}, {"length": 0}], [{"version": 0}], "versions start at 1"),
    (Entry("model", 1, 1, key(1)), [{"name": "roster"}], [{"name": "root"}], "no document of that name"),
    (MEMBER_CERT, [{"roles": 1}, {"roles": 3}], [{"roles": 0}, {"roles": 8}], "unknown roles"),
    (COORDINATOR_CERT, [{"roles": 7}], [{"seal": b""}, {"seal": bytes(64)}], "one sealing key"),
    (MEMBER_CERT, [], [{"seal": bytes(32)}, {"seal": bytes(64)}], "one sealing key"),
    (Certificate(FLEET, ISSUED, 1, 1, MEMBER_CERT), [], [{"version": 2}], "its version is its serial"),
    (
        committee_of(3, 5),
        [],
        [{"certs": ()}, {"certs": (MEMBER_CERT,)}, {"certs": (COORDINATOR_CERT, cert(6, COORDINATOR))}],
        "exactly one certificate is the coordinator's",
    ),
    (committee_of(3, 5, revoked=pack_indices([3])), [], [{"revoked": pack_indices([5])}], "not revoked but replaced"),
    (
        committee_of(3, 5),
        [{"certs": (COORDINATOR_CERT,)}],
        [{"certs": (cert(3, PARTICIPANT), COORDINATOR_CERT)}],
        "every other certificate",
    ),
    (ascending_roster(3), [{"profiles": ("one", "two")}], [{"profiles": ()}], "a profile that is not listed"),
    (
        FIRMWARE,
        [
            {"chunk": 256, "window": 1, "keepalive": 5},
            {"chunk": 61_440, "window": 64, "keepalive": 3_600},
        ],
        [
            *({"chunk": chunk} for chunk in (255, 61_441)),
            *({"window": window} for window in (0, 65)),
            *({"keepalive": keepalive} for keepalive in (4, 3_601)),
        ],
        "window from 1 to 64",
    ),
    (LAYER, [], [{"inputs": 0}, {"outputs": 0}], "are above 0"),
    (LAYER, [], [{"kind": "conv1d"}], "unknown kind"),
    (MODEL, [{"layers": (LAYER,)}], [{"layers": ()}], "at least one layer"),
    (MODEL, [], [{"layers": (LAYER, Dense(2, 1, "none"))}], "gives 1 numbers but layer 2 takes 2"),
    (
        POLICY,
        [
            {"smallest_survivor_set": 1, "largest_survivor_set": 1, "tiny_fleet": 1},
            {"largest_survivor_set": 16_383},
        ],
        [{"largest_survivor_set": 0}, {"largest_survivor_set": 16_384}],
        "largest_survivor_set is not from 1",
    ),
    (
        POLICY,
        [{"smallest_survivor_set": 10}],
        [{"smallest_survivor_set": 11}, {"smallest_survivor_set": 0, "tiny_fleet": 1}],
        "smallest_survivor_set is not from 1",
    ),
    (
        POLICY,
        [{"smallest_survivor_set": 6, "tiny_fleet": 1}],
        [{"smallest_survivor_set": 6}],
        "below assumed_colluders",
    ),
    (
        POLICY,
        [{"largest_weight": 4.0}, {"audit_rate": 0.0}, {"audit_rate": 1.0}],
        [{"largest_weight": 0.9}, {"largest_weight": 4.1}, {"clip": 0.0}, {"audit_rate": -0.1}, {"audit_rate": 1.1}],
        "clip above 0",
    ),
    (
        POLICY,
        [
            {"committee_min": 2, "recoveries": 0},
            {"committee_min": 3, "recoveries": 2, "committee_trusted": 1},
        ],
        [{"committee_min": 1, "recoveries": 0}, {"committee_min": 3, "recoveries": 3, "committee_trusted": 1}],
        "committee_min is at least 2",
    ),
    (POLICY, [{"committee_min": 3, "committee_trusted": 1}], [{"committee_min": 3}], "committee_trusted is not signed"),
    (
        POLICY,
        [{"epoch_rounds": 1024}],
        [{"epoch_rounds": 0}, {"epoch_rounds": 1025}, {"epoch_age": 0}, {"shards": 0}, {"uploads_per_base": 0}],
        "epoch_rounds is from 1",
    ),
    (
        POLICY,
        [],
        [{"noise_floor": -0.1}, {"epsilon": -0.1}, {"delta": -0.1}, {"smallest_group": 0}],
        "smallest_group is above 0",
    ),
]


@pytest.mark.parametrize(("document", "right", "wrong", "why"), BOUNDS, ids=[why for *_, why in BOUNDS])
def test_bounds_hold_to_the_last_value(
    document: Any, right: list[dict[str, Any]], wrong: list[dict[str, Any]], why: str
) -> None:
    document.check()
    for changes in right:
        replace(document, **changes).check()
    for changes in wrong:
        with pytest.raises(MalformedError, match=why):
            replace(document, **changes).check()
