"""One small fleet from fixed randomness, played through: documents, a committee's set-up, one round with a recovery.

The vectors are what it says and computes. Every secret stands in them, so that another implementation can play along.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from nacl.bindings import randombytes_buf_deterministic

from fleet.owner import Credentials, Owner
from hushfleet import ceremony
from hushfleet.actions import Action, Draw, Erase, Save
from hushfleet.codec import LocalReport
from hushfleet.hashing import digest
from hushfleet.secagg import committee
from hushfleet.secagg.committee import Sheet
from hushfleet.secagg.sealing import public_of, seal
from hushfleet.trust import Trust
from hushfleet.wire.committee import Box, Call, Card, CardList, CommitteeKey, Complaint
from hushfleet.wire.documents import COORDINATOR, MEMBER, PARTICIPANT, Firmware
from hushfleet.wire.framing import Frame, Identity, Table
from hushfleet.wire.layers import (
    AvgPool,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    GlobalAverage,
    Gru,
    Layer,
    LayerNorm,
    MaxPool,
)
from hushfleet.wire.schema import Channel, Standardised

ISSUED = 1_700_000_000
YEAR = 365 * 86_400
COORDINATOR_INDEX, MEMBERS, PARTICIPANTS, LOST = 1, (2, 3, 700), (9, 300), 700
ROUND, FIRST, ROUNDS, EPOCH, F = 5_000_000_001, 5_000_000_000, 3, 7, 1
K, THRESHOLD = ROUND - FIRST, len(MEMBERS) - F
SIZE = 256
LAYERS = (Dense(8, 8, "tanh"), Dense(8, 1, "none"))
ALONG_TIME: dict[str, tuple[Layer, ...]] = {
    "convolutions": (Conv1d(12, 3, 4, 3, 2, "relu"), Conv1d(5, 4, 2, 2, 1, "tanh"), Dense(8, 3)),
    "every other kind": (
        Dense(6, 24, "sigmoid"),
        LayerNorm(12, 2, "relu"),
        DepthwiseConv1d(12, 2, 3, 1, "tanh"),
        MaxPool(10, 2, 3),
        Gru(3, 2, 4),
        Dense(4, 12, "none"),
        AvgPool(6, 2, 2),
        GlobalAverage(3, 2),
    ),
}
SCHEMA = {
    "rate": 0.5,
    "samples": 2,
    "step": 1,
    "missing": 0.25,
    "mask": 1,
    "task": "forecast",
    "classes": (),
    "target": 1,
    "horizon": 3,
}
POLICY: dict[str, Any] = {
    "assumed_colluders": 1,
    "audit_rate": 0.25,
    "clip": 1.5,
    "committee_min": 3,
    "committee_trusted": 1,
    "delta": 1e-05,
    "epoch_age": 604_800,
    "epoch_rounds": 32,
    "epsilon": 8.0,
    "interval": 60,
    "largest_survivor_set": 100,
    "largest_weight": 2.0,
    "noise_floor": 0.0,
    "noiseless_statistics": 0,
    "recoveries": F,
    "rollback_versions": 3,
    "shards": 2,
    "smallest_group": 5,
    "smallest_survivor_set": 2,
    "tiny_fleet": 1,
    "uploads_per_base": 8,
}
DELTAS = {index: [(index * (j + 1) % 31 - 15) / 64 for j in range(81)] for index in PARTICIPANTS}
REPORTS = {9: LocalReport(640, 512.75, 90, 71.5, 61), 300: LocalReport(128, 80.5, 32, 20.25, 25)}


def fixed(label: str) -> Draw:
    """Random-looking bytes that are the same in every run: the n-th draw of a label has a seed of its own."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return randombytes_buf_deterministic(size, digest("test", f"{label}/{count}".encode()))

    return draw


@dataclass(frozen=True)
class Documents:
    """The owners' desk: keys, credentials and every signed document."""

    owner: Owner
    credentials: dict[int, Credentials]
    root: Frame
    next_owner: Owner
    next_root: Frame
    documents: dict[str, Frame]
    manifest: Frame
    date: Frame
    certificate: Frame
    standardised: Frame
    models: dict[str, Frame]

    @property
    def fleet(self) -> bytes:
        return self.owner.fleet

    def identity(self, index: int) -> Identity:
        return self.credentials[index].identity()

    def hash_of(self, name: str) -> bytes:
        return self.documents[name].hash(self.fleet)

    def frame(self, index: int, message: Table) -> Frame:
        return self.identity(index).frame(message, self.fleet)


@cache
def documents() -> Documents:
    owner = Owner.create(fixed("owner"))
    roles = {1: COORDINATOR, 2: MEMBER, 3: MEMBER | PARTICIPANT, 4: MEMBER, 700: MEMBER}
    roles |= dict.fromkeys((9, 10, 300, 70_000), PARTICIPANT)
    credentials = {
        index: Credentials.draw(
            fixed(f"device {index}"),
            index,
            f"device-{index}",
            role,
            profile="gateway-2g" if index > 500 else "gateway-wifi",
            not_before=0,
            not_after=ISSUED + 10 * YEAR,
            serial=1 + index % 3,
        )
        for index, role in sorted(roles.items())
    }
    certs = [credential.cert for credential in credentials.values()]
    model = owner.model_spec("golden", LAYERS, bytes(range(32)), version=2, issued=ISSUED + 1)
    listed = {
        "committee": owner.committee_document(certs, version=5, issued=ISSUED + 2, revoked=(4, 10)),
        "roster": owner.roster(certs, version=300, issued=ISSUED + 3, revoked=(4, 10)),
        "policy": owner.policy(POLICY, [model], version=3, issued=ISSUED + 4),
        "model": model,
        "profile": owner.profiles(
            [
                Firmware("gateway-wifi", "wifi", 4096, 4, 60, 0, (model.hash(owner.fleet),)),
                Firmware("gateway-2g", "2g", 2048, 4, 300, 1_000_000, (model.hash(owner.fleet),)),
            ],
            version=7,
            issued=ISSUED + 4,
        ),
        "schema": owner.schema(
            model,
            [Channel("co2", "ppm", 300.0, 10_000.0), Channel("temperature", "degC", -40.0, 85.0)],
            SCHEMA,
            version=2,
            issued=ISSUED + 4,
        ),
    }
    manifest = owner.sign_manifest(listed.values(), version=12, issued=ISSUED + 5, not_after=ISSUED + 30 * 86_400)
    successor = replace(owner, root=Owner.create(fixed("next owner")).root)
    return Documents(
        owner=owner,
        credentials=credentials,
        root=owner.sign_root(issued=ISSUED, not_after=ISSUED + 5 * YEAR),
        next_owner=successor,
        next_root=successor.sign_root(issued=ISSUED + 10, not_after=ISSUED + 6 * YEAR, version=2, previous=owner.root),
        documents=listed,
        manifest=manifest,
        date=owner.sign_date(manifest, issued=ISSUED + 20 * 86_400, not_after=ISSUED + 50 * 86_400),
        certificate=owner.certificate(credentials[9].cert, issued=ISSUED + 6),
        standardised=owner.schema(
            model,
            [
                Standardised("co2", "ppm", 300.0, 10_000.0, 812.5, 240.25),
                Channel("temperature", "degC", -40.0, 85.0),
            ],
            SCHEMA,
            version=3,
            issued=ISSUED + 8,
        ),
        models={
            name: owner.model_spec(name, layers, bytes(range(32)), version=3, issued=ISSUED + 7)
            for name, layers in ALONG_TIME.items()
        }
        | {
            "a personal layer": owner.model_spec(
                "personal", LAYERS, bytes(range(32)), version=3, issued=ISSUED + 7, personal=1
            )
        },
    )


class Records:
    """What a party has on disk."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.data.get(key)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        return iter([(key, self.data[key]) for key in sorted(self.data) if key.startswith(prefix)])

    def write(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Save(key, value):
                    self.data[key] = value
                case Erase(key):
                    self.data.pop(key, None)


def verified() -> Trust:
    """One who has taken every golden document but root 2, with the certificate of device 9."""
    owned = documents()
    trust = Trust(owned.fleet, owned.root.hash(owned.fleet), tuple(owned.documents), Records(), ISSUED)
    trust.offer_root(owned.root.to_bytes())
    trust.offer_manifest(owned.manifest.to_bytes())
    for name, frame in owned.documents.items():
        trust.offer_document(name, frame.to_bytes())
    trust.offer_date(owned.date.to_bytes())
    trust.offer_certificate(owned.certificate.to_bytes(), owned.credentials[9].cert.key)
    return trust


@dataclass(frozen=True)
class Setup:
    """One attempt that led to a transcript. Secrets by member, or by (sender, receiver)."""

    call: Frame
    seal_secrets: dict[tuple[int, int], bytes]
    nonces: dict[int, bytes]
    cards: dict[int, Frame]
    card_list: Frame
    vault_secrets: dict[int, bytes]
    sheets: dict[int, Sheet]
    keys: dict[int, Frame]
    boxes: dict[tuple[int, int], Frame]
    ready: dict[int, Frame]
    transcript: Frame
    complaint: Frame

    def points(self, member: int) -> bytes:
        return CommitteeKey.from_body(self.keys[member].body).points

    def round_points(self) -> bytes:
        return committee.round_points([self.points(member) for member in MEMBERS], THRESHOLD, K)

    def commitments(self, member: int) -> list[bytes]:
        return committee.commitments(self.points(member), THRESHOLD)[K]


@cache
def setup() -> Setup:
    owned = documents()
    fleet = owned.fleet
    start = ISSUED + 100
    call = Call(
        COORDINATOR_INDEX, EPOCH, owned.hash_of("committee"), F, FIRST, ROUNDS, start + 604_000, start + 30,
        start + 60, start + 120,
    )  # fmt: skip
    seal_secrets = {(a, b): fixed(f"seal {a} {b}")(32) for a in MEMBERS for b in MEMBERS if a != b}
    nonces = {member: fixed(f"nonce {member}")(32) for member in MEMBERS}
    tables = {
        member: Card(
            member,
            EPOCH,
            call.committee,
            b"".join(public_of(seal_secrets[member, other]) for other in MEMBERS if other != member),
            committee.chain(nonces[member], ROUNDS),
            1,
            12,
        )
        for member in MEMBERS
    }
    cards = {member: owned.frame(member, card) for member, card in tables.items()}
    card_list = CardList(
        COORDINATOR_INDEX,
        EPOCH,
        b"".join(member.to_bytes(4, "little") + cards[member].hash(fleet) for member in MEMBERS),
    )
    list_frame = owned.frame(COORDINATOR_INDEX, card_list)
    list_hash = list_frame.hash(fleet)
    vault_secrets = {member: fixed(f"vault {member}")(32) for member in MEMBERS}
    sheets = {
        member: committee.deal(vault_secrets[member], fixed(f"sheet {member}"), list_hash, ROUNDS, THRESHOLD)
        for member in MEMBERS
    }
    keys = {
        member: owned.frame(
            member,
            CommitteeKey(member, EPOCH, list_hash, FIRST, ROUNDS, call.not_after, sheets[member].points()),
        )
        for member in MEMBERS
    }
    boxes = {}
    for dealer, member in seal_secrets:
        key_hash = keys[dealer].hash(fleet)
        content = ceremony.box_header(key_hash, dealer, member)
        content += b"".join(sheets[dealer].shares(MEMBERS.index(member) + 1))
        public = ceremony.seal_key_for(tables[member], dealer, MEMBERS)
        sealed = seal(content, public, fixed(f"box {dealer} {member}"))
        boxes[dealer, member] = owned.frame(dealer, Box(dealer, EPOCH, list_hash, key_hash, member, sealed))
    transcript = ceremony.transcript(
        call,
        {member: (frame.hash(fleet), CommitteeKey.from_body(frame.body)) for member, frame in keys.items()},
        tables,
        MEMBERS,
    )
    ready = {member: owned.frame(member, transcript) for member in MEMBERS}
    joined = tuple(ready[member].signatures[0] for member in MEMBERS)
    complaint = Complaint(3, EPOCH, boxes[700, 3].to_bytes(), seal_secrets[3, 700])
    return Setup(
        call=owned.frame(COORDINATOR_INDEX, call),
        seal_secrets=seal_secrets,
        nonces=nonces,
        cards=cards,
        card_list=list_frame,
        vault_secrets=vault_secrets,
        sheets=sheets,
        keys=keys,
        boxes=boxes,
        ready=ready,
        transcript=Frame(transcript.KIND, transcript.to_body(), joined),
        complaint=owned.frame(3, complaint),
    )
