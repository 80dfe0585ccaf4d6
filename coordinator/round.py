"""One round after another: plan, uploads, survivor set, opening, result (docs/protocol.md, 4). No I/O, no clock.

    open      uploads are taken until enough arrived or the plan closes
    frozen    the survivor set is durable; members are asked, and those that do not answer are recovered

A check that fails is no end yet: members are examined as far as recoveries are left (audit.py). Every round ends as
applied, aborted or void, with the reason. Records: `round/open` the round under way, `round/last`
the number of the newest, `round/done` how many rounds of the model spec in training have ended.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from coordinator.audit import Audit
from coordinator.context import Context, Documents
from coordinator.encoding import next_step
from coordinator.epochs import Epoch, Epochs
from coordinator.models import Models
from coordinator.opening import Opening, erase_answers
from coordinator.planning import Planning, RoundSettings
from coordinator.statistics import NOISELESS, Statistics
from coordinator.uploads import Uploads
from hushfleet.actions import Action, Erase, Note, Publish, Save, Wake, retain
from hushfleet.errors import HushfleetError, RefusedError
from hushfleet.mqtt.topics import Parsed
from hushfleet.wire.framing import B32, U64, Bytes, Frame, Table, read_message
from hushfleet.wire.round import (
    ABORTED,
    APPLIED,
    DECLINE_REASONS,
    MEMBERS_MISSING,
    NO_REASON,
    NORM,
    OPERATOR,
    OUTCOMES,
    RESTART,
    RESULT_REASONS,
    ROLLBACK,
    STATISTICS,
    TOO_FEW,
    TRAIN,
    VOID,
    Decline,
    Metrics,
    Plan,
    Result,
    Survivors,
    bitmap,
)

LARGEST_NOTE = 1024
"""Bytes of a sealed share or decline."""
OPEN, LAST, DONE = "round/open", "round/last", "round/done"
NO_METRICS = Metrics(0, 0.0, 0, 0.0, 0, 0.0)
SUM_EVIDENCE = "evidence/sum"


@dataclass(frozen=True, slots=True)
class _Open(Table):
    """The round under way; `set` is empty until it is frozen."""

    KIND: ClassVar[str] = "open"
    plan: Bytes
    set: Bytes
    frozen: U64


@dataclass(frozen=True, slots=True)
class _Done(Table):
    """How many rounds of training of a model spec, by its hash, have ended."""

    KIND: ClassVar[str] = "done"
    model: B32
    rounds: U64


class Round:
    """The round's state machine. Built anew from its records at every start."""

    def __init__(self, context: Context, epochs: Epochs, settings: RoundSettings) -> None:
        self._context, self._epochs, self._settings = context, epochs, settings
        self.models = Models(context, settings.server_optimizer)
        self.audit = Audit(context)
        self.statistics = Statistics(context, settings.statistics_every)
        self._planning = Planning(context, settings, self.models, self.statistics)
        last = context.store.get(LAST)
        self.last = int.from_bytes(last, "little") if last else settings.first - 1
        done = context.store.get(DONE)
        self._done = _Done.from_body(done) if done else _Done(bytes(32), 0)
        self.outcome: str
        self.plan: Plan | None = None
        self._plan_hash: bytes
        self._open: _Open | None = None
        self._uploads: Uploads
        self._enough_since: float | None = None
        self._asked = 0.0
        self._opening: Opening | None = None
        self._declined: dict[int, int] = {}
        self._audited = False
        self._failed: int | None = None

    def accepted(self) -> int:
        """Uploads accepted in the round under way."""
        return len(self._uploads.accepted) if self.plan else 0

    def done(self, model_hash: bytes) -> int:
        """Rounds of training of this model spec that have ended, in any life of this process."""
        return self._done.rounds if self._done.model == model_hash else 0

    def all_run(self) -> bool:
        """Whether the model in force has had the rounds asked for, in whichever life of this process."""
        if self.plan is not None or self._context.store.get(OPEN) is not None:
            return False
        model = self._context.trust.hash_of("model") or b""
        return self._planning.all_run(model, self.done(model))

    def version(self) -> int:
        """The newest model version."""
        documents = self._context.documents()
        return self.models.current(documents.model, documents.model_hash)[0]

    def between(self) -> bool:
        """Whether a round has ended and no other is under way, by the records."""
        return self._context.store.get(LAST) is not None and self._context.store.get(OPEN) is None

    def restore(self) -> list[Action]:
        """Go on with the round that was open when the process ended, or abort it if its documents or epoch are gone."""
        saved = self._context.store.get(OPEN)
        if saved is None:
            return []
        self._open = _Open.from_body(saved)
        frame = Frame.from_bytes(self._open.plan)
        self.plan, self._plan_hash = Plan.from_body(frame.body), frame.hash(self._context.fleet)
        documents, epoch = self._context.documents(), self._epochs.numbered(self.plan.epoch)
        same = (self.plan.roster, self.plan.policy) == (documents.roster_hash, documents.policy_hash)
        self._uploads = self._new_uploads(documents)
        if not same or epoch is None:
            return [*erase_answers(self._context.store), *self._end(ABORTED, RESTART, 0.0)]
        if self._open.set:
            self._opening = Opening(
                self._context, self.plan, self._plan_hash, self._open.set, epoch, self._uploads.total
            )
        resumed = Note("resumed", {"round": self.plan.round, "accepted": len(self._uploads.accepted)})
        # Whoever has given up in the meantime sends nothing that would have anyone look.
        return [resumed, Wake(self.plan.closes)]

    def _new_uploads(self, documents: Documents) -> Uploads:
        assert self.plan is not None
        # Upload and sum that are shown are of one round.
        shown = self._settings.evidence and self.plan.kind == TRAIN
        return Uploads(self._context, self.plan, self._plan_hash, documents.policy, documents.roster, shown)

    # Opening a round.

    def begin(self, epoch: Epoch, number: int, now: float) -> list[Action]:
        """Announce round `number` under the newest documents."""
        documents = self._context.documents()
        done = self.done(documents.model_hash)
        plan, actions = self._planning.next_plan(documents, epoch, number, done, now)
        frame = self._context.frame(plan)
        self.plan, self._plan_hash, self.last = plan, frame.hash(self._context.fleet), number
        self._open, self._opening, self._enough_since = _Open(frame.to_bytes(), b"", 0), None, None
        self._declined.clear()
        self._audited, self._failed = False, None
        self._uploads = self._new_uploads(documents)
        return [
            *actions,
            Save(OPEN, self._open.to_body()),
            Save(LAST, number.to_bytes(8, "little")),
            *retain(Publish(self._context.topics.plan(), frame.to_bytes())),
            Note("plan", {"round": number, "epoch": plan.epoch, "base": plan.base} | self._said_of(plan)),
            Wake(plan.closes),
        ]

    def _said_of(self, plan: Plan) -> dict[str, object]:
        """What the journal says of a round that is not for training."""
        return {"statistics": f"noise {NOISELESS}"} if plan.kind == STATISTICS else {}

    # What devices send.

    def longest_answer(self, at: Parsed) -> int:
        """Bytes of a device's whole message of this kind, uploads apart, at most; 0 if none is taken now."""
        match at.name:
            case "masksum" if self._opening:
                return self._opening.longest_answer(at.device)
            case "share" | "decline":
                return LARGEST_NOTE
        return 0

    def on_message(self, at: Parsed, payload: bytes, now: float) -> list[Action]:
        """Take one chunk of an upload, or one whole answer.

        Raises:
            MalformedError, RefusedError: it does not fit the round; nothing has changed.
        """
        if self.plan is None:
            return []
        match at.name:
            case "upload" if at.chunk == 0:
                return self._uploads.on_header(at.device, payload, self._collecting(now), now)
            case "upload" if at.round_number == self.plan.round and self._collecting(now):
                return self._uploads.on_chunk(at.device, at.chunk, payload, now)
            case "masksum" if self._opening and at.round_number == self.plan.round:
                return self._opening.on_mask_sum(at.device, payload, now)
            case "share" if self._opening and at.round_number == self.plan.round:
                return self._opening.on_share(at.device, payload, now)
            case "decline" if at.round_number == self.plan.round:
                return self._on_decline(at, payload)
        return []

    def _collecting(self, now: float) -> bool:
        return self.plan is not None and self._open is not None and not self._open.set and now < self.plan.closes

    def _on_decline(self, at: Parsed, payload: bytes) -> list[Action]:
        context, device = self._context, at.device
        decline = read_message(context.unseal(payload, LARGEST_NOTE), Decline, context.fleet, self._uploads.key_of)
        if decline.sender != device or decline.plan != self._plan_hash:
            raise RefusedError(f"device {device}: a decline of another device or plan")
        self._declined[device] = decline.reason
        said = {"round": at.round_number, "reason": decline.reason, "why": DECLINE_REASONS[decline.reason]}
        return [Note("declined", {"device": device, **said}, f"up/{device}")]

    # Time.

    def advance(self, now: float) -> list[Action]:
        """Freeze, ask, recover, open or give up: whatever is due."""
        if self.plan is None:
            return []
        if now < self.plan.opens - (self.plan.until - self.plan.opens):
            # The clock was set back by more than a whole round, and this one would not end in time.
            return self._end(ABORTED, RESTART, now)
        receipts = self._uploads.answer_late(self._collecting(now), now)
        return [*receipts, *self._advance(now)]

    def _advance(self, now: float) -> list[Action]:
        if self._opening is None:
            return self._freeze(now) if self._complete(now) else self._wait_for_stragglers()
        if self._opening.outstanding() or self._opening.suspect is not None:
            return self._ask(now)
        return self._audit_by_chance(self._opening) or self._publish_sum(now)

    def _audit_by_chance(self, opening: Opening) -> list[Action]:
        """The private coin is tossed once a round."""
        if self._audited:
            return []
        self._audited = True
        return self.audit.by_chance(opening, self._context.documents().policy.audit_rate)

    def _complete(self, now: float) -> bool:
        """Whether the plan closed, or enough arrived and stragglers had their time."""
        assert self.plan is not None
        if now >= self.plan.closes or self._uploads.full() or self._everyone_answered():
            return True
        accepted, taken = self._uploads.accepted, self._uploads.taken
        if not accepted or len(accepted) < self._settings.enough * len(taken):
            return False
        if self._enough_since is None:
            self._enough_since = now
        return now >= self._enough_since + self._settings.patience

    def _everyone_answered(self) -> bool:
        """Whether everyone that the plan takes has uploaded or declined, and not all declined."""
        accepted, declined, taken = self._uploads.accepted, self._declined, self._uploads.taken
        # Asked with every message: thousands of devices are looked through only when that can change the answer.
        if not accepted or len(accepted) + len(declined) < len(taken):
            return False
        return taken <= accepted.keys() | declined.keys()

    def _wait_for_stragglers(self) -> list[Action]:
        return [] if self._enough_since is None else [Wake(self._enough_since + self._settings.patience)]

    def _freeze(self, now: float) -> list[Action]:
        assert self.plan is not None
        assert self._open is not None
        documents = self._context.documents()
        epoch = self._epochs.numbered(self.plan.epoch)
        if len(self._uploads.accepted) < documents.policy.smallest_survivor_set:
            return self._end(ABORTED, TOO_FEW, now)
        if epoch is None:
            return self._end(ABORTED, MEMBERS_MISSING, now)
        entries = b"".join(survivor.to_bytes() for _, survivor in sorted(self._uploads.accepted.items()))
        frame = self._context.frame(Survivors(self._context.index, self._plan_hash, entries)).to_bytes()
        self._open = replace(self._open, set=frame, frozen=int(now))
        self._opening = Opening(self._context, self.plan, self._plan_hash, frame, epoch, self._uploads.total)
        self._asked = now
        return [
            Save(OPEN, self._open.to_body()),
            *self._opening.ask(epoch.members()),
            Note("frozen", {"round": self.plan.round, "survivors": len(self._uploads.accepted)}),
            Wake(now + self._settings.answer),
        ]

    def _ask(self, now: float) -> list[Action]:
        """Ask again who has not answered; recover those whose time is up; give up when the plan's time is."""
        assert self.plan is not None
        assert self._open is not None
        assert self._opening is not None
        if now >= self.plan.until:
            if self._failed is not None and not self._opening.outstanding():
                return self._end(VOID, self._failed, now)
            return self._end(ABORTED, MEMBERS_MISSING, now)
        again = max(1.0, self._settings.answer / 4)
        if now < self._asked + again:
            return []
        self._asked = now
        actions = self._opening.ask(self._opening.outstanding())
        if self._opening.suspect is not None or now >= self._open.frozen + self._settings.answer:
            actions += self._opening.request_shares()
        return [*actions, Wake(now + again)]

    def _verdicts(self) -> list[Action]:
        assert self.plan is not None
        assert self._open is not None
        epoch = self._epochs.numbered(self.plan.epoch)
        if self._opening is None or epoch is None:
            return []
        return self.audit.conclude(self._opening, self.plan, self._open.plan, epoch.frame)

    # The end of a round.

    def _publish_sum(self, now: float) -> list[Action]:
        """Open the sum and apply it. A wrong sum is never applied: whoever may have spoilt it is examined."""
        from hushfleet.codec import FIXED_POINT, OpeningError, pack_opened

        assert self.plan is not None
        assert self._opening is not None
        documents = self._context.documents()
        if self.plan.kind == STATISTICS:
            return self._keep_statistics(self.plan, self._opening, documents, now)
        base = self.models.current(documents.model, documents.model_hash)
        try:
            opened = self._opening.open(documents.policy, documents.model.parameters())
            actions, delta_hash = self.models.apply(
                opened, self.plan, self._plan_hash, self._opening.survivors, documents.model, documents.policy
            )
        except HushfleetError as error:
            return self._examine(self._opening, int(error.reason) if isinstance(error, OpeningError) else NORM, now)
        measured = opened.metrics
        metrics = Metrics(
            measured.examples,
            measured.training_loss,
            measured.evaluated,
            measured.evaluation_loss,
            measured.correct,
            measured.norm,
        )
        if self._settings.evidence:
            actions.append(Save(SUM_EVIDENCE, pack_opened(opened.residues, opened.bits)))
        return [*actions, *self._end(APPLIED, NO_REASON, now, base, delta_hash, metrics, opened.weight / FIXED_POINT)]

    def _examine(self, opening: Opening, reason: int, now: float) -> list[Action]:
        self._failed = reason
        return self.audit.after_failure(opening) or self._end(VOID, reason, now)

    def _keep_statistics(self, plan: Plan, opening: Opening, documents: Documents, now: float) -> list[Action]:
        """Open the sums of a statistics round, keep and publish them; the model stays what it is."""
        from hushfleet.codec import OpeningError

        try:
            sums = opening.open_statistics(documents.policy, self.statistics.schema())
        except OpeningError as error:
            return self._examine(opening, int(error.reason), now)
        kept = self.statistics.opened(sums, len(opening.survivors), documents.policy, plan, now)
        published, sums_hash = self.models.publish_sums(
            self.statistics.published(self._plan_hash, documents.policy), plan.round
        )
        return [*kept, *published, *self._end(APPLIED, NO_REASON, now, delta_hash=sums_hash)]

    # Back to an earlier version.

    def want_rollback(self, version: int) -> list[Save]:
        """Remember that the operator wants the model to go back; RefusedError if it cannot, with what it can."""
        documents = self._context.documents()
        self.models.current(documents.model, documents.model_hash)
        self.models.check_rollback(version, documents.policy)
        return self.models.history.want(version, documents.model_hash)

    def wanted_rollback(self) -> int | None:
        """The version that the operator wants the model of the newest documents to go back to."""
        return self.models.history.wanted(self._context.trust.hash_of("model") or b"")

    def give_up(self, now: float) -> list[Action]:
        """End the round under way without a sum, as the operator wants it."""
        return self._end(ABORTED, OPERATOR, now)

    def roll_back(self, version: int) -> list[Action]:
        """Take the model back, by the result of a round of its own that has no plan; or say why not."""
        documents = self._context.documents()
        base = self.models.current(documents.model, documents.model_hash)
        settled = self.models.history.settled()
        try:
            self.models.check_rollback(version, documents.policy)
        except RefusedError as error:
            return [*settled, Note("rollback-refused", {"version": version, "why": str(error)})]
        actions = self.models.roll_back(version)
        # The devices drop their residuals: what sums will be like is as unknown as at the start.
        encoding, stepped = self._planning.encoding(documents, anew=True)
        self.last += 1
        self.outcome = OUTCOMES[ROLLBACK]
        result = Result(
            self._context.index,
            bytes(32),
            self.last,
            ROLLBACK,
            OPERATOR,
            *base,
            *self.models.current(documents.model, documents.model_hash),
            bytes(32),
            b"",
            encoding.step,
            NO_METRICS,
        )
        note = Note("rollback", {"round": self.last, "from": base[0], "version": version})
        return [
            *settled,
            *actions,
            *stepped,
            Save(LAST, self.last.to_bytes(8, "little")),
            *self.models.publish_result(result),
            note,
        ]

    def _end(
        self,
        outcome: int,
        reason: int,
        now: float,
        base: tuple[int, bytes] | None = None,
        delta_hash: bytes = bytes(32),
        metrics: Metrics = NO_METRICS,
        weight: float = 0.0,
    ) -> list[Action]:
        """Publish the result and erase what the round leaves behind, in one transaction."""
        assert self.plan is not None
        documents, plan = self._context.documents(), self.plan
        version = self.models.current(documents.model, documents.model_hash)
        opening = self._opening
        included = opening.survivors if opening and outcome == APPLIED else []
        step, actions = next_step(self._context.store, plan, outcome, reason, metrics, weight)
        result = Result(
            self._context.index,
            self._plan_hash,
            plan.round,
            outcome,
            reason,
            *(base or version),
            *version,
            delta_hash,
            bitmap(included),
            step,
            metrics,
        )
        self.outcome = OUTCOMES[outcome]
        if plan.kind == TRAIN:
            self._done = _Done(plan.model, self.done(plan.model) + 1)
        outputs = documents.model.layers[-1].outputs
        note = Note(
            "round",
            {
                "round": plan.round,
                "outcome": self.outcome,
                "reason": reason,
                "why": RESULT_REASONS[reason],
                "uploads": len(self._uploads.accepted),
                "recovered": sorted(opening.recovered) if opening else [],
                "blamed": sorted(opening.blamed) if opening and opening.blamed else None,
                "declined": len(self._declined),
                "version": version[0],
                # A single output is a number to predict: there is nothing to be right about.
                "accuracy": metrics.correct / metrics.evaluated if metrics.evaluated and outputs > 1 else None,
                "evaluation_loss": metrics.evaluation_loss if metrics.evaluated else None,
                "loss": metrics.training_loss if metrics.examples else None,
            }
            | self._said_of(plan),
        )
        actions = [
            *actions,
            *self._verdicts(),
            *self.models.publish_result(result),
            *self._uploads.erase(),
            *(opening.erase() if opening else []),
            Erase(OPEN),
            Save(DONE, self._done.to_body()),
            note,
            Wake(now + self._settings.pause),
        ]
        self.plan, self._open, self._opening = None, None, None
        return actions
