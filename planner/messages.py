"""The real messages of a fleet that does not exist yet, for their length: made by the encoders of hushfleet.wire.

Their content is filler; their fields have the lengths that they have in service. Nothing here knows a field's size.
"""

from dataclasses import dataclass
from functools import cached_property

from nacl.bindings import randombytes_buf_deterministic

from hushfleet.encoding.keyframe import length_of
from hushfleet.encoding.subset import coordinates
from hushfleet.hashing import digest
from hushfleet.mqtt.chunks import chunk_hashes, cut
from hushfleet.secagg.residues import padded, vector_length
from hushfleet.secagg.sealing import new_key, seal
from hushfleet.wire.committee import Box, Call, Card, CardList, CommitteeKey, Transcript
from hushfleet.wire.documents import (
    COORDINATOR,
    MEMBER,
    PARTICIPANT,
    Cert,
    Certificate,
    CommitteeDocument,
    Date,
    Device,
    Entry,
    Firmware,
    Manifest,
    ModelSpec,
    Policy,
    Profiles,
    Roster,
)
from hushfleet.wire.framing import Frame, Identity, Signer, Table, pack_indices
from hushfleet.wire.layers import Layer, parameter_count
from hushfleet.wire.round import (
    ACCEPTED,
    APPLIED,
    MISSING,
    NO_REASON,
    NONE,
    ROTATED,
    TRAIN,
    Delta,
    Header,
    MaskSum,
    Metrics,
    Plan,
    Receipt,
    Request,
    Result,
    Share,
    Survivor,
    Survivors,
    bitmap,
)

NOW = 1_800_000_000
"""Seconds since 1970: times of these years take five bytes on the wire."""
COORDINATOR_INDEX = 0
LANES = 8
"""Tail lanes of a training round."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How an update becomes residues.

    Attributes:
        name: for people.
        codec: 0 plain, 1 rotated (docs/protocol.md, section 11.4).
        keep: f, the fraction of coordinates that travel.
        bits: B, 2 to 16.
    """

    name: str
    codec: int
    keep: float
    bits: int

    def coords(self, parameters: int) -> int:
        """m before padding."""
        return coordinates(parameters, self.keep)


@dataclass(frozen=True, slots=True)
class Committee:
    """Who opens the sums.

    Attributes:
        members: c, all of whom take part.
        recoveries: f.
        candidates: how many the owners draw, c or more.
    """

    members: int
    recoveries: int
    candidates: int


@dataclass(frozen=True)
class Messages:
    """The messages of one fleet in one of its rounds.

    Attributes:
        layers: the model's.
        devices: certified participants, N.
        survivors: uploads in a sum.
        encoding, committee: see there.
        epoch_rounds: R.
        round: the number of the round looked at; later ones are longer by a byte now and then.
        device: the roster index of the device looked at.
        chunk: bytes of a slice of its upload.
        profile: name of its firmware profile.
        personal: how many of the last layers each device has to itself.
    """

    layers: tuple[Layer, ...]
    devices: int
    survivors: int
    encoding: Encoding
    committee: Committee
    epoch_rounds: int
    round: int
    device: int
    chunk: int
    profile: str
    personal: int = 0

    @property
    def parameters(self) -> int:
        """d, of the shared layers."""
        return parameter_count(self.layers[: len(self.layers) - self.personal])

    @property
    def epoch(self) -> int:
        """The number of the round's epoch."""
        return 1 + (self.round - 1) // self.epoch_rounds

    @property
    def members(self) -> tuple[int, ...]:
        """T: the first devices, as the owners added them."""
        return tuple(range(1, self.committee.members + 1))

    # A round.

    @cached_property
    def plan(self) -> bytes:
        """The coordinator's plan."""
        encoding, first = self.encoding, NOW + self.round
        return self._said(
            Plan(
                sender=COORDINATOR_INDEX,
                round=self.round,
                kind=TRAIN,
                model=_filler(32),
                base=self.round - 1,
                base_hash=_filler(32),
                roster=_filler(32),
                policy=_filler(32),
                epoch=self.epoch,
                transcript=_filler(32),
                points=_filler(32 * self.committee.members),
                opens=first,
                closes=first + 600,
                until=first + 700,
                sample=1 << 32,
                grouped=0,
                codec=encoding.codec,
                bits=encoding.bits,
                coords=encoding.coords(self.parameters),
                keep=encoding.keep,
                clip=1.0,
                step=1.0,
                seed=_filler(32),
                noise=0.0,
                tail=0,
                steps=20,
                batch=32,
                rate=0.05,
                momentum=0.9,
                proximal=0.0,
            )
        )

    @cached_property
    def upload(self) -> bytes:
        """The masked vector; noise to everyone, and as incompressible."""
        return _filler(vector_length(self.encoding.coords(self.parameters), self.encoding.bits, LANES))

    @cached_property
    def slices(self) -> list[bytes]:
        """The upload as it is cut."""
        return cut(self.upload, self.chunk)

    @cached_property
    def header(self) -> bytes:
        """An upload's chunk 0."""
        hashes = chunk_hashes(self.slices)
        table = Header(self.round, _filler(32), len(self.upload), self.chunk, hashes, _filler(64))
        return Frame(Header.KIND, table.to_body()).to_bytes()

    @cached_property
    def receipts(self) -> tuple[bytes, bytes]:
        """What answers the header, and what answers the whole upload."""
        every = range(len(self.slices))
        missing = Receipt(COORDINATOR_INDEX, self.round, _filler(32), MISSING, NONE, bitmap([*every]))
        accepted = Receipt(COORDINATOR_INDEX, self.round, _filler(32), ACCEPTED, NONE, b"")
        return self._said(missing), self._said(accepted)

    @cached_property
    def result(self) -> bytes:
        """The result of an applied round."""
        table = Result(
            COORDINATOR_INDEX,
            _filler(32),
            self.round,
            APPLIED,
            NO_REASON,
            self.round - 1,
            _filler(32),
            self.round,
            _filler(32),
            _filler(32),
            bitmap([*range(1, self.survivors + 1)]),
            1.0,
            Metrics(32 * 20 * self.survivors, 1.0, 100 * self.survivors, 1.0, 50 * self.survivors, 1.0),
        )
        return self._said(table)

    @cached_property
    def delta(self) -> bytes:
        """The opened sum as everybody replays it."""
        length = padded(self.encoding.coords(self.parameters)) * self.encoding.bits // 8
        table = Delta(
            COORDINATOR_INDEX,
            self.round,
            _filler(32),
            self.encoding.bits,
            _filler(length),
            1.0,
            65_536 * self.survivors,
            1.0,
            self.encoding.codec,
            0.0,
            (),
        )
        return self._said(table)

    @property
    def state(self) -> int:
        """Numbers of a model's state: its parameters, and their velocity where the server has a momentum."""
        everything = self.encoding.codec == ROTATED and self.encoding.keep == 1.0
        return (2 if everything else 1) * self.parameters

    @cached_property
    def snapshot(self) -> bytes:
        """The whole model: float32, or a key frame with a byte a number."""
        if self.encoding.codec == ROTATED:
            return _filler(length_of(self.state // self.parameters, self.parameters))
        return _filler(4 * self.state)

    # A member's part in it.

    @cached_property
    def survivor_set(self) -> bytes:
        """What a member is shown."""
        entries = (
            Survivor(index, _filler(32), _filler(32), _filler(64)).to_bytes() for index in range(1, self.survivors + 1)
        )
        return self._said(Survivors(COORDINATOR_INDEX, _filler(32), b"".join(entries)))

    @cached_property
    def mask_sum(self) -> bytes:
        """A member's sealed answer."""
        return self._sealed(
            MaskSum(self.device, _filler(32), _filler(32), 0, bytes(32), _filler(len(self.upload)), 1, 1)
        )

    @cached_property
    def request(self) -> bytes:
        """The coordinator asks for a share."""
        return self._said(Request(COORDINATOR_INDEX, _filler(32), _filler(32), 1))

    @cached_property
    def share(self) -> bytes:
        """A member's sealed share."""
        return self._sealed(Share(self.device, _filler(32), _filler(32), 1, _filler(32)))

    # A committee's set-up.

    @cached_property
    def call(self) -> bytes:
        """The coordinator's call."""
        return self._said(
            Call(
                COORDINATOR_INDEX,
                self.epoch,
                _filler(32),
                self.committee.recoveries,
                self.round,
                self.epoch_rounds,
                NOW + 604_800,
                NOW + 60,
                NOW + 120,
                NOW + 180,
            )
        )

    @cached_property
    def card(self) -> bytes:
        """A candidate's card."""
        keys = _filler(32 * (self.committee.candidates - 1))
        return self._signed(Card(self.device, self.epoch, _filler(32), keys, _filler(32), 1, 1))

    @cached_property
    def list(self) -> bytes:
        """The cards that count."""
        cards = b"".join(member.to_bytes(4, "little") + _filler(32) for member in self.members)
        return self._said(CardList(COORDINATOR_INDEX, self.epoch, cards))

    @cached_property
    def key(self) -> bytes:
        """A dealer's commitments."""
        points = _filler(32 * self.epoch_rounds * (self.committee.members - self.committee.recoveries))
        return self._signed(
            CommitteeKey(self.device, self.epoch, _filler(32), self.round, self.epoch_rounds, NOW + 604_800, points)
        )

    @cached_property
    def box(self) -> bytes:
        """A dealer's sealed shares for one other member."""
        content = seal(_filler(32 + 4 + 4 + 32 * self.epoch_rounds), _recipient(), _filler)
        return self._signed(Box(self.device, self.epoch, _filler(32), _filler(32), 1, content))

    @cached_property
    def ready(self) -> bytes:
        """A member's own transcript frame."""
        return Frame(Transcript.KIND, self._transcript, ((self.device, _filler(64)),)).to_bytes()

    @cached_property
    def transcript(self) -> bytes:
        """The committee's, with every signature."""
        return Frame(Transcript.KIND, self._transcript, tuple((one, _filler(64)) for one in self.members)).to_bytes()

    @cached_property
    def _transcript(self) -> bytes:
        table = Transcript(
            self.epoch,
            _filler(32),
            self.round,
            self.epoch_rounds,
            self.committee.recoveries,
            NOW + 604_800,
            pack_indices(self.members),
            _filler(32 * self.committee.members),
            _filler(32 * self.epoch_rounds),
            1,
            1,
        )
        return table.to_body()

    # Documents.

    @cached_property
    def documents(self) -> dict[str, bytes]:
        """What the manifest lists, by name."""
        fleet, both = _filler(16), PARTICIPANT | MEMBER
        certs = [self._cert(index, both) for index in range(1, self.committee.candidates + 1)]
        coordinator = self._cert(COORDINATOR_INDEX, COORDINATOR)
        lines = b"".join(
            Device(index, _filler(32), PARTICIPANT, 0, NOW).to_bytes() for index in range(self.devices + 1)
        )
        firmware = Firmware(self.profile, "lte-m", self.chunk, 4, 1_200, 1_000_000, (_filler(32),))
        tables: dict[str, Table] = {
            "committee": CommitteeDocument(fleet, NOW, 1, 1, (coordinator, *certs), b""),
            "roster": Roster(fleet, NOW, 1, 1, lines, (self.profile,), b""),
            "policy": _policy(fleet, self.committee, self.epoch_rounds),
            "model": ModelSpec(fleet, NOW, 1, 1, "model", self.layers, _filler(32), _filler(32), self.personal),
            "profile": Profiles(fleet, NOW, 1, 1, (firmware,)),
        }
        return {name: Frame(table.KIND, table.to_body()).to_bytes() for name, table in tables.items()}

    @cached_property
    def manifest(self) -> bytes:
        """The newest manifest, by one signer."""
        entries = tuple(Entry(name, 1, len(document), _filler(32)) for name, document in sorted(self.documents.items()))
        return self._owned(Manifest(_filler(16), NOW, 1, 1, 1, entries, NOW))

    @cached_property
    def date(self) -> bytes:
        """Its date."""
        return self._owned(Date(_filler(16), NOW, 1, 1, _filler(32), NOW))

    @cached_property
    def certificate(self) -> bytes:
        """The device's own."""
        return self._owned(Certificate(_filler(16), NOW, 1, 1, self._cert(self.device, PARTICIPANT)))

    def _cert(self, index: int, roles: int) -> Cert:
        seal_key = _filler(32) if roles & COORDINATOR else b""
        return Cert(f"gateway-{index}", index, _filler(32), roles, self.profile, NOW, NOW, 1, seal_key)

    def _said(self, table: Table) -> bytes:
        return _frame(table, COORDINATOR_INDEX)

    def _signed(self, table: Table) -> bytes:
        return _frame(table, self.device)

    def _owned(self, table: Table) -> bytes:
        return _frame(table, _filler(8))

    def _sealed(self, table: Table) -> bytes:
        return seal(self._signed(table), _recipient(), _filler)


def _frame(table: Table, signer: Signer) -> bytes:
    return Identity(signer, _filler(32)).frame(table, _filler(16)).to_bytes()


def _filler(size: int) -> bytes:
    stream: bytes = randombytes_buf_deterministic(size, digest("seed", b"filler")) if size else b""
    return stream


def _recipient() -> bytes:
    return new_key(_filler)[1]


def _policy(fleet: bytes, committee: Committee, epoch_rounds: int) -> Policy:
    return Policy(
        fleet=fleet,
        issued=NOW,
        protocol=1,
        version=1,
        assumed_colluders=1,
        audit_rate=0.25,
        clip=1.0,
        committee_min=max(2, committee.members),
        committee_trusted=1,
        delta=0.0,
        epoch_age=604_800,
        epoch_rounds=epoch_rounds,
        epsilon=0.0,
        interval=60,
        largest_survivor_set=100,
        largest_weight=1.0,
        models=(_filler(32),),
        noise_floor=0.0,
        noiseless_statistics=0,
        recoveries=committee.recoveries,
        rollback_versions=0,
        shards=1,
        smallest_group=6,
        smallest_survivor_set=6,
        tiny_fleet=0,
        uploads_per_base=8,
    )
