"""One device: routes what arrives to its roles, and fetches what they lack (docs/protocol.md, sections 2-4). No I/O.

Nothing that arrives can raise out of here: what is malformed, forged or against a rule is refused, counted and noted.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edge_agent.context import Context
from edge_agent.dealer import Dealer
from edge_agent.documents import Documents
from edge_agent.fetch import REST, Fetcher
from edge_agent.live_model import LONGEST_CHAIN, RESULTS, BehindError, LiveModel
from edge_agent.member import LARGEST_SURVIVORS, Member
from edge_agent.opened_sums import OpenedSums
from edge_agent.participant import Participant
from edge_agent.restoration import Restoration
from edge_agent.sheets import Sheets
from edge_agent.work import DeviceAction, Ended, Score
from hushfleet.actions import RESTORED, Action, Erase, Note, Save, Subscribe, Wake, retained
from hushfleet.errors import HushfleetError, RefusedError
from hushfleet.mqtt.inbox import Inbox
from hushfleet.mqtt.topics import Parsed
from hushfleet.plans import LARGEST_TRANSCRIPT, PlanRefusedError, VerifiedPlan, check_plan, read_transcript
from hushfleet.trust import READY, STALE, UPGRADE
from hushfleet.wire.committee import Transcript
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import B32, U32, U64, Frame, Table, read_message
from hushfleet.wire.round import OUTCOMES, ROLLBACK, STALE_FLEET, TRAIN, UPGRADE_NEEDED, Plan, Receipt, Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.codec import LocalReport

SEEN = "device/seen"
DESCRIBES = "device/describes"
"""The hash of the newest statistics plan verified: no result of it moves the model."""
LARGEST_BLAME = 2 * LARGEST_SURVIVORS
LARGEST_DOWN = {"receipt": 4096, "survivors": LARGEST_SURVIVORS, "request": 1024, "blame": LARGEST_BLAME}
"""Bytes of what the coordinator sends to one device, by kind."""


@dataclass(frozen=True, slots=True)
class Seen(Table):
    """The newest round of which this device verified a plan or a result; older ones move it nowhere.

    Attributes:
        plan: hash of that round's plan.
        until: the last moment for answers that this plan names; 0 if only its result is known.
        result: hash of its verified result; zeros until then.
        epoch: newest epoch that a verified plan named.
        model: hash of the model spec then in force: a result of an older one says nothing about the newest.
        newest: highest version of that model spec that a verified plan or result ever named.
    """

    KIND: ClassVar[str] = "seen"
    round: U64 = 0
    plan: B32 = bytes(32)
    until: U64 = 0
    result: B32 = bytes(32)
    epoch: U32 = 0
    model: B32 = bytes(32)
    newest: U32 = 0

    def ended(self) -> bool:
        """Whether the round's result is known."""
        return any(self.result)


class Device:
    """Every role of one device. Built anew from its records at every start."""

    def __init__(self, context: Context, window: int) -> None:
        """`window` is how many chunks are fetched at once."""
        self.context = context
        self.refusals: Counter[str] = Counter()
        self.live = LiveModel(context.store)
        self.sums = OpenedSums(context)
        sheets = Sheets(context.store)
        self._restoration = Restoration(context.store)
        self.participant = Participant(context, self.live, self._restoration)
        self.dealer = Dealer(context, sheets, self._restoration)
        self.member = Member(context, sheets)
        self._fetcher = Fetcher(window)
        self.documents = Documents(context, self._fetcher)
        self._inbox = Inbox()
        saved = context.store.get(SEEN)
        self.seen = Seen.from_body(saved) if saved else Seen()
        sheets.ended = self.seen.round if self.seen.ended() else max(0, self.seen.round - 1)
        self._describes = context.store.get(DESCRIBES) or b""
        self._plan_frame = self._settled_plan = b""
        self._calls: dict[int, bytes] = {}
        self._results: dict[int, bytes] = {}
        self._behind: dict[int, bytes] = {}
        self._survivors: tuple[str, bytes] | None = None
        self._transcript: tuple[bytes, Transcript] | None = None
        self._numbers: Plan | None = None
        self._scored: tuple[bytes, bool] | None = None
        self._results_asked = 0.0
        self._greeted = False

    # Events.

    def start(self, root: bytes, certificate: bytes, now: float) -> list[DeviceAction]:
        """Take what the owner put into the bundle; before that, sit out if the vault was put back from a copy."""
        restored = [] if self.context.store.get(RESTORED) is None else self._sit_out(now)
        return [*restored, *self.documents.start(root, certificate)]

    def _sit_out(self, now: float) -> list[DeviceAction]:
        """Forget every secret that a copy brought back: what was done with it since the copy is not known here."""
        time = self.context.trust.time(now)
        why = "the vault's files were put back from a copy, or copied to this place"
        remedy = "it takes part again from the next committee and the next rounds on; never restore a vault"
        return [
            Erase(RESTORED),
            *self._restoration.begin(time),
            *self.dealer.forget_all(),
            *self.member.forget(),
            *self.participant.forget(time),
            Note("restored-vault", {"why": why, "remedy": remedy}),
        ]

    def sits_out(self, now: float) -> str | None:
        """What this device takes no part in since its vault was put back from a copy, or None."""
        trust = self.context.trust
        rounds = self._restoration.recent(trust.time(now), trust.policy)
        waits = self._restoration.at is not None and bool(self.dealer.topics()) and not self.dealer.joined()
        parts = [*(["rounds under way"] if rounds else []), *(["committees until the next set-up"] if waits else [])]
        return " and ".join(parts) or None

    def on_connected(self, session_present: bool, now: float) -> list[DeviceAction]:
        """Listen; publish what this device keeps on the broker, unless it is there already; ask for an owed receipt."""
        # A cut costs no retained message twice: what came meanwhile waits in the session.
        again = not session_present or not self._greeted
        actions: list[DeviceAction] = [Subscribe(topic, again) for topic in self._topics()]
        # A process that ended after a commit may have sent nothing of it, whatever the broker remembers of its session;
        # and a broker that was killed has the session from its last save, without what was retained since.
        if again or self.dealer.owes(self.seen.epoch):
            actions += retained(self.context.store)
        self._greeted = True
        return [*actions, *self.participant.on_connected(now), *self._advance(now)]

    def _topics(self) -> list[str]:
        names = self.context.topics
        return [
            *self.documents.topics(),
            # Results first: they may lead to a plan's base by small deltas.
            names.results(),
            names.plan(),
            names.downs(self.context.index),
            *self.dealer.topics(),
            *self._fetcher.topics(),
        ]

    def on_message(self, topic: str, payload: bytes, now: float) -> list[DeviceAction]:
        """Take one message from the broker."""
        actions: list[DeviceAction] = []
        try:
            if self._fetcher.wanted(topic):
                actions += self._on_fetched(topic, payload, now)
            elif payload:
                actions += self._route(self.context.topics.parse(topic), payload, now)
        except HushfleetError as error:
            actions.append(self._refused(topic, error))
        return [*actions, *self._advance(now)]

    def on_delivered(self, topic: str, now: float) -> list[DeviceAction]:
        """The broker has a message in its memory; that proves no more than that it moves."""
        return self.participant.on_delivered(topic, now)

    def on_undelivered(self, topic: str, now: float) -> list[DeviceAction]:
        """The broker has refused a message, or nobody listens there."""
        self.participant.on_undelivered(topic)
        return []

    def on_wake(self, now: float) -> list[DeviceAction]:
        """Look at the clock."""
        return [
            *self.participant.ask(now),
            *self._erase_past(now),
            *self.dealer.on_wake(now),
            *self._advance(now),
        ]

    def on_trained(
        self, plan_hash: bytes, delta: "NDArray[np.float32]", report: "LocalReport", now: float
    ) -> list[DeviceAction]:
        """Local training has ended; documents that ran out meanwhile let nothing leave."""
        return self._stale(plan_hash, now) or self.participant.on_trained(plan_hash, delta, report, now)

    def on_described(self, plan_hash: bytes, numbers: "NDArray[np.float64]", now: float) -> list[DeviceAction]:
        """The numbers of a statistics round are there."""
        return self._stale(plan_hash, now) or self.participant.on_described(plan_hash, numbers, now)

    def _stale(self, plan_hash: bytes, now: float) -> list[DeviceAction]:
        """The decline of a plan for which the documents ran out."""
        state = self.context.trust.state(now)
        if state == READY or plan_hash != self.seen.plan:
            return []
        reason = UPGRADE_NEEDED if state == UPGRADE else STALE_FLEET
        return self.participant.decline(self.seen.round, plan_hash, reason, state)

    def on_training_failed(self, plan_hash: bytes, why: str) -> list[DeviceAction]:
        """Local training could not be done."""
        return self.participant.on_training_failed(plan_hash, why)

    def _refused(self, topic: str, error: HushfleetError) -> Note:
        what = topic.split("/", 2)[-1]
        self.refusals[what.split("/", 1)[0]] += 1
        sender = "/".join(part for part in what.split("/") if not part.isdigit())
        return Note("refused", {"topic": what, "why": str(error)}, sender)

    # Messages.

    def _route(self, at: Parsed, payload: bytes, now: float) -> list[DeviceAction]:
        match at.kind:
            case "root" | "certificate":
                return self._on_credentials(at.kind, payload)
            case "manifest":
                return [*self.documents.on_manifest(payload)]
            case "date":
                return [*self.documents.on_date(payload)]
            case "plan":
                self._plan_frame = payload
                return []
            case "result":
                return self._hold_result(at.round_number, payload)
            case "call":
                self._calls[at.epoch] = payload
                return []
            case "card":
                return [*self.dealer.on_card(payload, at.device, now)]
            case "list":
                return [*self.dealer.on_list(payload, now)]
            case "key":
                return [*self.dealer.on_key(at.device, at.chunk, payload, now)]
            case "share":
                return [*self.dealer.on_box(payload, at.device, now)]
            case "document" | "transcript" | "model" | "sums":
                # It was fetched already; a second subscription brings it again.
                return []
            case "down":
                return self._on_down(at, payload, now)
            case _:
                raise RefusedError("nothing this device listens to")

    def _on_credentials(self, kind: str, payload: bytes) -> list[DeviceAction]:
        """A root may make a waiting certificate good; a certificate may make this device a member."""
        before = self.dealer.topics()
        take = self.documents.on_root if kind == "root" else self.documents.on_certificate
        actions = take(payload)
        return [*actions, *(Subscribe(topic) for topic in self.dealer.topics() if topic not in before)]

    def _on_down(self, at: Parsed, payload: bytes, now: float) -> list[DeviceAction]:
        if at.name not in LARGEST_DOWN:
            raise RefusedError("nothing this device listens to")
        data = self._inbox.offer(at.name, at.chunk, payload, LARGEST_DOWN[at.name])
        if data is None:
            return []
        match at.name:
            case "receipt":
                key_of = self.context.trust.coordinator_at(now)
                receipt = read_message(Frame.from_bytes(data), Receipt, self.context.fleet, key_of)
                return self.participant.on_receipt(receipt, now)
            case "survivors":
                self._survivors = self.context.topics.down(self.context.index, at.name, at.round_number), data
                return []
            case "request":
                return [*self.member.on_request(data, now)]
            case _:
                return [*self.member.on_blame(data, now)]

    def _hold_result(self, round_number: int, payload: bytes) -> list[DeviceAction]:
        """Until the documents are here with which to judge it; as many as the coordinator retains."""
        self._results[round_number] = payload
        for old in sorted(self._results)[:-LONGEST_CHAIN]:
            del self._results[old]
        return []

    def _on_result(self, payload: bytes, policy: Policy, now: float) -> list[DeviceAction]:
        """Remember the step it made; the newest one moves the live model and ends its round."""
        frame = Frame.from_bytes(payload)
        result = read_message(frame, Result, self.context.fleet, self.context.trust.coordinator_at(now))
        result_hash, seen = frame.hash(self.context.fleet), self.seen
        model_hash = self.context.trust.hash_of("model") or b""
        if result.round <= seen.round and seen.model != model_hash:
            return []
        describes = result.plan == self._describes
        if describes and result.moves():
            raise RefusedError("a statistics round moves no model")
        self.live.note(result)
        actions: list[DeviceAction] = [*self.sums.note(result)]
        if result.round < seen.round or (result.round == seen.round and seen.ended() and result_hash != seen.result):
            return actions
        if result.round == seen.round and seen.plan != result.plan:
            raise RefusedError("a result of another plan than the one verified")
        newest = seen.newest if seen.model == model_hash else 0
        try:
            if not describes or self.live.knows(result.version, result.version_hash):
                newest = max(newest, result.base, result.version)
                actions += self.live.follow(result, policy, newest)
        except BehindError:
            if result.round > max(self._behind, default=0):
                self._behind = {result.round: payload}
            raise
        if result_hash == seen.result:
            return actions
        if result.outcome == ROLLBACK:
            self._results, self._behind = self._behind | self._results, {}
        return [
            *actions,
            *self._see(Seen(result.round, result.plan, 0, result_hash, seen.epoch, model_hash, newest)),
            *self.participant.on_result(result),
            *self.member.end_rounds(result.round),
            Ended(result.round, OUTCOMES[result.outcome], result.includes(self.context.index)),
        ]

    def _erase_past(self, now: float) -> list[Action]:
        """No answer is due any more for a plan whose time is over, nor for an epoch's: their secrets go."""
        actions = self.dealer.prune(self.seen.epoch, now)
        if self.seen.until and self.seen.until < self.context.trust.time(now):
            actions += self.member.end_rounds(self.seen.round)
        return actions

    def _see(self, seen: Seen) -> list[Action]:
        self.seen = seen
        return [Save(SEEN, seen.to_body())]

    def _on_fetched(self, topic: str, payload: bytes, now: float) -> list[DeviceAction]:
        actions, done = self._fetcher.offer(topic, payload, now)
        if done is None:
            return [*actions]
        name, data = done
        try:
            return [*actions, *self._take(name, data, now)]
        except HushfleetError as error:
            self._fetcher.rest(name, now)
            return [*actions, self._refused(topic, error)]

    def _take(self, name: Hashable, data: bytes, now: float) -> list[Action]:
        trust = self.context.trust
        match name:
            case ("document", str(document), _):
                return self.documents.on_document(document, data)
            case ("transcript", bytes(wanted)) if trust.committee:
                transcript, transcript_hash = read_transcript(data, trust.committee, self.context.fleet)
                if transcript_hash != wanted:
                    raise RefusedError("not the transcript that the plan names")
                self._transcript = (transcript_hash, transcript)
            case ("sums", _):
                return self.sums.on_fetched(data, now)
            case ("model", "snapshot", int(version)) if trust.model:
                return self.live.on_snapshot(version, data, trust.model)
            case ("model", "delta", _) if trust.model and trust.policy:
                key_of = trust.coordinator_at(now)
                return self.live.on_delta(data, trust.model, trust.policy, self.context.fleet, key_of)
        return []

    # Going on with what has become possible.

    def _advance(self, now: float) -> list[DeviceAction]:
        """Documents first, then calls, the plan, the model, training: each as far as it can go now."""
        actions: list[DeviceAction] = [*self.documents.advance(now), *self._advance_results(now)]
        state = self.context.trust.state(now)
        if state == READY:
            actions += self._advance_calls(now)
            actions += self._advance_plan(now)
            actions += self._advance_model(now)
            actions += self._advance_sums(now)
            actions += self.participant.advance(now)
        elif state in (STALE, UPGRADE):
            actions += self._decline_plan(STALE_FLEET if state == STALE else UPGRADE_NEEDED, state, now)
        return [*actions, *self._advance_survivors(now)]

    def _advance_results(self, now: float) -> list[DeviceAction]:
        trust = self.context.trust
        actions: list[DeviceAction] = []
        # Held while the coordinator's certificate is not valid: a clock that jumps loses nothing.
        if trust.coordinator(now) is None or trust.policy is None or trust.model is None:
            return actions
        self.live.use(trust.model, trust.hash_of("model") or b"")
        actions += self.participant.head.use(trust.hash_of("model") or b"")
        while self._results:
            number = min(self._results)
            try:
                actions += self._on_result(self._results.pop(number), trust.policy, now)
            except HushfleetError as error:
                actions.append(self._refused(self.context.topics.result(number), error))
                actions += self._ask_for_rollback(error, now)
        return actions

    def _ask_for_rollback(self, error: HushfleetError, now: float) -> list[Action]:
        """What goes back has a rollback before it that this device may have missed: it is retained."""
        return self._ask_results(now) if isinstance(error, BehindError) else []

    def _advance_calls(self, now: float) -> list[DeviceAction]:
        actions: list[DeviceAction] = []
        for epoch in sorted(self._calls):
            try:
                actions += self.dealer.on_call(self._calls.pop(epoch), self.seen.round, now)
            except HushfleetError as error:
                actions.append(self._refused(self.context.topics.call(epoch), error))
        return actions

    def _advance_plan(self, now: float) -> list[DeviceAction]:
        if self._plan_frame == self._settled_plan:
            return []
        try:
            return self._consider_plan(self._plan_frame, now)
        except HushfleetError as error:
            self._settled_plan = self._plan_frame
            return [self._refused(self.context.topics.plan(), error), *self._ask_for_rollback(error, now)]

    def _consider_plan(self, data: bytes, now: float) -> list[DeviceAction]:
        """Verify a plan and hand it to the roles; wait while a document or the transcript is still on its way."""
        trust = self.context.trust
        frame = Frame.from_bytes(data)
        plan = read_message(frame, Plan, self.context.fleet, trust.coordinator_at(now))
        plan_hash = frame.hash(self.context.fleet)
        if plan.model == trust.hash_of("model"):
            self.live.expect(plan)
            self._numbers = plan if plan.kind == TRAIN else self._numbers
        if plan.until <= trust.time(now):
            raise RefusedError(f"the plan of round {plan.round} is past")
        if plan.round < self.seen.round or (plan.round == self.seen.round and plan_hash != self.seen.plan):
            raise RefusedError(f"round {plan.round} is not newer than {self.seen.round}, or has another plan")
        if plan.epoch < self.seen.epoch:
            raise RefusedError(f"epoch {plan.epoch} is older than {self.seen.epoch}")
        if (plan.roster, plan.policy, plan.model) != tuple(map(trust.hash_of, ("roster", "policy", "model"))):
            return [*self.documents.ask_again(now)]
        if self._transcript is None or self._transcript[0] != plan.transcript:
            return self._fetch_transcript(plan, now)
        self._settled_plan = data
        try:
            verified = check_plan(plan, plan_hash, data, trust, self._transcript[1], now)
        except PlanRefusedError as refusal:
            return self.participant.decline(plan.round, plan_hash, refusal.reason, str(refusal))
        return self._on_verified(verified, now)

    def _on_verified(self, verified: VerifiedPlan, now: float) -> list[DeviceAction]:
        """Record the plan; hand it to the roles unless its result is known already."""
        plan = verified.plan
        if plan.round == self.seen.round and self.seen.ended():
            return []
        self.live.use(verified.model, plan.model)
        newest = self.seen.newest if self.seen.model == plan.model else 0
        if plan.kind == TRAIN:
            self.live.toward(plan.base, plan.base_hash)
            newest = max(newest, plan.base)
            kind: list[Action] = []
        else:
            # Were it seen, the rollback that explains it would come too late.
            self.live.check_base(plan.base)
            self._describes, kind = verified.hash, [Save(DESCRIBES, verified.hash)]
        return [
            *kind,
            *self._see(Seen(plan.round, verified.hash, plan.until, bytes(32), plan.epoch, plan.model, newest)),
            Wake(plan.until + 1),
            *self.dealer.prune(plan.epoch, now),
            *self.member.on_plan(verified),
            *self.participant.on_plan(verified, now),
        ]

    def _decline_plan(self, reason: int, why: str, now: float) -> list[DeviceAction]:
        if self._plan_frame == self._settled_plan:
            return []
        self._settled_plan = self._plan_frame
        try:
            frame = Frame.from_bytes(self._plan_frame)
            plan = read_message(frame, Plan, self.context.fleet, self.context.trust.coordinator_at(now))
        except HushfleetError as error:
            return [self._refused(self.context.topics.plan(), error)]
        return self.participant.decline(plan.round, frame.hash(self.context.fleet), reason, why)

    def _advance_survivors(self, now: float) -> list[DeviceAction]:
        """A fast round's set overtakes the transcript with which this device verifies the plan: the plan first."""
        if self._survivors is None or self._plan_frame != self._settled_plan:
            return []
        (topic, data), self._survivors = self._survivors, None
        try:
            return [*self.member.on_survivors(data, now)]
        except HushfleetError as error:
            return [self._refused(topic, error)]

    def _fetch_transcript(self, plan: Plan, now: float) -> list[DeviceAction]:
        name: Hashable = ("transcript", plan.transcript)
        names = self.context.topics
        return [
            *self._fetcher.keep_only("transcript", {name}),
            *self._fetcher.want(name, lambda chunk: names.transcript(plan.epoch, chunk), LARGEST_TRANSCRIPT, now),
        ]

    def _advance_model(self, now: float) -> list[DeviceAction]:
        trust, names = self.context.trust, self.context.topics
        model, model_hash = trust.model, trust.hash_of("model")
        if model is None or model_hash is None:
            return []
        self.live.use(model, model_hash)
        wanted = self.live.wanted(model)
        if wanted is None:
            return [*self._fetcher.keep_only("model", set()), *self._score()]
        if wanted.kind == RESULTS:
            return [*self._fetcher.keep_only("model", set()), *self._ask_results(now)]
        name: Hashable = ("model", wanted.kind, wanted.version)
        return [
            *self._fetcher.keep_only("model", {name}),
            *self._fetcher.want(name, lambda chunk: names.model(wanted.version, wanted.kind, chunk), wanted.limit, now),
        ]

    def _advance_sums(self, now: float) -> list[DeviceAction]:
        names, wanted = self.context.topics, self.sums.wanted()
        if wanted is None:
            return [*self._fetcher.keep_only("sums", set()), *self.sums.tell()]
        number, limit = wanted
        name: Hashable = ("sums", number)
        return [
            *self._fetcher.keep_only("sums", {name}),
            *self._fetcher.want(name, lambda chunk: names.sums(number, chunk), limit, now),
        ]

    def _ask_results(self, now: float) -> list[Action]:
        """Brokers drop messages at a queue limit: have the retained results again, now and then."""
        if now < self._results_asked + REST:
            return []
        self._results_asked = now
        return [Subscribe(self.context.topics.results())]

    def _score(self) -> list[DeviceAction]:
        """Each new live model is scored once on the device's own rows; again if only then its training is known."""
        trust, head = self.context.trust, self.participant.head
        spec_hash = trust.hash_of("model") or b""
        if trust.model is None or not (self.live.version or self._scored):
            # Version 0 knows nothing, unless a rollback went back to it: then it is put to work like any other.
            return []
        numbers = self._numbers if self._numbers and self._numbers.model == spec_hash else None
        numbers = None if self.sums.hold_alone() else numbers
        before, self._scored = self._scored, (self.live.hash, numbers is not None)
        if before == self._scored:
            return []
        flat = head.whole(trust.model, spec_hash, self.live.flat(trust.model))
        return [Score(self.live.version, flat, head.fitted(trust.model, spec_hash), numbers, spec_hash)]
