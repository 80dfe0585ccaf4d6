"""The signed documents: root, manifest, date, committee document, roster, policy, model spec, profiles, certificate."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from hushfleet.errors import MalformedError
from hushfleet.hashing import key_id
from hushfleet.wire.framing import (
    B16,
    B32,
    F64,
    U8,
    U16,
    U32,
    U64,
    Array,
    Binary,
    Flag,
    Keys,
    ManyB4,
    ManyB32,
    Nested,
    Str,
    Table,
    Text,
    check_ascending,
    entries,
    indices,
)
from hushfleet.wire.layers import ANY_LAYER, Layer, check_layers, check_personal, parameter_count

PROTOCOL = 1
PARTICIPANT, MEMBER, COORDINATOR = 1, 2, 4
"""Roles of a certificate, added up."""

LARGEST_ROOT_OR_MANIFEST = 16 * 1024
LARGEST_SURVIVOR_SET = 16_383
DOCUMENT_NAMES = ("committee", "model", "policy", "profile", "roster", "schema")
OPTIONAL_DOCUMENTS = ("profile", "schema")
"""Those that a manifest need not list."""


@dataclass(frozen=True, slots=True)
class Document(Table):
    """What every document body carries."""

    fleet: B16
    issued: U64
    protocol: U8
    version: U32

    def check(self) -> None:
        if self.protocol < 1 or self.version < 1:
            raise MalformedError("protocol and version start at 1")


@dataclass(frozen=True, slots=True)
class Root(Document):
    """The owners' keys and the threshold of each role; root N+1 is signed by the thresholds of N and of N+1."""

    KIND: ClassVar[str] = "root"
    root: Keys
    root_n: U8
    signer: Keys
    signer_n: U8
    fresh: Keys
    fresh_n: U8
    not_after: U64

    def check(self) -> None:
        Document.check(self)
        every = [*self.root, *self.signer, *self.fresh]
        if len({key_id(key) for key in every}) != len(every):
            raise MalformedError("root: a key or key id stands twice")
        for keys, threshold in self.roles().values():
            check_ascending(keys, "root keys")
            if not 1 <= threshold <= len(keys):
                raise MalformedError("root: a threshold is not from 1 to the number of its keys")

    def roles(self) -> dict[str, tuple[tuple[bytes, ...], int]]:
        """Keys and threshold by role."""
        return {
            "root": (self.root, self.root_n),
            "signer": (self.signer, self.signer_n),
            "fresh": (self.fresh, self.fresh_n),
        }


@dataclass(frozen=True, slots=True)
class Entry(Table):
    """One document as the manifest vouches for it: the hash of its body, the length of its whole frame."""

    KIND: ClassVar[str] = "doc"
    name: Str
    version: U32
    length: U32
    hash: B32

    def check(self) -> None:
        if self.name not in DOCUMENT_NAMES:
            raise MalformedError("doc: no document of that name exists")
        if self.version < 1:
            raise MalformedError("doc: versions start at 1")


@dataclass(frozen=True, slots=True)
class Manifest(Document):
    """The one list through which documents are accepted."""

    KIND: ClassVar[str] = "manifest"
    root: U32
    docs: Annotated[tuple[Entry, ...], Array(Nested(Entry))]
    not_after: U64

    def check(self) -> None:
        Document.check(self)
        check_ascending([entry.name for entry in self.docs], "manifest.docs")

    def entry(self, name: str) -> Entry | None:
        """The document of that name, if listed."""
        return next((entry for entry in self.docs if entry.name == name), None)


@dataclass(frozen=True, slots=True)
class Date(Document):
    """A new date for an unchanged manifest, by the freshness key."""

    KIND: ClassVar[str] = "date"
    manifest: B32
    not_after: U64


@dataclass(frozen=True, slots=True)
class Cert(Table):
    """One device as the owners certify it. The coordinator's also carries an X25519 key to seal answers to."""

    KIND: ClassVar[str] = "cert"
    device: Str
    index: U32
    key: B32
    roles: U8
    profile: Str
    not_before: U64
    not_after: U64
    serial: U32
    seal: ManyB32

    def check(self) -> None:
        if not 1 <= self.roles <= PARTICIPANT + MEMBER + COORDINATOR:
            raise MalformedError("cert: unknown roles")
        if (len(self.seal) == 32) != bool(self.roles & COORDINATOR) or len(self.seal) not in (0, 32):
            raise MalformedError("cert: exactly the coordinator has one sealing key")

    def valid_at(self, time: float) -> bool:
        """Whether `time` lies within its dates, both included."""
        return self.not_before <= time <= self.not_after


@dataclass(frozen=True, slots=True)
class Certificate(Document):
    """A device's own certificate; its version is the serial."""

    KIND: ClassVar[str] = "certificate"
    cert: Annotated[Cert, Nested(Cert)]

    def check(self) -> None:
        Document.check(self)
        if self.version != self.cert.serial:
            raise MalformedError("certificate: its version is its serial")


@dataclass(frozen=True, slots=True)
class CommitteeDocument(Document):
    """Certificates of the coordinator and of the committee candidates, and which of those are revoked."""

    KIND: ClassVar[str] = "committee"
    certs: Annotated[tuple[Cert, ...], Array(Nested(Cert))]
    revoked: ManyB4

    def check(self) -> None:
        Document.check(self)
        check_ascending([cert.index for cert in self.certs], "committee.certs")
        check_ascending(indices(self.revoked), "committee.revoked")
        if sum(bool(cert.roles & COORDINATOR) for cert in self.certs) != 1:
            raise MalformedError("committee: exactly one certificate is the coordinator's")
        if self.coordinator().index in indices(self.revoked):
            raise MalformedError("committee: the coordinator is not revoked but replaced")
        if any(not cert.roles & (COORDINATOR | MEMBER) for cert in self.certs):
            raise MalformedError("committee: every other certificate is a candidate's")

    def coordinator(self) -> Cert:
        """The coordinator's certificate."""
        return next(cert for cert in self.certs if cert.roles & COORDINATOR)

    def candidates(self) -> dict[int, Cert]:
        """The candidates that are not revoked, by index."""
        revoked = set(indices(self.revoked))
        return {cert.index: cert for cert in self.certs if cert.roles & MEMBER and cert.index not in revoked}


@dataclass(frozen=True, slots=True)
class Device:
    """One line of the roster."""

    index: int
    key: bytes
    roles: int
    profile: int
    not_after: int

    SIZE: ClassVar[int] = 46

    @classmethod
    def from_bytes(cls, data: bytes) -> "Device":
        """Read `index u32 ‖ key 32 ‖ roles u8 ‖ profile u8 ‖ not-after u64`."""
        return cls(
            int.from_bytes(data[:4], "little"), data[4:36], data[36], data[37], int.from_bytes(data[38:], "little")
        )

    def to_bytes(self) -> bytes:
        """The 46 bytes of this line."""
        return (
            self.index.to_bytes(4, "little")
            + self.key
            + bytes((self.roles, self.profile))
            + self.not_after.to_bytes(8, "little")
        )


@dataclass(frozen=True, slots=True)
class Roster(Document):
    """Every device of the fleet, for coordinator and members."""

    KIND: ClassVar[str] = "roster"
    devices: Annotated[bytes, Binary(multiple=Device.SIZE)]
    profiles: Annotated[tuple[str, ...], Array(Text())]
    revoked: ManyB4

    def check(self) -> None:
        Document.check(self)
        devices = [Device.from_bytes(line) for line in entries(self.devices, Device.SIZE)]
        check_ascending([device.index for device in devices], "roster.devices")
        check_ascending(indices(self.revoked), "roster.revoked")
        if any(device.profile >= len(self.profiles) for device in devices):
            raise MalformedError("roster: a device names a profile that is not listed")

    def by_index(self) -> dict[int, Device]:
        """All devices, revoked ones included, by index."""
        return {device.index: device for device in map(Device.from_bytes, entries(self.devices, Device.SIZE))}


@dataclass(frozen=True, slots=True)
class Policy(Document):
    """What devices enforce themselves, whatever the coordinator says."""

    KIND: ClassVar[str] = "policy"
    assumed_colluders: U32
    audit_rate: F64
    clip: F64
    committee_min: U8
    committee_trusted: Flag
    delta: F64
    epoch_age: U32
    epoch_rounds: U16
    epsilon: F64
    interval: U32
    largest_survivor_set: U32
    largest_weight: F64
    models: Keys
    noise_floor: F64
    noiseless_statistics: Flag
    recoveries: U8
    rollback_versions: U16
    shards: U16
    smallest_group: U32
    smallest_survivor_set: U32
    tiny_fleet: Flag
    uploads_per_base: U16

    def check(self) -> None:
        Document.check(self)
        if not 1 <= self.largest_survivor_set <= LARGEST_SURVIVOR_SET:
            raise MalformedError(f"policy: largest_survivor_set is not from 1 to {LARGEST_SURVIVOR_SET}")
        if not 1 <= self.smallest_survivor_set <= self.largest_survivor_set:
            raise MalformedError("policy: smallest_survivor_set is not from 1 to largest_survivor_set")
        if not self.tiny_fleet and self.smallest_survivor_set < self.assumed_colluders + 5:
            raise MalformedError("policy: smallest_survivor_set is below assumed_colluders + 5, tiny_fleet not signed")
        if not 1.0 <= self.largest_weight <= 4.0 or self.clip <= 0 or not 0 <= self.audit_rate <= 1:
            raise MalformedError("policy: largest_weight is from 1 to 4, clip above 0, audit_rate from 0 to 1")
        if self.committee_min < 2 or self.committee_min <= self.recoveries:
            raise MalformedError("policy: committee_min is at least 2 and above recoveries")
        if self.committee_min - 2 * self.recoveries - 1 < 1 and not self.committee_trusted:
            raise MalformedError("policy: committee_min - 2·recoveries - 1 is below 1, committee_trusted is not signed")
        if not 1 <= self.epoch_rounds <= 1024 or not self.epoch_age or not self.shards or not self.uploads_per_base:
            raise MalformedError("policy: epoch_rounds is from 1 to 1,024; epoch_age, shards, uploads_per_base above 0")
        if min(self.noise_floor, self.epsilon, self.delta) < 0 or self.smallest_group < 1:
            raise MalformedError("policy: noise_floor, epsilon and delta are not negative, smallest_group is above 0")


@dataclass(frozen=True, slots=True)
class Firmware(Table):
    """What the owners sealed of one firmware profile: the link of its devices, and the model specs they may train."""

    KIND: ClassVar[str] = "firmware"
    name: Str
    link: Str
    chunk: U16
    window: U8
    keepalive: U16
    daily: U64
    models: Keys

    def check(self) -> None:
        if not 256 <= self.chunk <= 61_440 or not 1 <= self.window <= 64 or not 5 <= self.keepalive <= 3_600:
            raise MalformedError("firmware: chunk from 256 to 61,440, window from 1 to 64, keepalive from 5 to 3,600")
        check_ascending(self.models, "firmware.models")


@dataclass(frozen=True, slots=True)
class Profiles(Document):
    """The firmware profiles that the fleet's certificates name."""

    KIND: ClassVar[str] = "profile"
    profiles: Annotated[tuple[Firmware, ...], Array(Nested(Firmware))]

    def check(self) -> None:
        Document.check(self)
        check_ascending([firmware.name for firmware in self.profiles], "profile.profiles")

    def named(self, name: str) -> Firmware | None:
        """The profile of that name, if it is sealed."""
        return next((firmware for firmware in self.profiles if firmware.name == name), None)


@dataclass(frozen=True, slots=True)
class ModelSpec(Document):
    """The layer list and the seed and hash of version 0, which everyone computes.

    Attributes:
        personal: how many of the last layers each device has to itself: they are part of no version and no message.
    """

    KIND: ClassVar[str] = "model"
    name: Str
    layers: Annotated[tuple[Layer, ...], Array(ANY_LAYER)]
    init: B32
    zero: B32
    personal: U16 = 0

    def check(self) -> None:
        Document.check(self)
        try:
            check_layers(self.layers)
        except MalformedError as error:
            raise MalformedError(f"model: {error}") from None
        if self.personal:
            check_personal(self.layers, self.personal)

    @property
    def shared(self) -> tuple[Layer, ...]:
        """The layers that everyone has alike."""
        return self.layers[: len(self.layers) - self.personal]

    def parameters(self) -> int:
        """Length d of the flat vector, which holds the shared layers alone."""
        return parameter_count(self.shared)
