"""The committee member in a round: one mask sum for one survivor set, recoveries within bounds (docs/protocol.md, 4).

No I/O, no clock. What it answered is recorded before the answer leaves: the same set gets the same bytes again, another
set for that round is refused for ever.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from edge_agent.context import Context
from edge_agent.sheets import RoundSheet, Sheets
from hushfleet.actions import Action, Note, Save
from hushfleet.errors import RefusedError
from hushfleet.evidence import judge_blame
from hushfleet.plans import VerifiedPlan
from hushfleet.trust import READY
from hushfleet.wire.documents import PARTICIPANT
from hushfleet.wire.framing import (
    B32,
    U32,
    U64,
    Bytes,
    Frame,
    ManyB4,
    Table,
    indices,
    pack_indices,
    read_message,
)
from hushfleet.wire.round import Blame, MaskSum, Request, Share, Survivor, Survivors

ANSWER = "member/answer"
"""The newest answer: rounds rise strictly, so one record is enough for all time."""
_LAST_ROUND = (1 << 64) - 1
LARGEST_SURVIVORS = 256 + Survivor.SIZE * 16_383


@dataclass(frozen=True, slots=True)
class Answer(Table):
    """The newest round this member has recorded.

    Attributes:
        answered: when, by this member's own clock: a plan's times are the coordinator's to choose.
        sum: the sealed mask sum as it went out; erased with the round.
        recovered: members for whose recovery a share was given.
    """

    KIND: ClassVar[str] = "answer"
    round: U64
    answered: U64
    epoch: U32
    plan: B32
    set: B32
    sum: Bytes
    recovered: ManyB4


class Member:
    """One device's part as member of the committees it is in. Built anew from its records at every start."""

    def __init__(self, context: Context, sheets: Sheets) -> None:
        self._context = context
        self._sheets = sheets
        saved = context.store.get(ANSWER)
        self._answer = Answer.from_body(saved) if saved else None
        self._plan: VerifiedPlan | None = None
        self._ended = 0

    def on_plan(self, verified: VerifiedPlan) -> list[Action]:
        """Serve a newly verified plan; every earlier round's secrets go."""
        self._plan = verified
        return self.end_rounds(verified.plan.round - 1)

    def end_rounds(self, upto: int) -> list[Action]:
        """Erase the secrets and the answer's bytes of every round ≤ `upto`, in every epoch."""
        if upto <= self._ended:
            return []
        self._ended = self._sheets.ended = upto
        actions = self._sheets.erase_rounds(upto)
        return [*actions, *self._erase_sum(upto)]

    def _erase_sum(self, upto: int) -> list[Action]:
        if self._answer is None or self._answer.round > upto or not self._answer.sum:
            return []
        return self._record(replace(self._answer, sum=b""))

    def forget(self) -> list[Action]:
        """Erase the secrets and the answer's bytes of every round there is; what was answered stays recorded."""
        return [*self._sheets.erase_rounds(_LAST_ROUND), *self._erase_sum(_LAST_ROUND)]

    def _record(self, answer: Answer) -> list[Action]:
        self._answer = answer
        return [Save(ANSWER, answer.to_body())]

    def _current(self, plan_hash: bytes, now: float) -> VerifiedPlan:
        state = self._context.trust.state(now)
        if state != READY:
            raise RefusedError(f"documents: {state}")
        if self._plan is None or self._plan.hash != plan_hash:
            raise RefusedError("not about the newest plan verified here")
        if now > self._plan.plan.until:
            raise RefusedError("the time for answers is past")
        return self._plan

    # The survivor set.

    def on_survivors(self, data: bytes, now: float) -> list[Action]:
        """Verify the set, record it, answer with the mask sum over exactly these survivors.

        Raises:
            MalformedError, RefusedError: a set that breaks a rule, or another one than the one answered.
        """
        context = self._context
        frame = Frame.from_bytes(data, LARGEST_SURVIVORS)
        survivors = read_message(frame, Survivors, context.fleet, context.trust.coordinator_at(now))
        verified, set_hash = self._current(survivors.plan, now), frame.hash(context.fleet)
        plan = verified.plan
        if self._answer is not None and self._answer.round >= plan.round:
            return self._answer_again(plan.round, survivors.plan, set_hash)
        sheet = self._sheets.of_round(plan.epoch, plan.round)
        if sheet is None or context.index not in verified.transcript.committee_indices():
            raise RefusedError(f"not a member for round {plan.round} of epoch {plan.epoch}, or its secrets are erased")
        entries = survivors.survivors()
        self._check_set(verified, entries, now)
        sealed = context.sealed(self._mask_sum(verified, set_hash, entries, sheet))
        record = Answer(plan.round, int(context.trust.time(now)), plan.epoch, verified.hash, set_hash, sealed, b"")
        note = Note("answered", {"round": plan.round, "survivors": len(entries)})
        return [*self._record(record), *context.up("masksum", plan.round, sealed), note]

    def _answer_again(self, round_number: int, plan_hash: bytes, set_hash: bytes) -> list[Action]:
        answer = self._answer
        assert answer is not None
        if (answer.round, answer.plan, answer.set) != (round_number, plan_hash, set_hash) or not answer.sum:
            raise RefusedError(f"another set than the one answered, or a round not above {answer.round}")
        return list(self._context.up("masksum", round_number, answer.sum))

    def _check_set(self, verified: VerifiedPlan, entries: tuple[Survivor, ...], now: float) -> None:
        """Every entry certified, not revoked and signed for this plan; enough of them, and not too soon."""
        context, policy, roster = self._context, verified.policy, self._context.trust.roster
        named = (verified.plan.roster, verified.plan.policy)
        if roster is None or named != (context.trust.hash_of("roster"), context.trust.hash_of("policy")):
            raise RefusedError("the roster and policy that the plan names are not the newest here")
        if not policy.smallest_survivor_set <= len(entries) <= policy.largest_survivor_set:
            raise RefusedError(f"a set of {len(entries)} is outside the policy")
        time = context.trust.time(now)
        # A clock that was set back since the last answer says nothing, and locks nobody out.
        if self._answer is not None and self._answer.answered <= time < self._answer.answered + policy.interval:
            raise RefusedError("the rounds follow each other faster than the policy allows")
        devices, revoked = roster.by_index(), set(indices(roster.revoked))
        for entry in entries:
            device = devices.get(entry.index)
            if device is None or entry.index in revoked or not device.roles & PARTICIPANT or device.not_after < time:
                raise RefusedError(f"survivor {entry.index} is not a certified participant")
            if not entry.claim(verified.plan, verified.hash).verify(device.key, context.fleet, entry.signature):
                raise RefusedError(f"survivor {entry.index} did not sign for this plan")

    def _mask_sum(
        self, verified: VerifiedPlan, set_hash: bytes, entries: tuple[Survivor, ...], sheet: RoundSheet
    ) -> MaskSum:
        from hushfleet.codec import lanes
        from hushfleet.secagg.masks import MaskContext, mask_sum
        from hushfleet.secagg.residues import Vector

        plan, context = verified.plan, self._context
        total = mask_sum(
            Vector.zeros(plan.coords, plan.bits, lanes(plan.tail)),
            sheet.secret,
            context.index,
            MaskContext(context.fleet, verified.hash, plan.round),
            [(entry.index, entry.y) for entry in entries],
        )
        return MaskSum(
            context.index, verified.hash, set_hash, 0, bytes(32), total.to_bytes(plan.bits), *context.trust.pair
        )

    # Recovery of another member.

    def on_request(self, data: bytes, now: float) -> list[Action]:
        """Give one's share of a member that did not answer, within the bounds that keep the round private.

        Raises:
            MalformedError, RefusedError: about another set than the recorded one, oneself, or one member too many.
        """
        context = self._context
        request = read_message(Frame.from_bytes(data), Request, context.fleet, context.trust.coordinator_at(now))
        verified, answer = self._current(request.plan, now), self._answer
        if answer is None or (answer.plan, answer.set) != (request.plan, request.set):
            raise RefusedError("a recovery for a set that this member has not recorded")
        if request.lost == context.index:
            raise RefusedError("a recovery of this member itself")
        sheet = self._sheets.of_round(answer.epoch, answer.round)
        share = sheet.share_of(request.lost) if sheet else None
        if share is None:
            raise RefusedError(f"no share of member {request.lost} for this round")
        recovered = indices(answer.recovered)
        actions: list[Action] = []
        if request.lost not in recovered:
            if len(recovered) >= verified.transcript.f:
                raise RefusedError(f"{len(recovered)} members were recovered in this round already")
            actions = self._record(replace(answer, recovered=pack_indices([*recovered, request.lost])))
        sealed = context.sealed(Share(context.index, request.plan, request.set, request.lost, share))
        note = Note("helped", {"round": answer.round, "lost": request.lost})
        return [*actions, *context.up("share", answer.round, sealed, part=request.lost), note]

    # Blame of another member.

    def on_blame(self, data: bytes, now: float) -> list[Action]:
        """Judge the coordinator's evidence against a member; what is done about it is the owners' to decide.

        Raises:
            MalformedError, RefusedError: it proves nothing.
        """
        context, trust = self._context, self._context.trust
        blame = read_message(Frame.from_bytes(data, len(data)), Blame, context.fleet, trust.coordinator_at(now))
        if self._plan is None or self._plan.hash != blame.plan:
            raise RefusedError("a blame about another plan than the newest verified here")
        verdict = judge_blame(blame, self._plan.plan, self._plan.hash, self._plan.transcript, trust, context.fleet)
        return [Note("blame", {"round": verdict.round, "member": verdict.member, "why": verdict.why})]
