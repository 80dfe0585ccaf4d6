"""The coordinator as one whole: documents, committee, rounds, in this order (docs/protocol.md, sections 2-4). No I/O.

Nothing that arrives can raise out of here: what is malformed, forged or against a rule is refused, counted and noted.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from time import gmtime, strftime

from coordinator.context import Context
from coordinator.epochs import Epochs
from coordinator.planning import RoundSettings
from coordinator.round import Round
from coordinator.setup import Setup, SetupSettings
from hushfleet.actions import RETAINED, Action, Note, Publish, Subscribe, Wake, clear, retain, retained
from hushfleet.errors import HushfleetError, RefusedError
from hushfleet.mqtt.inbox import Inbox, publishes
from hushfleet.mqtt.topics import Parsed
from hushfleet.trust import READY, REMEDIES, WAITING, Trust
from hushfleet.wire.documents import OPTIONAL_DOCUMENTS, Date, Entry, Manifest
from hushfleet.wire.framing import Frame

_SIGN_AGAIN = "sign again with hushfleet fleet sign, or copy all of the owners' documents again"
_NO_STATISTICS = "have them sign it, or set statistics_every = 0 under [rounds]"


@dataclass(frozen=True, slots=True)
class Signed:
    """What the owners' desk hands over: exact frames.

    Attributes:
        roots: every root by version.
        manifest, date: the newest; the date may be empty.
        documents: committee, roster, policy, model by name.
        certificates: each device's by roster index.
    """

    roots: Mapping[int, bytes]
    manifest: bytes
    date: bytes
    documents: Mapping[str, bytes]
    certificates: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Finished:
    """The rounds asked for are done, and the last result is on the broker."""


class Conductor:
    """Routes what arrives to set-up and round, and begins what is due. Built anew from its records at every start."""

    def __init__(self, context: Context, setup: SetupSettings, rounds: RoundSettings) -> None:
        self.context = context
        self.refusals: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.epochs = Epochs(context)
        self.setup = Setup(context, self.epochs, setup)
        self.round = Round(context, self.epochs, rounds)
        self._settings = rounds
        self._inbox = Inbox()
        self._signed: Signed | None = None
        last = context.topics.result(self.round.last)
        self._awaited = last if self.round.between() and context.store.get(RETAINED + last) else ""
        self._resting_since: float | None = None
        self._state = WAITING
        self._resumed = False

    @property
    def finished(self) -> bool:
        """Whether the rounds asked for have been run and the last result is on the broker."""
        return self.round.all_run() and not self._awaited

    # Documents.

    def offer(self, signed: Signed) -> None:
        """Take newer documents from the owners; they come into force between two rounds."""
        self._signed = signed

    def examine(self, signed: Signed, now: float) -> tuple[str, list[str]]:
        """State of these documents, and what is wrong with them; for a look before anything runs."""
        self.offer(signed)
        refused = [action for action in self._take_documents() if isinstance(action, Note)]
        return self.context.trust.state(now), [f"{note.fields['why']}; {note.fields['remedy']}" for note in refused]

    def _take_documents(self) -> list[Action]:
        """Verify what the owners signed, and publish it: all of it, or nothing of a set that does not hold together."""
        signed, self._signed = self._signed, None
        if signed is None:
            return []
        trust, names = self.context.trust, self.context.topics
        before, model = (trust.pair, trust.valid_until()), trust.hash_of("model")
        newest = trust.root.version if trust.root else 0
        try:
            _take(signed, deepcopy(trust))
            actions = _take(signed, trust)
        except (HushfleetError, KeyError) as error:
            return [Note("documents-refused", {"why": str(error), "remedy": _SIGN_AGAIN})]
        for version in sorted(signed.roots):
            if version > newest:
                actions += self._retain(Publish(names.root(version), signed.roots[version]))
        for entry in Manifest.from_body(Frame.from_bytes(signed.manifest).body).docs:
            if entry.name in trust.needed:
                for publish in publishes(self._topic(entry), signed.documents[entry.name], self.context.chunk):
                    actions += self._retain(publish)
        for index, certificate in signed.certificates.items():
            actions += self._retain(Publish(names.certificate(index), certificate))
        actions += self._retain(Publish(names.manifest(), signed.manifest))
        if signed.date and Date.from_body(Frame.from_bytes(signed.date).body) == trust.date:
            actions += self._retain(Publish(names.date(), signed.date))
        if model not in (None, trust.hash_of("model")):
            actions += self.round.models.clear()
        if before[0] != (0, 0) and before != (trust.pair, until := trust.valid_until()):
            day = strftime("%Y-%m-%d", gmtime(until))
            actions.append(Note("documents", {"manifest": list(trust.pair), "until": day}))
        if trouble := self.round.statistics.trouble():
            actions.append(Note("no-statistics", {"why": trouble, "remedy": _NO_STATISTICS}))
        return [*actions, *self._clear_old_documents()]

    def _topic(self, entry: Entry) -> Callable[[int], str]:
        names = self.context.topics
        return lambda chunk: names.document(entry.name, entry.version, chunk)

    def _clear_old_documents(self) -> list[Action]:
        """The versions before are taken back once the manifest has moved."""
        names, manifest = self.context.topics, self.context.trust.manifest
        live = {(entry.name, entry.version) for entry in manifest.docs} if manifest else set()
        prefix = RETAINED + names.document("", 0, 0).removesuffix("/0/0").removesuffix("/")
        actions: list[Action] = []
        for key, _ in self.context.store.scan(prefix):
            topic = key.removeprefix(RETAINED)
            at = names.parse(topic)
            if (at.name, at.version) not in live:
                actions += clear(topic)
        return actions

    def _retain(self, publish: Publish) -> list[Action]:
        """Retain what is not retained yet in just these bytes."""
        held = self.context.store.get(RETAINED + publish.topic)
        return [] if held == publish.payload else retain(publish)

    # Events.

    def start(self, now: float) -> list[Action]:
        """Begin where the records say; evidence of earlier rounds goes to its place again."""
        return [*self.round.audit.kept(), *self.round.statistics.kept(), *self.advance(now)]

    def on_connected(self, session_present: bool, now: float) -> list[Action | Finished]:
        """Publish again everything that is kept on the broker; listen."""
        names, store = self.context.topics, self.context.store
        # A session proves little: a broker that was killed has it from its last save, without what was retained since;
        # and a process that ended after a commit may have sent nothing of it. What the records hold goes first: what
        # this event adds is newer.
        actions: list[Action | Finished] = [*retained(store), *self.advance(now)]
        policy = self.context.trust.policy
        actions += [Subscribe(names.ups(shard)) for shard in range(policy.shards if policy else 1)]
        return [*actions, *(Subscribe(topic) for topic in self.setup.topics()), *self._finish()]

    def on_delivered(self, topic: str, now: float) -> list[Action | Finished]:
        """The broker has a retained message: the next plan waits for the result before it."""
        if topic != self._awaited:
            return []
        self._awaited = ""
        return [*self.advance(now), *self._finish()]

    def _finish(self) -> list[Action | Finished]:
        if not self.finished:
            return []
        remedy = "for more rounds of this model raise total under [rounds]"
        return [Note("all-rounds-run", {"total": self._settings.total, "remedy": remedy}), Finished()]

    def on_undelivered(self, topic: str, now: float) -> list[Action]:
        """The broker has refused a message, or nobody listens there: who is owed something asks again."""
        return []

    def on_wake(self, now: float) -> list[Action]:
        """Look at the clock."""
        return self.advance(now)

    def on_message(self, topic: str, payload: bytes, retain_flag: bool, now: float) -> list[Action]:
        """Take one message from the broker."""
        actions: list[Action] = []
        sender = "unknown"
        try:
            at = self.context.topics.parse(topic)
            sender = f"{at.kind}/{at.device}"
            if at.kind == "up" and retain_flag:
                actions.append(Publish(topic, b"", retain=True))
                raise RefusedError(f"device {at.device} retained a message under up/")
            actions += self._route(at, payload, now)
        except HushfleetError as error:
            what = topic.split("/", 2)[-1]
            self.refusals[what.split("/", 1)[0]] += 1
            actions.append(Note("refused", {"topic": what, "why": str(error)}, sender))
        return [*actions, *self.advance(now)]

    def _route(self, at: Parsed, payload: bytes, now: float) -> list[Action]:
        match at.kind:
            case "up" if at.name == "upload":
                return self.round.on_message(at, payload, now)
            case "up":
                limit = self.round.longest_answer(at)
                whole = self._inbox.offer((at.device, at.name), at.chunk, payload, limit) if limit else None
                return [] if whole is None else self.round.on_message(at, whole, now)
            case "card" | "key" | "share" | "ready" | "complaint":
                return self.setup.on_message(at, payload, now)
        return []

    # What is due.

    def advance(self, now: float) -> list[Action]:
        """Documents between rounds; then the round under way, the committee, the next plan."""
        actions = self._resume(now)
        if self.round.plan is None:
            actions += self._take_documents()
            actions += self._resume(now)
        state = self.context.trust.state(now)
        if state != self._state:
            self._state = state
            pair = list(self.context.trust.pair)
            actions.append(Note("state", {"state": state, "manifest": pair, "remedy": REMEDIES.get(state)}))
        if state == WAITING:
            return actions
        was = self.round.plan
        actions += self.round.advance(now)
        if was is not None and self.round.plan is None:
            self._after_round(was.round, now)
        if state != READY or self.round.plan is not None:
            return [*actions, *self._advance_setup(now)]
        actions += self.epochs.retire(self.round.last + 1, now)
        actions += self._advance_setup(now)
        return [*actions, *self._begin_round(now)]

    def _resume(self, now: float) -> list[Action]:
        """Once after a start, before newer documents: go on with the round that the records say is open."""
        if self._resumed or self.context.trust.state(now) == WAITING:
            return []
        self._resumed = True
        actions = self.round.restore()
        if self.round.plan is not None and self.round.wanted_rollback() is not None:
            actions += self.round.give_up(now)
        if actions and self.round.plan is None:
            self._after_round(self.round.last, now)
        elif self.round.between():
            self._resting_since = now
        return actions

    def _advance_setup(self, now: float) -> list[Action]:
        if self._state != READY or self.finished:
            return []
        return self.setup.advance(self.round.last + 1, now)

    def _after_round(self, number: int, now: float) -> None:
        self.outcomes[self.round.outcome] += 1
        self._awaited = self.context.topics.result(number)
        self._resting_since = now

    def _rests_until(self) -> float:
        """The end of the pause after a round; devices insist on the policy's interval, each by its own clock."""
        if self._resting_since is None:
            return 0.0
        return self._resting_since + max(self._settings.pause, self.context.documents().policy.interval)

    def _roll_back(self, version: int, now: float) -> list[Action]:
        """As the operator wants it; if that cannot be, the next round begins."""
        before = self.round.last
        actions = self.round.roll_back(version)
        if self.round.last == before:
            return [*actions, *self._begin_round(now)]
        self._after_round(self.round.last, now)
        return actions

    def _begin_round(self, now: float) -> list[Action]:
        if self._awaited:
            return []
        if (version := self.round.wanted_rollback()) is not None:
            return self._roll_back(version, now)
        if self.round.all_run():
            return []
        if now < self._rests_until():
            return [Wake(self._rests_until())]
        serving = self.epochs.serving(self.round.last + 1, int(now), int(now) + self._settings.collect)
        if serving is None:
            return []
        return self.round.begin(*serving, now)


def _take(signed: Signed, trust: Trust) -> list[Action]:
    """Offer everything; HushfleetError or KeyError at the first that is missing or refused."""
    actions: list[Action] = []
    for version in sorted(signed.roots):
        if trust.root is None or version > trust.root.version:
            actions += trust.offer_root(signed.roots[version])
    actions += trust.offer_manifest(signed.manifest)
    if signed.date:
        actions += trust.offer_date(signed.date)
    for name in trust.needed:
        if name not in OPTIONAL_DOCUMENTS or trust.hash_of(name):
            actions += trust.offer_document(name, signed.documents[name])
    return actions
