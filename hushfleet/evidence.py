"""Evidence that a committee member lied, which anyone can recompute (docs/protocol.md, section 4, blame).

Two things prove it: two different mask sums that one member signed for one set; or one signed mask sum together with
the round secret behind the member's published point, from which everyone computes what the sum should have been.
Neither can be made up: the coordinator has no member's key, and the secret must give the point that all of T signed.
"""

from dataclasses import dataclass
from typing import ClassVar

from hushfleet.errors import MalformedError, RefusedError
from hushfleet.plans import read_transcript
from hushfleet.scratch import ScratchStore
from hushfleet.secagg import group
from hushfleet.secagg.committee import leaf
from hushfleet.trust import Trust
from hushfleet.wire.committee import Transcript
from hushfleet.wire.framing import Bytes, Frame, Frames, Table, entries, read_message
from hushfleet.wire.round import Blame, MaskSum, Plan, Survivors

LARGEST_EVIDENCE = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Evidence(Table):
    """A `Blame` with everything that is needed to judge it far from the fleet: exact frames.

    Attributes:
        roots: root 1 and those after it.
        manifest, committee: who is certified, by the owners.
        plan, transcript: the round, and the committee whose members all signed its points.
        blame: the accusation.
    """

    KIND: ClassVar[str] = "evidence"
    roots: Frames
    manifest: Bytes
    committee: Bytes
    plan: Bytes
    transcript: Bytes
    blame: Bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evidence proves.

    Attributes:
        member: who lied, by roster index.
        round: in which round.
        why: in what way.
    """

    member: int
    round: int
    why: str


def judge_evidence(data: bytes, fleet: bytes, root_hash: bytes) -> Verdict:
    """Judge an evidence file from the fleet's root alone.

    Args:
        data: the file.
        fleet: the fleet's id, 16 bytes.
        root_hash: the hash of root 1, which whoever judges must know from elsewhere.

    Raises:
        MalformedError: not an evidence file, or a frame in it is malformed.
        RefusedError: something in it is not signed, certified or right: it proves nothing.
    """
    evidence = Evidence.from_body(data)
    trust = Trust(fleet, root_hash, ("committee",), ScratchStore(), 0)
    for root in evidence.roots:
        trust.offer_root(root)
    trust.offer_manifest(evidence.manifest)
    trust.offer_document("committee", evidence.committee)
    plan_frame = Frame.from_bytes(evidence.plan)
    plan = read_message(plan_frame, Plan, fleet, trust.coordinator_key)
    if trust.committee is None:
        raise RefusedError("the committee document is not the one that the manifest lists")
    transcript, transcript_hash = read_transcript(evidence.transcript, trust.committee, fleet)
    if plan.transcript != transcript_hash:
        raise RefusedError("the plan names another transcript")
    blame = read_message(Frame.from_bytes(evidence.blame, len(data)), Blame, fleet, trust.coordinator_key)
    return judge_blame(blame, plan, plan_frame.hash(fleet), transcript, trust, fleet)


def judge_blame(
    blame: Blame, plan: Plan, plan_hash: bytes, transcript: Transcript, trust: Trust, fleet: bytes
) -> Verdict:
    """Judge a coordinator's `Blame` against the round it is about; errors as `judge_evidence`."""
    members, k = transcript.committee_indices(), transcript.round_index(plan.round)
    if blame.plan != plan_hash or blame.lost not in members:
        raise RefusedError("the blame is about another plan, or about no member of its committee")
    if leaf(plan.epoch, k, plan.points) != entries(transcript.leaves, 32)[k]:
        raise RefusedError("the plan's points are not those that the committee signed")
    set_frame = Frame.from_bytes(blame.set, len(blame.set))
    survivors = read_message(set_frame, Survivors, fleet, trust.coordinator_key)
    if survivors.plan != plan_hash:
        raise RefusedError("the survivor set is of another plan")
    sums = [_signed_sum(frame, blame.lost, plan_hash, set_frame.hash(fleet), trust, fleet) for frame in blame.sums]
    if len(set(sums)) > 1:
        return Verdict(blame.lost, plan.round, "signed two different mask sums for one set")
    if not sums:
        raise RefusedError("the blame shows no mask sum of the member")
    point = entries(plan.points, 32)[members.index(blame.lost)]
    if group.base_multiply(group.check_scalar(blame.scalar)) != point:
        raise RefusedError("the scalar is not the one behind the member's point: it proves nothing")
    if recomputed(blame.scalar, blame.lost, plan, plan_hash, survivors, fleet) == sums[0]:
        raise RefusedError("the member's mask sum is right: the blame is false")
    return Verdict(blame.lost, plan.round, "signed a mask sum that is not the one its secret gives")


def recomputed(scalar: bytes, member: int, plan: Plan, plan_hash: bytes, survivors: Survivors, fleet: bytes) -> bytes:
    """The packed mask sum that a member's round secret gives over a set."""
    from hushfleet.codec import lanes
    from hushfleet.secagg.masks import MaskContext, mask_sum
    from hushfleet.secagg.residues import Vector

    total = mask_sum(
        Vector.zeros(plan.coords, plan.bits, lanes(plan.tail)),
        scalar,
        member,
        MaskContext(fleet, plan_hash, plan.round),
        [(survivor.index, survivor.y) for survivor in survivors.survivors()],
    )
    return total.to_bytes(plan.bits)


def _signed_sum(data: bytes, member: int, plan_hash: bytes, set_hash: bytes, trust: Trust, fleet: bytes) -> bytes:
    answer = read_message(Frame.from_bytes(data, len(data)), MaskSum, fleet, trust.candidate_key)
    if (answer.sender, answer.plan, answer.set) != (member, plan_hash, set_hash):
        raise MalformedError("a mask sum of another member, plan or set")
    return answer.sum
