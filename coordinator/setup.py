"""The coordinator's errands in setting up a committee, one attempt after another (docs/protocol.md, section 3). No I/O.

It can delay, but not choose: all of T sign the same transcript. The record `setup/attempt` holds the attempt under way
and what the one before it taught; what it leads to is an epoch (epochs.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from coordinator.context import Context
from coordinator.epochs import Epochs
from hushfleet import ceremony
from hushfleet.actions import Action, Note, Publish, Save, Subscribe, Unsubscribe, Wake, clear, retain
from hushfleet.configuration import Range
from hushfleet.errors import ConfigurationError, HushfleetError, MalformedError, RefusedError
from hushfleet.mqtt.inbox import Inbox
from hushfleet.mqtt.topics import Parsed
from hushfleet.plans import LARGEST_TRANSCRIPT, clock_skew, read_transcript
from hushfleet.secagg.committee import check_keys
from hushfleet.secagg.sealing import check_public
from hushfleet.wire.committee import Box, Call, Card, CardList, CommitteeKey, Complaint, Transcript
from hushfleet.wire.framing import (
    U32,
    U64,
    Bytes,
    Frame,
    ManyB4,
    Table,
    entries,
    indices,
    pack_indices,
    read,
    read_message,
)

ATTEMPT = "setup/attempt"
FIRST_PAUSE, LONGEST_PAUSE = 60, 3600
"""Seconds until a failed attempt is tried again, doubling."""
ASK_AGAIN = 20.0
"""Seconds after which the retained messages of an unfinished attempt are asked for again."""


@dataclass(frozen=True, slots=True)
class Attempt(Table):
    """One attempt, and what it knows of earlier failures.

    Attributes:
        epoch: its number; every attempt takes a new one.
        call, cards: the frames published; `cards` is empty until the list is.
        failures: failed attempts in a row.
        again: when the next attempt may begin, after a failure.
        left_out: candidates that did not get ready last time.
    """

    KIND: ClassVar[str] = "attempt"
    epoch: U32 = 0
    call: Bytes = b""
    cards: Bytes = b""
    failures: U32 = 0
    again: U64 = 0
    left_out: ManyB4 = b""


@dataclass(frozen=True, slots=True)
class SetupSettings:
    """How committees are set up.

    Attributes:
        cards, keys, ready: seconds from the call to each deadline; rising.
        first: number of a new ledger's first epoch; above every epoch the members have seen, if an older one is lost.
    """

    cards: Annotated[int, Range(1, 86_400)] = 30
    keys: Annotated[int, Range(1, 86_400)] = 60
    ready: Annotated[int, Range(1, 86_400)] = 120
    first: Annotated[int, Range(1, 2**32 - 1)] = 1

    def __post_init__(self) -> None:
        if not self.cards < self.keys < self.ready:
            raise ConfigurationError("cards, keys and ready must rise: each is counted from the call")


class Setup:
    """Keeps usable epochs at hand. Built anew from its records at every start."""

    def __init__(self, context: Context, epochs: Epochs, settings: SetupSettings) -> None:
        self._context = context
        self._epochs = epochs
        self._settings = settings
        self.trouble = ""
        saved = context.store.get(ATTEMPT)
        self._attempt = Attempt.from_body(saved) if saved else Attempt(settings.first - 1)
        self._list: tuple[bytes, CardList] | None = None
        self._ask_at = 0.0
        self._clear_received()
        if self._attempt.cards:
            frame = Frame.from_bytes(self._attempt.cards)
            self._list = (frame.hash(context.fleet), CardList.from_body(frame.body))

    def _clear_received(self) -> None:
        self._list = None
        self._cards: dict[int, tuple[bytes, Card]] = {}
        self._keys: dict[int, tuple[bytes, CommitteeKey]] = {}
        self._key_frames: dict[int, bytes] = {}
        self._ready: dict[int, Frame] = {}
        self._boxes: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self._inbox = Inbox()

    @property
    def _call(self) -> Call | None:
        return Call.from_body(Frame.from_bytes(self._attempt.call).body) if self._attempt.call else None

    def topics(self) -> list[str]:
        """What is listened to during the attempt."""
        call, names = self._call, self._context.topics
        if call is None:
            return []
        committee = self._context.trust.committee
        return [
            names.cards(call.epoch),
            names.keys(call.epoch),
            names.readies(call.epoch),
            names.complaints(call.epoch),
            *(names.shares_to(call.epoch, index) for index in (committee.candidates() if committee else ())),
        ]

    def advance(self, next_round: int, now: float) -> list[Action]:
        """Begin an attempt when one is due, and judge the deadlines of the one under way."""
        call, pause = self._call, self._attempt.again - now
        if call is not None and call.ready_by - now > 2 * self._settings.ready:
            return self._fail(set(), "the clock was set back since the call", now)
        if call is not None:
            return [*self._ask_again(now), *self._check_deadlines(now)]
        # A longer pause than there is was begun by a clock that has been set back since.
        if 0 < pause <= LONGEST_PAUSE or not self._epochs.due(next_round, now):
            return []
        return self._begin(next_round, now)

    def _ask_again(self, now: float) -> list[Action]:
        """A broker may drop messages at a queue limit; all of an attempt's are retained."""
        if now < self._ask_at:
            return []
        self._ask_at = now + ASK_AGAIN
        return [Subscribe(topic) for topic in self.topics()]

    # One attempt.

    def _begin(self, next_round: int, now: float) -> list[Action]:
        documents, policy = self._context.documents(), self._context.documents().policy
        epoch, start = self._attempt.epoch + 1, int(now)
        first = max(next_round, self._epochs.end())
        settings = self._settings
        call = Call(
            self._context.index,
            epoch,
            documents.committee_hash,
            policy.recoveries,
            first,
            policy.epoch_rounds,
            start + policy.epoch_age - clock_skew(policy),
            start + settings.cards,
            start + settings.keys,
            start + settings.ready,
        )
        frame = self._context.frame(call).to_bytes()
        self._clear_received()
        self._ask_at = now + ASK_AGAIN
        self._attempt = replace(self._attempt, epoch=epoch, call=frame, cards=b"")
        return [
            Save(ATTEMPT, self._attempt.to_body()),
            *(Subscribe(topic) for topic in self.topics()),
            *retain(Publish(self._context.topics.call(epoch), frame)),
            Note("call", {"epoch": epoch, "first": first}),
            Wake(call.cards_by),
            Wake(call.keys_by),
            Wake(call.ready_by),
        ]

    def on_message(self, at: Parsed, payload: bytes, now: float) -> list[Action]:
        """Take a candidate's message; MalformedError or RefusedError if it is not one of this attempt."""
        call = self._call
        if call is None or at.epoch != call.epoch or not payload:
            return []
        match at.kind:
            case "card":
                liar = self._on_card(at, payload, call, now)
                if liar:
                    return self._fail({at.device}, liar, now)
            case "key":
                liar = self._on_key(at, payload, call, now)
                if liar:
                    return self._fail({at.device}, liar, now)
            case "share":
                self._on_box(at, payload, now)
            case "ready":
                self._on_ready(at, payload, call, now)
            case "complaint":
                return self._on_complaint(payload, call, now)
        return self._check_deadlines(now)

    def _on_card(self, at: Parsed, payload: bytes, call: Call, now: float) -> str:
        """Hold a card; what is wrong with it if its owner lies."""
        frame = Frame.from_bytes(payload)
        card = read_message(frame, Card, self._context.fleet, self._context.trust.candidate_at(now))
        candidates = self._context.documents().committee.candidates()
        if (card.sender, card.epoch, card.committee) != (at.device, call.epoch, call.committee):
            raise MalformedError("a card of another candidate or attempt")
        if len(card.seal) != 32 * (len(candidates) - 1):
            raise MalformedError("a card has one sealing key for every other candidate")
        for public in entries(card.seal, 32):
            check_public(public)
        card_hash, known = frame.hash(self._context.fleet), self._cards.get(card.sender)
        if known is not None and known[0] != card_hash:
            return f"candidate {card.sender} signed two cards"
        self._cards[card.sender] = (card_hash, card)
        return ""

    def _on_key(self, at: Parsed, payload: bytes, call: Call, now: float) -> str:
        """Hold a dealer's key once all its chunks are here; what is wrong with it if the dealer lies."""
        limit = ceremony.largest_key(call.rounds)
        data = self._inbox.offer(at.device, at.chunk, payload, limit)
        if data is None:
            return ""
        frame = Frame.from_bytes(data, limit)
        key = read_message(frame, CommitteeKey, self._context.fleet, self._context.trust.candidate_at(now))
        if key.sender != at.device or key.epoch != call.epoch:
            raise MalformedError("a key of another dealer or attempt")
        if self._list is None or key.sender not in dict(self._list[1].hashes()):
            raise RefusedError("a key without its list")
        key_hash, known = frame.hash(self._context.fleet), self._keys.get(key.sender)
        if known is not None:
            return "" if known[0] == key_hash else f"member {key.sender} signed two keys"
        # Nobody can make a point equal to one that is not published yet: of two equal ones, the later is the copy.
        earlier = {point for _, other in self._keys.values() for point in entries(other.points, 32)}
        try:
            ceremony.check_key(key, call, self._list[0], len(self._list[1].hashes()) - call.f)
            check_keys([key.points])
        except HushfleetError as error:
            return f"member {key.sender}: {error}"
        if not earlier.isdisjoint(entries(key.points, 32)):
            return f"member {key.sender} copied points of another's key"
        self._keys[key.sender] = (key_hash, key)
        self._key_frames[key.sender] = data
        return ""

    def _on_box(self, at: Parsed, payload: bytes, now: float) -> None:
        box = read_message(Frame.from_bytes(payload), Box, self._context.fleet, self._context.trust.candidate_at(now))
        if (box.sender, box.to, box.epoch) == (at.device, at.to, at.epoch):
            self._boxes[box.sender, box.to] = (box.list, box.key)

    def _on_ready(self, at: Parsed, payload: bytes, call: Call, now: float) -> None:
        frame = Frame.from_bytes(payload, LARGEST_TRANSCRIPT)
        key = self._context.trust.candidate_at(now)(at.device)
        if frame.only_signer() != at.device or key is None or not frame.signed_by(at.device, key, self._context.fleet):
            raise MalformedError("a transcript that its member did not sign")
        if read(frame, Transcript).epoch != call.epoch:
            raise MalformedError("a transcript of another attempt")
        self._ready[at.device] = frame

    def _on_complaint(self, payload: bytes, call: Call, now: float) -> list[Action]:
        """Open what the complaint shows; the liar is left out of the next attempt."""
        context = self._context
        complaint = read_message(Frame.from_bytes(payload), Complaint, context.fleet, context.trust.candidate_at(now))
        if self._list is None or complaint.epoch != call.epoch:
            raise RefusedError("a complaint about another attempt")
        members = [member for member, _ in self._list[1].hashes()]
        liar = ceremony.judge(
            complaint,
            context.documents().committee,
            context.fleet,
            {member: card for member, (_, card) in self._cards.items()},
            self._keys,
            self._list[0],
            members,
            len(members) - call.f,
            context.draw,
        )
        return self._fail({liar}, f"member {complaint.sender} complained, member {liar} lied", now)

    # Deadlines.

    def _check_deadlines(self, now: float) -> list[Action]:
        """List the cards once all are in or their time is up; join the transcript once all are ready, or fail."""
        call = self._call
        assert call is not None
        if self._list is None:
            wanted = self._wanted(now)
            if wanted <= set(self._cards):
                return self._publish_list(wanted, call, now)
            if now < call.cards_by:
                return []
            return self._publish_list(set(self._cards) & wanted, call, now)
        members = [member for member, _ in self._list[1].hashes()]
        if all(set(members) <= set(received) for received in (self._cards, self._keys, self._ready)):
            return self._join(members, call, now)
        without_key = set(members) - set(self._keys)
        if now >= call.keys_by and without_key:
            return self._fail(without_key, f"no key from members {sorted(without_key)}", now)
        if now >= call.ready_by:
            return self._fail(*self._who_is_missing(members), now)
        return []

    def _wanted(self, now: float) -> set[int]:
        """Every certified candidate but those that did not get ready last time, while enough are left."""
        documents = self._context.documents()
        candidates = set(self._context.trust.candidates(now))
        wanted = candidates - set(indices(self._attempt.left_out))
        return wanted if len(wanted) >= documents.policy.committee_min else candidates

    def _publish_list(self, members: set[int], call: Call, now: float) -> list[Action]:
        documents = self._context.documents()
        if len(members) < documents.policy.committee_min:
            absent = sorted(set(documents.committee.candidates()) - members)
            return self._fail(set(), f"no card from candidates {absent}", now)
        cards = b"".join(member.to_bytes(4, "little") + self._cards[member][0] for member in sorted(members))
        table = CardList(self._context.index, call.epoch, cards)
        frame = self._context.frame(table)
        self._list = (frame.hash(self._context.fleet), table)
        self._attempt = replace(self._attempt, cards=frame.to_bytes())
        return [
            Save(ATTEMPT, self._attempt.to_body()),
            *retain(Publish(self._context.topics.list(call.epoch), self._attempt.cards)),
        ]

    def _who_is_missing(self, members: Iterable[int]) -> tuple[set[int], str]:
        """Whose fault it is: a card nobody can follow, a box that never came for this attempt, or who is not ready."""
        pair = self._context.trust.pair
        ahead = {member for member in members if member in self._cards and self._cards[member][1].pair() > pair}
        if ahead:
            return ahead, f"the cards of members {sorted(ahead)} name a manifest that nobody else has"
        pairs = [(a, b) for a in members for b in members if a != b and not self._has_box(a, b)]
        if pairs:
            return {dealer for dealer, _ in pairs}, f"no box of this attempt from one member to another: {pairs}"
        missing = set(members) - set(self._ready)
        return missing, f"members {sorted(missing)} are not ready"

    def _has_box(self, dealer: int, member: int) -> bool:
        assert self._list is not None
        return self._boxes.get((dealer, member)) == (self._list[0], self._keys[dealer][0])

    def _join(self, members: list[int], call: Call, now: float) -> list[Action]:
        """One frame with every signature; usable only if all signed the transcript that the coordinator sees too."""
        context = self._context
        assert self._list is not None
        try:
            for member in members:
                ceremony.check_key(self._keys[member][1], call, self._list[0], len(members) - call.f)
            cards = {member: self._cards[member][1] for member in members}
            expected = ceremony.transcript(call, self._keys, cards, members)
            body = expected.to_body()
            different = {member for member in members if self._ready[member].body != body}
            if different:
                return self._fail(different, f"members {sorted(different)} signed another transcript", now)
            frame = Frame(Transcript.KIND, body, tuple(self._ready[member].signatures[0] for member in members))
            read_transcript(frame.to_bytes(), context.documents().committee, context.fleet)
        except (HushfleetError, KeyError) as error:
            return self._fail(set(), f"the attempt does not hold together: {error}", now)
        actions = [
            *self._end(),
            *self._epochs.add(frame, [self._key_frames[member] for member in members]),
            Note("epoch-ready", {"epoch": call.epoch, "members": members, "first": call.first}),
        ]
        self._attempt, self.trouble = Attempt(epoch=call.epoch), ""
        return [*actions, Save(ATTEMPT, self._attempt.to_body())]

    def _fail(self, at_fault: set[int], why: str, now: float) -> list[Action]:
        self.trouble = why
        failures = self._attempt.failures + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1))
        epoch, actions = self._attempt.epoch, self._end()
        self._attempt = Attempt(epoch, b"", b"", failures, int(now) + pause, pack_indices(sorted(at_fault)))
        self._clear_received()
        return [
            *actions,
            Save(ATTEMPT, self._attempt.to_body()),
            Note("setup-failed", {"epoch": epoch, "why": why, "again_in": pause}),
            Wake(self._attempt.again),
        ]

    def _end(self) -> list[Action]:
        """Stop listening; take back what the attempt left on the broker."""
        epoch, names = self._attempt.epoch, self._context.topics
        actions: list[Action] = [Unsubscribe(topic) for topic in self.topics()]
        actions += clear(names.call(epoch))
        if self._attempt.cards:
            actions += clear(names.list(epoch))
        return actions
