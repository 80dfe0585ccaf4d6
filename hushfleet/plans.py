"""What everyone checks before a plan counts, whatever the coordinator says (docs/protocol.md, sections 2-4, 11.4)."""

from dataclasses import dataclass

from hushfleet.errors import ConfigurationError, MalformedError, RefusedError
from hushfleet.hashing import digest
from hushfleet.secagg.committee import leaf
from hushfleet.trust import Trust
from hushfleet.wire.committee import Transcript
from hushfleet.wire.documents import CommitteeDocument, ModelSpec, Policy
from hushfleet.wire.framing import Frame, entries, read
from hushfleet.wire.round import PLAIN, POLICY, STALE_FLEET, STATISTICS, UPGRADE_NEEDED, Plan

LARGEST_TRANSCRIPT = 64 * 1024 - 4096
"""Bytes of a transcript frame: 1,024 leaves and 32 signatures fit."""

SKEW = 300


def clock_skew(policy: Policy) -> int:
    """Seconds by which the clocks of coordinator and devices may differ: 300, less where epochs are short."""
    return min(SKEW, policy.epoch_age // 10)


class PlanRefusedError(RefusedError):
    """A plan this device does not follow; `reason` is the coarse one of a `decline`."""

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class VerifiedPlan:
    """A plan with everything it was checked against.

    Attributes:
        plan: the coordinator's signed plan.
        hash: its body hash, by which every message of the round names it.
        frame: its exact bytes.
        transcript: the committee it names.
        policy: the owners' policy of the same manifest.
        model: the owners' model spec of the same manifest.
    """

    plan: Plan
    hash: bytes
    frame: bytes
    transcript: Transcript
    policy: Policy
    model: ModelSpec

    @property
    def k(self) -> int:
        """The round's index in its epoch, from 0."""
        return self.transcript.round_index(self.plan.round)

    def committee(self) -> list[tuple[int, bytes]]:
        """(member, S_{h,k}) of T, ascending by member."""
        return list(zip(self.transcript.committee_indices(), entries(self.plan.points, 32), strict=True))


def read_transcript(data: bytes, document: CommitteeDocument, fleet: bytes) -> tuple[Transcript, bytes]:
    """A usable transcript and its hash: signed by every member of T, each a candidate of the newest committee document.

    Raises:
        MalformedError: another form, or signers that are not exactly T.
        RefusedError: a member that is no candidate any more, or a bad signature.
    """
    frame = Frame.from_bytes(data, limit=LARGEST_TRANSCRIPT)
    transcript = read(frame, Transcript)
    members = transcript.committee_indices()
    if tuple(signer for signer, _ in frame.signatures) != members:
        raise MalformedError("transcript: its signers are not exactly its members")
    candidates = document.candidates()
    for member in members:
        if member not in candidates or not frame.signed_by(member, candidates[member].key, fleet):
            raise RefusedError(f"transcript: not signed by a certified member {member}")
    return transcript, frame.hash(fleet)


def check_transcript(transcript: Transcript, policy: Policy, opens: int) -> None:
    """Raise PlanRefusedError unless this committee satisfies the newest policy at a plan's opening time."""
    members = transcript.committee_indices()
    if transcript.f != policy.recoveries or len(members) < policy.committee_min:
        raise PlanRefusedError(POLICY, "the committee is smaller than the policy asks, or recovers another number")
    if transcript.rounds > policy.epoch_rounds or transcript.not_after > opens + policy.epoch_age:
        raise PlanRefusedError(POLICY, "the epoch is longer than the policy allows")


def check_plan(
    plan: Plan, plan_hash: bytes, frame: bytes, trust: Trust, transcript: Transcript, now: float
) -> VerifiedPlan:
    """Everything about a signed plan that does not depend on this device's own past.

    Args:
        plan: signed by the coordinator.
        plan_hash: its hash.
        frame: its bytes.
        trust: in state ready; its documents are those of the newest manifest.
        transcript: verified, and the one that the plan names by hash.
        now: the device's clock.

    Raises:
        PlanRefusedError: with the reason for a decline.
        MalformedError: the round is outside the epoch.
    """
    policy, model = trust.policy, trust.model
    if policy is None or model is None:
        raise PlanRefusedError(POLICY, "the documents that the plan names are not here")
    if (plan.roster, plan.policy, plan.model) != (
        trust.hash_of("roster"),
        trust.hash_of("policy"),
        trust.hash_of("model"),
    ):
        raise PlanRefusedError(POLICY, "the plan names documents that are not those of the newest manifest")
    if plan.model not in policy.models:
        raise PlanRefusedError(POLICY, "the policy does not allow this model spec")
    check_transcript(transcript, policy, plan.opens)
    _check_members(transcript, trust, now)
    k = transcript.round_index(plan.round)
    committee_size = len(transcript.committee_indices())
    if plan.epoch != transcript.epoch or plan.until > transcript.not_after:
        raise PlanRefusedError(POLICY, "the plan reaches beyond its epoch")
    if len(plan.points) != 32 * committee_size or leaf(plan.epoch, k, plan.points) != entries(transcript.leaves, 32)[k]:
        raise PlanRefusedError(POLICY, "the round's points are not those of the transcript")
    if plan.grouped or plan.noise or policy.noise_floor:
        raise PlanRefusedError(UPGRADE_NEEDED, "this software sums ungrouped, without noise")
    if plan.kind == STATISTICS:
        _check_statistics(plan, policy)
    else:
        _check_training(plan, policy, model)
    return VerifiedPlan(plan, plan_hash, frame, transcript, policy, model)


def _check_members(transcript: Transcript, trust: Trust, now: float) -> None:
    """The documents may have changed since the transcript was verified, or this device may lag behind its members."""
    if not set(transcript.committee_indices()) <= set(trust.candidates(now)):
        raise PlanRefusedError(POLICY, "a member of the plan's committee is no certified candidate any more")
    if trust.pair < (transcript.root, transcript.manifest):
        raise PlanRefusedError(STALE_FLEET, "the plan's committee knows a newer manifest than this device")


def _check_statistics(plan: Plan, policy: Policy) -> None:
    """How many numbers there are, only those with the schema know: the participants."""
    from hushfleet.statistics import CLIP, TAIL, Digits

    if not policy.noiseless_statistics:
        raise PlanRefusedError(POLICY, "statistics without noise, and the owners have not signed noiseless_statistics")
    encoding = (plan.codec, plan.bits, plan.keep, plan.clip, plan.tail)
    if encoding != (PLAIN, 16, 1.0, CLIP, TAIL) or plan.step != Digits.of(policy.largest_survivor_set).step:
        raise PlanRefusedError(POLICY, "the plan's encoding is not that of statistics")


def _check_training(plan: Plan, policy: Policy, model: ModelSpec) -> None:
    if plan.tail:
        raise PlanRefusedError(UPGRADE_NEEDED, "this software trains without noise")
    if plan.clip > policy.clip or not plan.steps or not plan.batch:
        raise PlanRefusedError(POLICY, "the plan's clipping norm or training numbers are out of the policy's range")
    if plan.codec == PLAIN:
        _check_plain(plan, policy, model)
    else:
        _check_rotated(plan, model)


def _check_plain(plan: Plan, policy: Policy, model: ModelSpec) -> None:
    from hushfleet.codec import plain_step

    if plan.bits != 16 or plan.keep != 1.0 or plan.step != plain_step(plan.clip, policy.largest_survivor_set):
        raise PlanRefusedError(POLICY, "the plan's encoding is not the plain codec's")
    if plan.coords != model.parameters():
        raise PlanRefusedError(POLICY, "the plan's coordinates are not the model's parameters")


def _check_rotated(plan: Plan, model: ModelSpec) -> None:
    from hushfleet.encoding.subset import coordinates
    from hushfleet.rotated import check_step

    if not 0.0 < plan.keep <= 1.0 or plan.coords != coordinates(model.parameters(), plan.keep):
        raise PlanRefusedError(POLICY, "the plan's coordinates are not that fraction of the model's parameters")
    try:
        check_step(plan.clip, plan.step)
    except ConfigurationError as error:
        raise PlanRefusedError(POLICY, str(error)) from None


def picked(plan_hash: bytes, index: int, sample: int) -> bool:
    """Whether the plan's sample takes this device; for load, not for privacy (section 4)."""
    return int.from_bytes(digest("pick", plan_hash, index.to_bytes(4, "little"))[:4], "little") < sample
