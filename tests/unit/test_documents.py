"""What the signed documents say when they are asked."""

from hushfleet.hashing import digest
from hushfleet.wire.documents import (
    COORDINATOR,
    MEMBER,
    PARTICIPANT,
    Cert,
    CommitteeDocument,
    Device,
    Entry,
    Layer,
    Manifest,
    ModelSpec,
    Roster,
)
from hushfleet.wire.framing import pack_indices

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


def test_a_model_has_so_many_parameters() -> None:
    layers = (Layer("dense", 5, 7, "relu"), Layer("dense", 7, 3, "none"))
    assert ModelSpec(FLEET, ISSUED, 1, 1, "small", layers, bytes(32), bytes(32)).parameters() == 6 * 7 + 8 * 3
