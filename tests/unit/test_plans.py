"""What a plan must be before it counts: the golden plan passes, and every change to it is refused with its reason."""

from dataclasses import replace
from typing import Any

import golden_fleet
import golden_round
import pytest
from golden_fleet import COORDINATOR_INDEX, ISSUED, MEMBERS, POLICY, verified

from hushfleet.errors import MalformedError, RefusedError
from hushfleet.hashing import digest
from hushfleet.plans import PlanRefusedError, check_plan, picked, read_transcript
from hushfleet.trust import Trust
from hushfleet.wire import round as reasons
from hushfleet.wire.committee import Transcript
from hushfleet.wire.documents import CommitteeDocument
from hushfleet.wire.framing import Frame, pack_indices
from hushfleet.wire.round import Plan

OWNED, SETUP = golden_fleet.documents(), golden_fleet.setup()
OWNER, FLEET = OWNED.owner, OWNED.fleet
FRAME = golden_round.played().plan
PLAN = Plan.from_body(FRAME.body)
TRANSCRIPT = Transcript.from_body(SETUP.transcript.body)
CERTS = [credential.cert for credential in OWNED.credentials.values()]


def check(
    plan: Plan = PLAN, transcript: Transcript = TRANSCRIPT, trust: Trust | None = None, now: float = PLAN.opens
) -> int:
    verified_plan = check_plan(plan, FRAME.hash(FLEET), FRAME.to_bytes(), trust or verified(), transcript, now)
    assert verified_plan.committee() == list(zip(MEMBERS, _points(plan), strict=True))
    return verified_plan.k


def _points(plan: Plan) -> list[bytes]:
    return [plan.points[at : at + 32] for at in range(0, len(plan.points), 32)]


def test_the_golden_plan_passes() -> None:
    assert check() == golden_fleet.K


def test_a_plan_of_the_rotated_codec_may_have_any_step_that_is_not_too_small() -> None:
    for bits, step in ((2, 0.1), (7, PLAN.clip * 2.0**-20)):
        assert check(replace(PLAN, codec=1, bits=bits, step=step)) == golden_fleet.K


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("POLICY", {"roster": bytes(32)}),
        ("POLICY", {"policy": bytes(32)}),
        ("POLICY", {"model": bytes(32)}),
        ("POLICY", {"epoch": 8}),
        ("POLICY", {"until": TRANSCRIPT.not_after + 1}),
        ("POLICY", {"round": PLAN.round + 1}),
        ("POLICY", {"points": PLAN.points[32:]}),
        ("POLICY", {"points": PLAN.points[32:64] + PLAN.points[:32] + PLAN.points[64:]}),
        ("POLICY", {"points": PLAN.points + PLAN.points[:32]}),
        ("POLICY", {"opens": TRANSCRIPT.not_after - POLICY["epoch_age"] - 1}),
        ("POLICY", {"clip": 1.6}),
        ("POLICY", {"steps": 0}),
        ("POLICY", {"batch": 0}),
        ("POLICY", {"bits": 8}),
        ("POLICY", {"keep": 0.5}),
        ("POLICY", {"step": PLAN.step * 2}),
        ("POLICY", {"step": PLAN.step * (1 + 2**-52)}),
        ("POLICY", {"clip": 1.0}),
        ("POLICY", {"coords": PLAN.coords - 1}),
        ("POLICY", {"kind": 1}),
        ("POLICY", {"codec": 1, "keep": 0.0}),
        ("POLICY", {"codec": 1, "keep": 1.5}),
        ("POLICY", {"codec": 1, "coords": PLAN.coords - 1}),
        ("POLICY", {"codec": 1, "step": PLAN.clip * 2.0**-21}),
        ("POLICY", {"codec": 1, "clip": 1.6}),
        ("UPGRADE_NEEDED", {"grouped": 1}),
        ("UPGRADE_NEEDED", {"tail": 1}),
        ("UPGRADE_NEEDED", {"noise": 0.5}),
    ],
    ids=str,
)
def test_a_changed_plan_is_declined_with_its_reason(reason: str, changes: dict[str, Any]) -> None:
    with pytest.raises(PlanRefusedError) as refusal:
        check(replace(PLAN, **changes))
    assert refusal.value.reason == getattr(reasons, reason)


@pytest.mark.parametrize("number", [PLAN.round - 2, PLAN.round + 2])
def test_a_round_outside_its_epoch_is_malformed(number: int) -> None:
    with pytest.raises(MalformedError, match="outside the epoch"):
        check(replace(PLAN, round=number))


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("POLICY", {"f": 0}),
        ("POLICY", {"members": pack_indices(MEMBERS[:2])}),
        ("POLICY", {"rounds": POLICY["epoch_rounds"] + 1}),
        ("POLICY", {"members": pack_indices((2, 4, 700))}),
        ("STALE_FLEET", {"manifest": 13}),
        ("STALE_FLEET", {"root": 2, "manifest": 1}),
    ],
    ids=str,
)
def test_a_committee_that_the_newest_documents_do_not_allow(reason: str, changes: dict[str, Any]) -> None:
    with pytest.raises(PlanRefusedError) as refusal:
        check(transcript=replace(TRANSCRIPT, **changes))
    assert refusal.value.reason == getattr(reasons, reason)


def test_a_member_revoked_since_its_transcript_was_verified_serves_no_more() -> None:
    """The transcript is fetched and verified once an epoch, the documents may change with every round."""
    trust = verified()
    committee = OWNER.committee_document(CERTS, version=6, issued=ISSUED + 7, revoked=(4, 700))
    listed = OWNED.documents | {"committee": committee}
    trust.offer_manifest(
        OWNER.sign_manifest(listed.values(), version=13, issued=ISSUED + 8, not_after=ISSUED + 86_400).to_bytes()
    )
    trust.offer_document("committee", committee.to_bytes())
    with pytest.raises(PlanRefusedError, match="no certified candidate any more"):
        check(trust=trust)


# ---- the transcript


DOCUMENT = CommitteeDocument.from_body(OWNED.documents["committee"].body)


def test_a_transcript_has_the_signature_of_every_member_and_of_nobody_else() -> None:
    frame = SETUP.transcript
    assert read_transcript(frame.to_bytes(), DOCUMENT, FLEET) == (TRANSCRIPT, frame.hash(FLEET))
    stranger = (9, OWNED.identity(9).sign("transcript", FLEET, frame.body))
    for signatures in (
        (),
        frame.signatures[:2],
        frame.signatures[1:],
        tuple(sorted((*frame.signatures, stranger))),
        (*frame.signatures[:2], (700, stranger[1])),
        (*frame.signatures[:2], (700, bytes(64))),
    ):
        with pytest.raises((MalformedError, RefusedError), match="sign"):
            read_transcript(Frame("transcript", frame.body, signatures).to_bytes(), DOCUMENT, FLEET)


def test_a_transcript_of_another_fleet_or_of_a_revoked_member_is_refused() -> None:
    with pytest.raises(RefusedError):
        read_transcript(SETUP.transcript.to_bytes(), DOCUMENT, bytes(16))
    revoked = replace(DOCUMENT, revoked=pack_indices((3, 4)))
    with pytest.raises(RefusedError, match="certified member 3"):
        read_transcript(SETUP.transcript.to_bytes(), revoked, FLEET)


# ---- the sample


@pytest.mark.parametrize("sample", [0, 2**30, 2**31, 2**32])
def test_the_sample_takes_its_part_of_the_devices(sample: int) -> None:
    taken = [index for index in range(2000) if picked(bytes(32), index, sample)]
    assert abs(len(taken) - 2000 * sample / 2**32) < 150
    for index in (0, 7, 2**32 - 1):
        value = int.from_bytes(digest("pick", bytes(32), index.to_bytes(4, "little"))[:4], "little")
        assert picked(bytes(32), index, sample) == (value < sample)


def test_the_coordinator_signed_the_golden_plan() -> None:
    assert FRAME.only_signer() == PLAN.sender == COORDINATOR_INDEX
