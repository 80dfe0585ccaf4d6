"""A member's part in setting up a committee: card, dealing, checking, readiness (docs/protocol.md, section 3). No I/O.

Per epoch number a member signs one card, one key and one transcript, each saved before it leaves. What others publish
is retained on the broker and held in memory only; what this member owes and knows is in its records (sheets.py).
"""

from dataclasses import replace

from edge_agent.context import Context
from edge_agent.restoration import Restoration
from edge_agent.sheets import Attempt, Sheets
from hushfleet import ceremony
from hushfleet.actions import RETAINED, Action, Note, Publish, Subscribe, Unsubscribe, clear, retain
from hushfleet.errors import HushfleetError, MalformedError, RefusedError
from hushfleet.mqtt.inbox import Inbox, publishes
from hushfleet.secagg import committee as arithmetic
from hushfleet.secagg.sealing import check_public, new_key, seal
from hushfleet.trust import READY
from hushfleet.wire.committee import Box, Call, Card, CardList, CommitteeKey, Complaint
from hushfleet.wire.documents import MEMBER, Policy
from hushfleet.wire.framing import Frame, entries, indices, pack_indices, read_message

LARGEST_STEP = 1_000
"""Epoch numbers rise by at most so much at once; first rounds lie at most so far ahead."""
ASK_AGAIN = 20.0
"""Seconds after which the retained messages of an unfinished attempt are asked for again."""


class Dealer:
    """One member in the set-up of one epoch after another. Built anew from its records at every start."""

    def __init__(self, context: Context, sheets: Sheets, restoration: Restoration) -> None:
        self._context = context
        self._sheets = sheets
        self._restoration = restoration
        self._call: Call | None = None
        self._list: tuple[bytes, CardList] | None = None
        self._cards: dict[int, tuple[bytes, Card]] = {}
        self._keys: dict[int, tuple[bytes, CommitteeKey]] = {}
        self._boxes: dict[int, tuple[bytes, Box]] = {}
        self._inbox = Inbox()
        self._ask_at = 0.0
        newest = sheets.attempts.get(sheets.highest)
        if newest is not None and newest.unfinished():
            self._call = Call.from_body(Frame.from_bytes(newest.call).body)
            if newest.cards:
                frame = Frame.from_bytes(newest.cards)
                self._list = (frame.hash(context.fleet), CardList.from_body(frame.body))

    def topics(self) -> list[str]:
        """What a member listens to: every call, and the topics of the attempt it is in."""
        names, certificate = self._context.topics, self._context.trust.certificate
        if certificate is None or not certificate.cert.roles & MEMBER:
            return []
        if self._call is None:
            return [names.any_call()]
        epoch = self._call.epoch
        return [
            names.any_call(),
            names.cards(epoch),
            names.list(epoch),
            names.keys(epoch),
            names.shares_to(epoch, self._context.index),
        ]

    def owes(self, planned: int) -> bool:
        """Whether the coordinator may still need what this member published for a set-up: no plan names its epoch yet.

        Args:
            planned: the newest epoch that a verified plan named.
        """
        return self._sheets.highest > planned

    # The call and the card.

    def on_call(self, data: bytes, newest_round: int, now: float) -> list[Action]:
        """Answer a call with this member's one card for the epoch.

        Raises:
            MalformedError, RefusedError: a call that is not the coordinator's, or breaks the policy or an order.
        """
        context, trust = self._context, self._context.trust
        call = read_message(Frame.from_bytes(data), Call, context.fleet, trust.coordinator_at(now))
        known = self._sheets.attempts.get(call.epoch)
        if known is not None and known.call == data:
            return []
        policy = self._check_call(call, newest_round, now)
        if self._restoration.covers_call(call, policy):
            why = "the vault was put back from a copy, and may have answered this call"
            return [*self._sheets.raise_highest(call.epoch), Note("sits-out", {"epoch": call.epoch, "why": why})]
        candidates = trust.committee.candidates() if trust.committee else {}
        if context.index not in trust.candidates(now):
            raise RefusedError("called, but no certified candidate")
        others = [index for index in candidates if index != context.index]
        pairs = [new_key(context.draw) for _ in others]
        nonce = context.draw(32)
        card = Card(
            context.index,
            call.epoch,
            call.committee,
            b"".join(public for _, public in pairs),
            arithmetic.chain(nonce, call.rounds),
            *trust.pair,
        )
        attempt = Attempt.empty(
            call=data,
            others=pack_indices(others),
            secrets=b"".join(secret for secret, _ in pairs),
            nonce=nonce,
            card=context.frame(card),
        )
        actions = [*self._leave(), *self._discard_failed()]
        self._begin(call)
        self._ask_at = now + ASK_AGAIN
        return [
            *actions,
            *self._sheets.raise_highest(call.epoch),
            *self._sheets.save(call.epoch, attempt),
            *(Subscribe(topic) for topic in self.topics()[1:]),
            *retain(Publish(context.topics.card(call.epoch, context.index), attempt.card)),
        ]

    def _check_call(self, call: Call, newest_round: int, now: float) -> Policy:
        trust, time, highest = self._context.trust, self._context.trust.time(now), self._sheets.highest
        policy = trust.policy
        if policy is None or call.committee != trust.hash_of("committee"):
            raise RefusedError("the call names another committee document than the newest")
        if call.epoch <= highest:
            raise RefusedError(f"epoch {call.epoch} is not above {highest}")
        if highest and call.epoch > highest + LARGEST_STEP:
            raise RefusedError(f"epoch {call.epoch} jumps from {highest}")
        if newest_round and call.first > newest_round + LARGEST_STEP:
            raise RefusedError(f"first round {call.first} lies too far above {newest_round}")
        if call.f != policy.recoveries or call.rounds > policy.epoch_rounds:
            raise RefusedError("the call's f or number of rounds is not the policy's")
        if call.not_after > time + policy.epoch_age or call.ready_by <= time:
            raise RefusedError("the call's age exceeds the policy's, or its deadlines are past")
        return policy

    def _begin(self, call: Call) -> None:
        self._call, self._list = call, None
        self._cards.clear()
        self._keys.clear()
        self._boxes.clear()
        self._inbox = Inbox()

    def _leave(self) -> list[Action]:
        """Stop listening to the attempt so far."""
        return [Unsubscribe(topic) for topic in self.topics()[1:]]

    def _discard_failed(self) -> list[Action]:
        """A failed attempt's secrets and retained messages go with the next call."""
        failed = [epoch for epoch, attempt in self._sheets.attempts.items() if not attempt.ready]
        return [action for epoch in failed for action in self.forget(epoch)]

    def forget(self, epoch: int) -> list[Action]:
        """Erase what an epoch left behind, here and on the broker."""
        names, me = self._context.topics, self._context.index
        attempt = self._sheets.attempts.get(epoch)
        actions = self._sheets.erase_epoch(epoch)
        if attempt is None or not attempt.card:
            return actions
        for topic in (names.card(epoch, me), names.complaint(epoch, me)):
            actions += clear(topic) if self._context.store.get(RETAINED + topic) else []
        if attempt.key:
            for publish in publishes(lambda chunk: names.key(epoch, me, chunk), attempt.key, self._context.chunk):
                actions += clear(publish.topic)
            cards = CardList.from_body(Frame.from_bytes(attempt.cards).body)
            for member, _ in cards.hashes():
                if member != me:
                    actions += clear(names.share(epoch, me, member))
        if attempt.ready:
            actions += clear(names.ready(epoch, me))
        return actions

    def forget_all(self) -> list[Action]:
        """Erase what every epoch left behind, and leave the attempt under way."""
        actions = [*self._leave(), *(action for epoch in list(self._sheets.attempts) for action in self.forget(epoch))]
        self._call = None
        return actions

    def joined(self) -> bool:
        """Whether it has got ready for an epoch that is not over."""
        return any(attempt.ready for attempt in list(self._sheets.attempts.values()))

    def prune(self, planned: int, now: float) -> list[Action]:
        """Keep the secrets of two epochs: the one that the last verified plan names and the newest that is ready."""
        ready = [epoch for epoch, attempt in self._sheets.attempts.items() if attempt.ready]
        time = self._context.trust.time(now)
        gone = [
            epoch
            for epoch in ready
            if epoch not in (planned, max(ready)) or self._sheets.attempts[epoch].not_after() < time
        ]
        return [action for epoch in gone for action in self.forget(epoch)]

    # What the others publish.

    def on_card(self, data: bytes, sender: int, now: float) -> list[Action]:
        """Hold a candidate's card; one's own tells whether this vault is a restored copy."""
        context, trust = self._context, self._context.trust
        frame = Frame.from_bytes(data)
        card = read_message(frame, Card, context.fleet, trust.candidate_at(now))
        if card.sender != sender:
            raise MalformedError("a card on another's topic")
        if sender == context.index:
            return self._meet_own(card.epoch, data)
        if self._call is None or (card.epoch, card.committee) != (self._call.epoch, self._call.committee):
            raise RefusedError("a card of another attempt")
        candidates = trust.committee.candidates() if trust.committee else {}
        if len(card.seal) != 32 * (len(candidates) - 1):
            raise MalformedError("a card has one sealing key for every other candidate")
        for public in entries(card.seal, 32):
            check_public(public)
        self._cards[sender] = (frame.hash(context.fleet), card)
        return self.advance(now)

    def _meet_own(self, epoch: int, card: bytes) -> list[Action]:
        """A valid card of one's own that this vault never made: it is a restored copy and sits the epoch out."""
        attempt = self._sheets.attempts.get(epoch)
        known = attempt.out or attempt.card == card if attempt else epoch <= self._sheets.highest
        if known:
            return []
        actions: list[Action] = []
        if self._call is not None and self._call.epoch == epoch:
            actions = self._leave()
            self._call = None
        return [
            *actions,
            *self._sheets.erase_epoch(epoch),
            *self._sheets.raise_highest(epoch),
            *self._sheets.save(epoch, Attempt.empty(out=1)),
            Note("restored-vault", {"epoch": epoch, "remedy": "this member takes part again from the next epoch on"}),
        ]

    def on_list(self, data: bytes, now: float) -> list[Action]:
        """Hold the list that defines T; deal to it once every card of it is here."""
        context = self._context
        frame = Frame.from_bytes(data)
        cards = read_message(frame, CardList, context.fleet, context.trust.coordinator_at(now))
        if self._call is None or cards.epoch != self._call.epoch:
            raise RefusedError("a list of another attempt")
        if self._list is not None:
            if self._list[0] != frame.hash(context.fleet):
                raise RefusedError("a second list for the epoch")
            return []
        if context.index not in dict(cards.hashes()):
            raise RefusedError("the list leaves this member out")
        self._list = (frame.hash(context.fleet), cards)
        attempt = replace(self._sheets.attempts[cards.epoch], cards=data)
        return [*self._sheets.save(cards.epoch, attempt), *self.advance(now)]

    def on_key(self, sender: int, chunk: int, payload: bytes, now: float) -> list[Action]:
        """Hold a dealer's key once all its chunks are here."""
        if sender == self._context.index or self._call is None:
            return []
        limit = ceremony.largest_key(self._call.rounds)
        data = self._inbox.offer(sender, chunk, payload, limit)
        if data is None:
            return []
        frame = Frame.from_bytes(data, limit)
        key = read_message(frame, CommitteeKey, self._context.fleet, self._context.trust.candidate_at(now))
        if key.sender != sender or key.epoch != self._call.epoch:
            raise RefusedError("a key of another dealer or attempt")
        self._keys[sender] = (frame.hash(self._context.fleet), key)
        return self.advance(now)

    def on_box(self, data: bytes, sender: int, now: float) -> list[Action]:
        """Hold a dealer's box for this member."""
        context = self._context
        box = read_message(Frame.from_bytes(data), Box, context.fleet, context.trust.candidate_at(now))
        if self._call is None or box.sender != sender or box.to != context.index or box.epoch != self._call.epoch:
            raise RefusedError("a box of another dealer, member or attempt")
        self._boxes[sender] = (data, box)
        return self.advance(now)

    def on_wake(self, now: float) -> list[Action]:
        """Go on, and ask again for what a broker may have dropped at a queue limit."""
        actions = self.advance(now)
        if self._call is None or now < self._ask_at:
            return actions
        self._ask_at = now + ASK_AGAIN
        return [*actions, *(Subscribe(topic) for topic in self.topics()[1:])]

    # Dealing, checking, readiness.

    def advance(self, now: float) -> list[Action]:
        """Deal when the cards of T are here; get ready when everyone's key and box are. It never raises."""
        if self._call is None or self._list is None or now >= self._call.ready_by:
            return []
        if self._context.trust.state(now) != READY:
            return []
        call, (list_hash, cards) = self._call, self._list
        attempt = self._sheets.attempts[call.epoch]
        others = [member for member, _ in cards.hashes() if member != self._context.index]
        if attempt.ready or any(member not in self._cards for member in others):
            return []
        actions: list[Action] = []
        try:
            members = self._check_list(cards, attempt)
            if not attempt.key:
                attempt, actions = self._deal(call, list_hash, attempt, members)
            if all(member in self._keys and member in self._boxes for member in others):
                actions += self._get_ready(call, list_hash, attempt, members)
        except HushfleetError as error:
            actions.append(Note("not-ready", {"epoch": call.epoch, "why": str(error)}, "committee/list"))
        return actions

    def _check_list(self, cards: CardList, attempt: Attempt) -> tuple[int, ...]:
        policy = self._context.trust.policy
        if policy is None:
            raise RefusedError("the policy is not here")
        held = {member: card_hash for member, (card_hash, _) in self._cards.items()}
        held[self._context.index] = Frame.from_bytes(attempt.card).hash(self._context.fleet)
        return ceremony.check_list(cards, held, policy.committee_min)

    def _deal(
        self, call: Call, list_hash: bytes, attempt: Attempt, members: tuple[int, ...]
    ) -> tuple[Attempt, list[Action]]:
        """Draw the sheet, and publish its commitments and a sealed box for each other member of T."""
        context, names = self._context, self._context.topics
        sheet = arithmetic.deal(context.vault_secret, context.draw, list_hash, call.rounds, len(members) - call.f)
        key = CommitteeKey(
            context.index, call.epoch, list_hash, call.first, call.rounds, call.not_after, sheet.points()
        )
        frame = context.identity.frame(key, context.fleet)
        key_hash = frame.hash(context.fleet)
        attempt = replace(attempt, key=frame.to_bytes(), own=b"".join(sheet.secrets()))
        actions = self._sheets.save(call.epoch, attempt)
        for publish in publishes(lambda chunk: names.key(call.epoch, context.index, chunk), attempt.key, context.chunk):
            actions += retain(publish)
        candidates = sorted((*indices(attempt.others), context.index))
        for position, member in enumerate(members, start=1):
            if member != context.index:
                content = ceremony.box_header(key_hash, context.index, member) + b"".join(sheet.shares(position))
                public = ceremony.seal_key_for(self._cards[member][1], context.index, candidates)
                box = Box(context.index, call.epoch, list_hash, key_hash, member, seal(content, public, context.draw))
                actions += retain(Publish(names.share(call.epoch, context.index, member), context.frame(box)))
        return attempt, actions

    def _get_ready(self, call: Call, list_hash: bytes, attempt: Attempt, members: tuple[int, ...]) -> list[Action]:
        """Check every key and share, keep what the rounds need, erase the sealing keys, sign the transcript."""
        context, threshold = self._context, len(members) - call.f
        own = Frame.from_bytes(attempt.key)
        keys = {member: self._keys[member] for member in members if member != context.index}
        for _, key in keys.values():
            ceremony.check_key(key, call, list_hash, threshold)
        keys[context.index] = (own.hash(context.fleet), CommitteeKey.from_body(own.body))
        cards = {member: self._cards[member][1] for member in members if member != context.index}
        cards[context.index] = Card.from_body(Frame.from_bytes(attempt.card).body)
        transcript = ceremony.transcript(call, keys, cards, members)
        if context.trust.pair < (transcript.root, transcript.manifest):
            raise RefusedError("a card names a newer manifest than this member could verify")
        held: dict[int, list[bytes]] = {}
        for dealer in members:
            if dealer == context.index:
                continue
            data, box = self._boxes[dealer]
            if (box.list, box.key) != (list_hash, keys[dealer][0]):
                raise RefusedError(f"dealer {dealer}: a box of another attempt")
            secret = attempt.secret_for(dealer)
            try:
                held[dealer] = ceremony.open_box(box, secret, *keys[dealer], members, threshold, context.draw)
            except ceremony.WrongBoxError:
                return self._complain(call, data, secret)
        ready = context.frame(transcript)
        actions = [
            *self._sheets.save(call.epoch, replace(attempt, others=b"", secrets=b"", own=b"", ready=ready)),
            *self._sheets.save_rounds(call, list(entries(attempt.own, 32)), held),
            *retain(Publish(context.topics.ready(call.epoch, context.index), ready)),
            *self._leave(),
            Note("ready", {"epoch": call.epoch, "members": list(members)}),
        ]
        self._call = None
        return actions

    def _complain(self, call: Call, box: bytes, secret: bytes) -> list[Action]:
        """Publish the signed box with the secret that opens it and no other; the attempt has failed."""
        context = self._context
        complaint = context.frame(Complaint(context.index, call.epoch, box, secret))
        actions = [
            *retain(Publish(context.topics.complaint(call.epoch, context.index), complaint)),
            *self._leave(),
            Note("complained", {"epoch": call.epoch, "dealer": Box.from_body(Frame.from_bytes(box).body).sender}),
        ]
        self._call = None
        return actions
