"""What the golden fleet says and computes, spelled out for the vectors: documents, set-up, round, masks."""

from typing import Any

import golden_fleet
import golden_round
import msgpack
import numpy as np
from golden_fleet import LOST, MEMBERS, POLICY, REPORTS, ROUND, ROUNDS, SIZE, THRESHOLD, Documents, K, fixed
from second_writing import readable

from hushfleet.hashing import digest, key_id
from hushfleet.secagg import committee, group, sealing, sharing
from hushfleet.secagg.masks import MaskContext, add_keystream
from hushfleet.secagg.residues import Vector
from hushfleet.wire import committee as set_up
from hushfleet.wire import documents as documented
from hushfleet.wire import layers as layered
from hushfleet.wire import round as rounds
from hushfleet.wire import schema as schemas
from hushfleet.wire.framing import Frame, Table, entries

Section = dict[str, Any] | list[dict[str, Any]]

WIRE: dict[str, type[Table]] = {
    table.KIND: table
    for module in (documented, layered, schemas, set_up, rounds)
    for table in vars(module).values()
    if isinstance(table, type) and issubclass(table, Table) and table.KIND
}
"""Every table of the wire by its type."""


def described(name: str, frame: Frame, fleet: bytes) -> dict[str, Any]:
    """A frame with everything in it spelled out."""
    return {
        "name": name,
        "type": frame.kind,
        "fields": readable(msgpack.unpackb(frame.body)),
        "body": frame.body.hex(),
        "hash": frame.hash(fleet).hex(),
        "signatures": [
            {"signer": signer.hex() if isinstance(signer, bytes) else signer, "signature": signature.hex()}
            for signer, signature in frame.signatures
        ],
        "frame": frame.to_bytes().hex(),
    }


def documents(owned: Documents) -> Section:
    keys = owned.owner.key_sets() | {"next root": owned.next_owner.root}
    fleet = owned.fleet
    frames = [
        ("root 1", owned.root),
        ("root 2", owned.next_root),
        ("manifest", owned.manifest),
        ("date", owned.date),
        *owned.documents.items(),
        ("certificate of device 9", owned.certificate),
        ("schema: a channel standardised", owned.standardised),
        *((f"model of {name}", frame) for name, frame in owned.models.items()),
    ]
    return {
        "fleet": fleet.hex(),
        "owner_keys": {
            name: [
                {"seed": seed.hex(), "key": who.public_key.hex(), "id": key_id(who.public_key).hex()}
                for seed, who in zip(key_set.seeds, key_set.identities(), strict=True)
            ]
            for name, key_set in keys.items()
        },
        "devices": [
            {
                "index": index,
                "seed": credential.identity_seed.hex(),
                "key": credential.cert.key.hex(),
                "roles": credential.cert.roles,
                "seal_secret": credential.seal_secret.hex() if credential.seal_secret else "",
            }
            for index, credential in owned.credentials.items()
        ],
        "frames": [described(name, frame, fleet) for name, frame in frames],
    }


def setup(owned: Documents) -> Section:
    played, fleet = golden_fleet.setup(), owned.fleet
    frames = [
        ("call", played.call),
        *((f"card of {member}", frame) for member, frame in played.cards.items()),
        ("list", played.card_list),
        *((f"key of {member}", frame) for member, frame in played.keys.items()),
        *((f"box of {a} for {b}", frame) for (a, b), frame in played.boxes.items()),
        *((f"ready of {member}", frame) for member, frame in played.ready.items()),
        ("transcript", played.transcript),
        ("complaint", played.complaint),
    ]
    members = []
    for member in MEMBERS:
        sheet, position = played.sheets[member], MEMBERS.index(member) + 1
        others = [other for other in MEMBERS if other != member]
        members.append(
            {
                "member": member,
                "position": position,
                "nonce": played.nonces[member].hex(),
                "links": [committee.chain(played.nonces[member], n).hex() for n in range(ROUNDS + 1)],
                "seal_secrets": {str(other): played.seal_secrets[member, other].hex() for other in others},
                "vault_secret": played.vault_secrets[member].hex(),
                "random": fixed(f"sheet {member}")(32).hex(),
                "coefficients": [[a.hex() for a in polynomial] for polynomial in sheet.polynomials],
                "points": sheet.points().hex(),
                "shares_dealt": {
                    str(other): [share.hex() for share in sheet.shares(MEMBERS.index(other) + 1)] for other in MEMBERS
                },
            }
        )
    boxes = [
        {
            "from": a,
            "to": b,
            "to_key": sealing.public_of(played.seal_secrets[b, a]).hex(),
            "ephemeral": fixed(f"box {a} {b}")(32).hex(),
            "content": sealing.unseal(_field(frame, "box"), played.seal_secrets[b, a]).hex(),
        }
        for (a, b), frame in played.boxes.items()
    ]
    return {
        "threshold": THRESHOLD,
        "members": members,
        "boxes": boxes,
        "frames": [described(name, frame, fleet) for name, frame in frames],
    }


def _field(frame: Frame, name: str) -> bytes:
    value: bytes = msgpack.unpackb(frame.body)[name]
    return value


def a_round(owned: Documents) -> Section:
    played, fleet = golden_round.played(), owned.fleet
    frames = [
        ("plan", played.plan),
        *((f"header of {index}", upload.header) for index, upload in played.uploads.items()),
        *((f"receipt: {name}", frame) for name, frame in played.receipts.items()),
        ("decline", played.decline),
        ("survivors", played.survivors),
        *((f"ack of {member}", frame) for member, frame in played.acks.items()),
        ("acks", played.acks_frame),
        *((f"mask sum of {member}", frame) for member, frame in played.answers.items()),
        *((f"request to {member}", frame) for member, frame in played.requests.items()),
        *((f"share of {member}", frame) for member, frame in played.shares.items()),
        ("blame", played.blame),
        ("result: applied", played.result),
        ("result: aborted", played.aborted),
        ("result: statistics applied", played.described),
        ("sums", played.sums),
        ("result: rollback", played.rollback),
        ("delta", played.delta),
        ("chunks of the snapshot", played.chunks),
    ]
    sealed = [
        *((f"answer {member}", data) for member, data in played.sealed_answers.items()),
        *((f"share {member}", data) for member, data in played.sealed_shares.items()),
        ("decline", played.sealed_decline),
    ]
    return {
        "claims": [
            {
                "index": index,
                "claim": upload.claim.to_bytes().hex(),
                "signature": upload.signature.hex(),
                "upload": upload.data.hex(),
                "chunk_size": SIZE,
            }
            for index, upload in played.uploads.items()
        ],
        "sealed_to_coordinator": [
            {"name": name, "ephemeral": fixed(name)(32).hex(), "sealed": data.hex()} for name, data in sealed
        ],
        "base": played.base.hex(),
        "snapshot": played.after.hex(),
        "frames": [described(name, frame, fleet) for name, frame in frames],
    }


def masking(owned: Documents) -> Section:
    """From a participant's residues to the opened sum."""
    played, epoch = golden_round.played(), golden_fleet.setup()
    plan_hash = played.plan_hash()
    context = MaskContext(owned.fleet, plan_hash, ROUND)
    points = dict(zip(MEMBERS, entries(epoch.round_points(), 32), strict=True))
    participants = []
    for index, upload in played.uploads.items():
        pairs = []
        for member, point in points.items():
            shared = group.multiply(upload.key.y, point)
            seed = context.seed(shared, index, member, upload.key.point, point)
            mask = Vector.zeros(81, 16, 8)
            add_keystream(mask, seed)
            pairs.append(
                {"member": member, "shared": shared.hex(), "seed": seed.hex(), "mask": mask.to_bytes(16).hex()}
            )
        report = REPORTS[index]
        participants.append(
            {
                "index": index,
                "delta": np.array(golden_fleet.DELTAS[index], "<f4").tobytes().hex(),
                "report": [
                    report.examples,
                    report.training_loss_sum,
                    report.evaluated,
                    report.evaluation_loss_sum,
                    report.correct,
                ],
                "rounding": fixed(f"rounding {index}")(8 * 81).hex(),
                "plain": upload.plain.hex(),
                "plain_hash": digest("body", upload.plain).hex(),
                "vault_secret": upload.vault_secret.hex(),
                "random": upload.random.hex(),
                "y": upload.key.y.hex(),
                "Y": upload.key.point.hex(),
                "pairs": pairs,
                "upload": upload.data.hex(),
            }
        )
    helpers = [member for member in MEMBERS if member != LOST]
    shares = [
        (MEMBERS.index(member) + 1, epoch.sheets[LOST].shares(MEMBERS.index(member) + 1)[K]) for member in helpers
    ]
    return {
        "fleet": owned.fleet.hex(),
        "plan_hash": plan_hash.hex(),
        "round": ROUND,
        "bits": 16,
        "coords": 81,
        "largest_survivor_set": POLICY["largest_survivor_set"],
        "checksum_seed": digest("chks", plan_hash).hex(),
        "participants": participants,
        "members": [
            {
                "member": member,
                "secret": epoch.sheets[member].secrets()[K].hex(),
                "point": points[member].hex(),
                "mask_sum": played.mask_sums[member].hex(),
            }
            for member in MEMBERS
        ],
        "recovery": {
            "lost": LOST,
            "commitments": [point.hex() for point in epoch.commitments(LOST)],
            "shares": [{"position": position, "share": share.hex()} for position, share in shares],
            "secret": sharing.interpolate(shares).hex(),
        },
        "total": played.total.hex(),
        "residues": played.opened.residues.tolist(),
        "weight": played.opened.weight,
    }
