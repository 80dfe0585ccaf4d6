"""The round that the golden fleet plays: two uploads, three mask sums, one of them recovered, one new version."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from golden_fleet import (
    COORDINATOR_INDEX,
    DELTAS,
    EPOCH,
    ISSUED,
    LOST,
    MEMBERS,
    PARTICIPANTS,
    POLICY,
    REPORTS,
    ROUND,
    ROUNDS,
    SIZE,
    Documents,
    K,
    Setup,
    documents,
    fixed,
    setup,
)

from hushfleet import codec
from hushfleet.codec import encode_plain, open_plain, plain_step
from hushfleet.hashing import digest
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.server import model_hash
from hushfleet.mqtt.chunks import chunk_hashes, cut
from hushfleet.secagg import committee
from hushfleet.secagg.masks import MaskContext, RoundKey, add_masks, mask_sum, round_key
from hushfleet.secagg.residues import Vector, add_into, subtract_from
from hushfleet.secagg.sealing import seal
from hushfleet.statistics import Digits
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import Frame, entries
from hushfleet.wire.round import (
    ABORTED,
    ACCEPTED,
    APPLIED,
    BATTERY,
    CLOSED,
    MISSING,
    NONE,
    OPERATOR,
    PLAIN,
    REFUSED,
    ROLLBACK,
    TOO_FEW,
    TRAIN,
    Ack,
    Acks,
    Blame,
    Chunks,
    Claim,
    Decline,
    Delta,
    Header,
    MaskSum,
    Metrics,
    Plan,
    Receipt,
    Request,
    Result,
    Share,
    Sums,
    Survivor,
    Survivors,
    bitmap,
)


@dataclass(frozen=True)
class Upload:
    """One participant's part."""

    vault_secret: bytes
    random: bytes
    plain: bytes
    key: RoundKey
    data: bytes
    claim: Claim
    signature: bytes
    header: Frame


@dataclass(frozen=True)
class Round:
    """One round that was applied, member 700 recovered."""

    plan: Frame
    uploads: dict[int, Upload]
    survivors: Frame
    mask_sums: dict[int, bytes]
    answers: dict[int, Frame]
    sealed_answers: dict[int, bytes]
    requests: dict[int, Frame]
    shares: dict[int, Frame]
    sealed_shares: dict[int, bytes]
    opened: codec.Opened
    total: bytes
    base: bytes
    after: bytes
    delta: Frame
    result: Frame
    aborted: Frame
    sums: Frame
    described: Frame
    rollback: Frame
    receipts: dict[str, Frame]
    decline: Frame
    sealed_decline: bytes
    acks: dict[int, Frame]
    acks_frame: Frame
    blame: Frame
    chunks: Frame

    def plan_hash(self) -> bytes:
        return self.plan.hash(documents().fleet)


@cache
def played() -> Round:
    owned, epoch = documents(), setup()
    fleet, spec = owned.fleet, ModelSpec.from_body(owned.documents["model"].body)
    flat = initial_flat(spec.layers, spec.init)
    plan = _plan(owned, epoch, spec)
    plan_frame = owned.frame(COORDINATOR_INDEX, plan)
    plan_hash = plan_frame.hash(fleet)
    context = MaskContext(fleet, plan_hash, ROUND)
    uploads = {index: _upload(owned, epoch, plan, plan_hash, index) for index in PARTICIPANTS}
    lines = [
        Survivor(index, upload.key.point, upload.claim.upload, upload.signature) for index, upload in uploads.items()
    ]
    survivors = owned.frame(
        COORDINATOR_INDEX, Survivors(COORDINATOR_INDEX, plan_hash, b"".join(line.to_bytes() for line in lines))
    )
    set_hash = survivors.hash(fleet)
    seal_to = owned.credentials[COORDINATOR_INDEX].cert.seal
    total = Vector.zeros(plan.coords, plan.bits, 8)
    for upload in uploads.values():
        add_into(total, Vector.from_bytes(upload.data, plan.bits, plan.coords, 8))
    mask_sums = {}
    for member in MEMBERS:
        secret = epoch.sheets[member].secrets()[K]
        points = [(line.index, line.y) for line in lines]
        vector = mask_sum(Vector.zeros(plan.coords, plan.bits, 8), secret, member, context, points)
        mask_sums[member] = vector.to_bytes(plan.bits)
        subtract_from(total, vector)
    answers = {
        member: owned.frame(member, MaskSum(member, plan_hash, set_hash, 0, bytes(32), mask_sums[member], 1, 12))
        for member in MEMBERS
    }
    helpers = [member for member in MEMBERS if member != LOST]
    shares = {
        member: owned.frame(
            member,
            Share(member, plan_hash, set_hash, LOST, epoch.sheets[LOST].shares(MEMBERS.index(member) + 1)[K]),
        )
        for member in helpers
    }
    opened = open_plain(
        total,
        len(lines),
        coords=plan.coords,
        clip=plan.clip,
        step=plan.step,
        largest_weight=POLICY["largest_weight"],
        checksum_seed=digest("chks", plan_hash),
    )
    body = codec.pack_opened(opened.residues, plan.bits)
    after = codec.apply_delta(flat, body, bits=plan.bits, step=plan.step, weight=opened.weight, rate=1.0)
    delta = owned.frame(
        COORDINATOR_INDEX,
        Delta(COORDINATOR_INDEX, plan.base + 1, plan_hash, plan.bits, body, plan.step, opened.weight, 1.0, 0, 0.0, ()),
    )
    measured = opened.metrics
    metrics = Metrics(
        measured.examples,
        measured.training_loss,
        measured.evaluated,
        measured.evaluation_loss,
        measured.correct,
        measured.norm,
    )
    result = Result(
        COORDINATOR_INDEX,
        plan_hash,
        ROUND,
        APPLIED,
        0,
        plan.base,
        plan.base_hash,
        plan.base + 1,
        model_hash(after),
        delta.hash(fleet),
        bitmap(PARTICIPANTS),
        plan.step,
        metrics,
    )
    aborted = replace(
        result,
        outcome=ABORTED,
        reason=TOO_FEW,
        version=plan.base,
        version_hash=plan.base_hash,
        delta=bytes(32),
        included=b"",
        metrics=Metrics(0, 0.0, 0, 0.0, 0, 0.0),
    )
    numbers = b"".join(number.to_bytes(8, "little") for number in (0, 1, 3 * Digits.of(31).top))
    schema_hash = owned.documents["schema"].hash(fleet)
    sums = owned.frame(
        COORDINATOR_INDEX,
        Sums(COORDINATOR_INDEX, plan_hash, schema_hash, len(lines), Digits.of(31).top, numbers),
    )
    described = replace(aborted, outcome=APPLIED, reason=0, included=result.included, delta=sums.hash(fleet))
    rollback = replace(
        aborted,
        plan=bytes(32),
        round=ROUND + 1,
        outcome=ROLLBACK,
        reason=OPERATOR,
        base=result.version,
        base_hash=result.version_hash,
    )
    upload_hash = uploads[9].claim.upload
    receipts = {
        "accepted": Receipt(COORDINATOR_INDEX, ROUND, upload_hash, ACCEPTED, NONE, b""),
        "refused": Receipt(COORDINATOR_INDEX, ROUND, upload_hash, REFUSED, CLOSED, b""),
        "chunks missing": Receipt(COORDINATOR_INDEX, ROUND, upload_hash, MISSING, NONE, b"\x01"),
    }
    acks = {
        member: owned.frame(
            member, Ack(member, plan_hash, set_hash, committee.chain(epoch.nonces[member], ROUNDS - 1 - K))
        )
        for member in helpers
    }
    decline = owned.frame(9, Decline(9, plan_hash, BATTERY))
    snapshot = after.astype("<f4").tobytes()
    return Round(
        plan=plan_frame,
        uploads=uploads,
        survivors=survivors,
        mask_sums=mask_sums,
        answers=answers,
        sealed_answers={
            member: seal(frame.to_bytes(), seal_to, fixed(f"answer {member}")) for member, frame in answers.items()
        },
        requests={
            member: owned.frame(COORDINATOR_INDEX, Request(COORDINATOR_INDEX, plan_hash, set_hash, LOST))
            for member in helpers
        },
        shares=shares,
        sealed_shares={
            member: seal(frame.to_bytes(), seal_to, fixed(f"share {member}")) for member, frame in shares.items()
        },
        opened=opened,
        total=total.to_bytes(plan.bits),
        base=flat.astype("<f4").tobytes(),
        after=snapshot,
        delta=delta,
        result=owned.frame(COORDINATOR_INDEX, result),
        aborted=owned.frame(COORDINATOR_INDEX, aborted),
        sums=sums,
        described=owned.frame(COORDINATOR_INDEX, described),
        rollback=owned.frame(COORDINATOR_INDEX, rollback),
        receipts={name: owned.frame(COORDINATOR_INDEX, receipt) for name, receipt in receipts.items()},
        decline=decline,
        sealed_decline=seal(decline.to_bytes(), seal_to, fixed("decline")),
        acks=acks,
        acks_frame=owned.frame(
            COORDINATOR_INDEX,
            Acks(
                COORDINATOR_INDEX,
                plan_hash,
                set_hash,
                tuple(frame.to_bytes() for frame in acks.values()),
                survivors.to_bytes(),
                tuple(frame.to_bytes() for frame in acks.values()),
            ),
        ),
        blame=owned.frame(
            COORDINATOR_INDEX,
            Blame(
                COORDINATOR_INDEX,
                plan_hash,
                LOST,
                survivors.to_bytes(),
                (answers[LOST].to_bytes(),),
                epoch.sheets[LOST].secrets()[K],
            ),
        ),
        chunks=Frame(Chunks.KIND, Chunks(len(snapshot), SIZE, chunk_hashes(cut(snapshot, SIZE))).to_body()),
    )


def _plan(owned: Documents, epoch: Setup, spec: ModelSpec) -> Plan:
    opens = ISSUED + 1_000
    return Plan(
        sender=COORDINATOR_INDEX,
        round=ROUND,
        kind=TRAIN,
        model=owned.hash_of("model"),
        base=0,
        base_hash=spec.zero,
        roster=owned.hash_of("roster"),
        policy=owned.hash_of("policy"),
        epoch=EPOCH,
        transcript=epoch.transcript.hash(owned.fleet),
        points=epoch.round_points(),
        opens=opens,
        closes=opens + 600,
        until=opens + 700,
        sample=2**32,
        grouped=0,
        codec=PLAIN,
        bits=16,
        coords=spec.parameters(),
        keep=1.0,
        clip=1.25,
        step=plain_step(1.25, POLICY["largest_survivor_set"]),
        seed=fixed("grid")(32),
        noise=0.0,
        tail=0,
        steps=20,
        batch=32,
        rate=0.05,
        momentum=0.9,
        proximal=0.0,
    )


def _upload(owned: Documents, epoch: Setup, plan: Plan, plan_hash: bytes, index: int) -> Upload:
    vector = encode_plain(
        np.array(DELTAS[index], np.float32),
        1.0,
        REPORTS[index],
        clip=plan.clip,
        step=plan.step,
        largest_survivor_set=POLICY["largest_survivor_set"],
        checksum_seed=digest("chks", plan_hash),
        draw=fixed(f"rounding {index}"),
    )
    plain, vault_secret = vector.to_bytes(plan.bits), fixed(f"vault {index}")(32)
    key = round_key(vault_secret, fixed(f"y {index}"), plan_hash, digest("body", plain))
    members = list(zip(MEMBERS, entries(plan.points, 32), strict=True))
    add_masks(vector, key, MaskContext(owned.fleet, plan_hash, plan.round), index, members)
    data = vector.to_bytes(plan.bits)
    hashes = chunk_hashes(cut(data, SIZE))
    unsigned = Header(plan.round, key.point, len(data), SIZE, hashes, bytes(64))
    claim = Claim(plan.roster, plan_hash, plan.round, index, key.point, unsigned.upload_hash())
    signature = owned.identity(index).sign("upload", owned.fleet, claim.to_bytes())
    header = Frame(Header.KIND, replace(unsigned, sig=signature).to_body())
    return Upload(vault_secret, fixed(f"y {index}")(32), plain, key, data, claim, signature, header)
