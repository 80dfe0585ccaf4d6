"""The coordinator's memory is one sum, however many upload: what it holds besides is some 132 bytes an upload."""

import tracemalloc
from pathlib import Path

import pytest
from signed_fleet import START, FleetKeys, make_fleet, seeded

from coordinator.context import Context
from coordinator.ledger import Ledger
from coordinator.uploads import Uploads
from hushfleet.actions import Action, Erase, Save
from hushfleet.codec import lanes
from hushfleet.hashing import digest
from hushfleet.mqtt.chunks import chunk_hashes, cut
from hushfleet.mqtt.topics import Topics
from hushfleet.secagg import group
from hushfleet.secagg.residues import vector_length
from hushfleet.trust import Trust
from hushfleet.wire.documents import Policy, Roster
from hushfleet.wire.framing import Frame
from hushfleet.wire.layers import Dense
from hushfleet.wire.round import Claim, Header, Plan

LAYERS = (Dense(999, 100, "none"),)
PARAMETERS = 100_000
CHUNK = 32_768


def plan_of(keys: FleetKeys) -> Plan:
    """A plan that nobody signed: only its numbers count here."""
    names = {name: frame.hash(keys.fleet) for name, frame in keys.documents.items()}
    return Plan(
        sender=0, round=1, kind=0, model=names["model"], base=0, base_hash=bytes(32), roster=names["roster"],
        policy=names["policy"], epoch=1, transcript=bytes(32), points=b"", opens=START, closes=START + 60,
        until=START + 90, sample=1 << 32, grouped=0, codec=0, bits=16, coords=PARAMETERS, keep=1.0, clip=4.0,
        step=0.01, seed=bytes(32), noise=0.0, tail=0, steps=1, batch=1, rate=0.1, momentum=0.0, proximal=0.0,
    )  # fmt: skip


def upload(keys: FleetKeys, plan: Plan, plan_hash: bytes, device: int) -> tuple[bytes, list[bytes]]:
    """A device's header and slices; the residues are noise, as those of any masked upload."""
    pieces = cut(seeded(("noise", device))(vector_length(PARAMETERS, 16, lanes(0))), CHUNK)
    point = group.base_multiply(group.scalar(device + 2))
    hashes = chunk_hashes(pieces)
    bare = Header(1, point, sum(map(len, pieces)), CHUNK, hashes, bytes(64))
    claim = Claim(plan.roster, plan_hash, 1, device, point, bare.upload_hash())
    signature = keys.credentials[device].identity().sign("upload", keys.fleet, claim.to_bytes())
    header = Header(1, point, bare.length, CHUNK, hashes, signature)
    return Frame(Header.KIND, header.to_body()).to_bytes(), pieces


def peak_of(participants: int, directory: Path) -> int:
    """Bytes of memory at the peak, while so many upload into a real ledger; all of them are accepted."""
    keys = make_fleet(participants, 3, layers=LAYERS, largest_survivor_set=1000)
    plan, plan_hash = plan_of(keys), digest("body", b"plan")
    directory.mkdir(mode=0o700)
    ledger = Ledger(directory / "ledger.db")
    trust = Trust(keys.fleet, keys.root.hash(keys.fleet), (), ledger, START)
    context = Context(
        keys.fleet, 0, keys.credentials[0].identity(), bytes(32), trust, Topics(keys.fleet), ledger, seeded(0), CHUNK
    )
    uploads = Uploads(
        context,
        plan,
        plan_hash,
        Policy.from_body(keys.documents["policy"].body),
        Roster.from_body(keys.documents["roster"].body),
        evidence=False,
    )

    def keep(actions: list[Action]) -> None:
        with ledger.transaction():
            for action in actions:
                if isinstance(action, Save):
                    ledger.save(action.key, action.value)
                elif isinstance(action, Erase):
                    ledger.erase(action.key)

    tracemalloc.start()
    try:
        for number, device in enumerate(sorted(keys.credentials)[-participants:]):
            header, pieces = upload(keys, plan, plan_hash, device)
            keep(uploads.on_header(device, header, True, START + number))
            for chunk, piece in enumerate(pieces, start=1):
                keep(uploads.on_chunk(device, chunk, piece, START + number))
        assert len(uploads.accepted) == participants
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        ledger.close()


def test_it_does_not_grow_with_the_number_of_uploads(tmp_path: Path) -> None:
    few, many = peak_of(10, tmp_path / "few"), peak_of(120, tmp_path / "many")
    upload_size = vector_length(PARAMETERS, 16, lanes(0))
    assert few > upload_size
    # 110 more uploads of 200 kB: their names may stay, none of their bytes.
    assert many - few < upload_size
    assert (many - few) / 110 == pytest.approx(0, abs=2_000)
