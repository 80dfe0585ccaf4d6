"""A second writing of the committee: the transcript that all check, and a member's part (sections 3 and 4)."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from nacl import bindings as sodium
from second_documents import PARTICIPANT, Documents, numbers, roster_rows
from second_link import Event, Post
from second_sums import (
    Vector,
    chain,
    check_point,
    coefficients,
    committed_at,
    leaf,
    mask,
    mask_seed,
    nothing,
    padded,
    scalar,
    scalar_bytes,
    share_at,
    times_base,
)
from second_wire import (
    Fields,
    Frame,
    Identity,
    Refused,
    chunked,
    claim_bytes,
    make,
    parse,
    require,
    sealed,
    signature_holds,
    slices,
    u32,
    unsealed,
)

FURTHEST = 1_000
"""How far a call's epoch and first round may lie above the highest known."""
ENTRY = 132
LARGEST_SET = 16_383 * ENTRY + 256
LARGEST_KEY = 1_024 * 32 * 32 + 256


def members_of(transcript: Fields) -> list[int]:
    return numbers(transcript["members"])


def check_transcript(documents: Documents, frame: Frame, plan: Fields) -> None:
    """Whether a plan may use this transcript: complete, certified, by the policy, and with the plan's points in it."""
    fields, policy = frame.fields, documents.named["policy"].fields
    members, candidates = members_of(fields), documents.candidates
    require(members == sorted(set(members)) and 2 <= len(members) <= 32, "members do not ascend")
    require([signer for signer, _ in frame.signatures] == members, "not every member is ready")
    for h in members:
        require(h in candidates, f"member {h} is not certified")
        require(frame.holds(h, candidates[h]["key"]), f"member {h} did not sign")
    require(
        fields["f"] == policy["recoveries"] and len(members) >= policy["committee_min"], "f or c against the policy"
    )
    require(fields["not_after"] <= plan["opens"] + policy["epoch_age"], "an epoch that lasts too long")
    require(plan["opens"] < plan["closes"] < plan["until"] <= fields["not_after"], "times of the plan")
    require((fields["root"], fields["manifest"]) <= documents.pair, "stale-fleet")
    require(len(fields["leaves"]) == 32 * fields["rounds"], "not one leaf a round")
    k = plan["round"] - fields["first"]
    require(0 <= k < fields["rounds"], "a round outside its epoch")
    points = slices(plan["points"], 32)
    require(len(points) == len(members), "not one point a member")
    for point in points:
        check_point(point)
    require(
        leaf(fields["epoch"], k, points) == slices(fields["leaves"], 32)[k], "points that are not in the transcript"
    )


def mask_sum(secret: int, h: int, plan: Frame, survivors: Frame) -> Vector:
    """What member h, whose scalar of the round is `secret`, has to answer over a survivor set."""
    fields, m, point = plan.fields, padded(plan.fields["coords"]), times_base(secret)
    total = nothing(m)
    for entry in slices(survivors.fields["entries"], ENTRY):
        i, y = int.from_bytes(entry[:4], "little"), entry[4:36]
        seed = mask_seed(secret, y, plan.fleet, plan.hash, fields["round"], i, h, y, point)
        total = total.plus(mask(seed, m))
    return total


def check_blame(documents: Documents, blame: Fields, plan: Frame, members: list[int]) -> None:
    """Whether a `Blame` is right: the member signed another mask sum than the revealed scalar gives."""
    lost, secret = blame["lost"], scalar(blame["scalar"])
    survivors = documents.from_coordinator(blame["set"], "survivors")
    require(blame["plan"] == plan.hash == survivors.fields["plan"], "a blame of another plan")
    require(lost in members, "a blame of nobody")
    point = slices(plan.fields["points"], 32)[members.index(lost)]
    require(times_base(secret) == point, "the scalar is not the blamed member's")
    right = mask_sum(secret, lost, plan, survivors).packed
    sums = [documents.from_candidate(raw, "masksum", lost).fields for raw in blame["sums"]]
    require(all(one["plan"] == plan.hash and one["set"] == survivors.hash for one in sums), "sums over another set")
    require(any(one["sum"] != right for one in sums), "the blamed member's sum is right")


@dataclass
class Attempt:
    """What a member knows of one epoch's set-up."""

    call: Fields
    nonce: bytes
    seal: dict[int, bytes]
    card: Frame
    list_hash: bytes = b""
    members: list[int] = field(default_factory=list)
    cards: dict[int, Frame] = field(default_factory=dict)
    polynomials: list[list[int]] = field(default_factory=list)
    key: Frame | None = None
    shares: dict[int, list[int]] = field(default_factory=dict)
    ready: Frame | None = None
    judged: dict[int, int] = field(default_factory=dict)

    @property
    def threshold(self) -> int:
        return len(self.members) - int(self.call["f"])

    def shares_in(self, box: bytes, secret: bytes, key: Frame, dealer: int, to: int) -> list[int]:
        """The shares in a box, checked against the dealer's commitments, or `Refused`."""
        content = unsealed(box, secret)
        require(content[:40] == key.hash + u32(dealer) + u32(to), f"the header in the box of {dealer}")
        shares = [scalar(raw) for raw in slices(content[40:], 32)]
        require(len(shares) == self.call["rounds"], f"not one share a round in the box of {dealer}")
        x, t, points = self.members.index(to) + 1, self.threshold, slices(key.fields["points"], 32)
        for k, share in enumerate(shares):
            require(times_base(share) == committed_at(points[k * t : k * t + t], x), f"a share of {dealer} is wrong")
        return shares


@dataclass
class Answered:
    """The one set of a round, the bytes that answered it, and whose shares left."""

    set_hash: bytes
    frame: bytes
    helped: set[int] = field(default_factory=set)


class SecondMember:
    """A committee member. `advance` does whatever can be done now; what is sent to it comes through `on_…`."""

    def __init__(
        self,
        documents: Documents,
        identity: Identity,
        post: Post,
        say: Callable[[Event], None],
        clock: Callable[[], int],
        chunk: int,
    ) -> None:
        assert isinstance(identity.signer, int)
        self._documents, self._identity, self._post, self._say, self._clock = documents, identity, post, say, clock
        self._index, self._chunk = identity.signer, chunk
        self._vault_secret = secrets.token_bytes(32)
        self._attempts: dict[int, Attempt] = {}
        self._answered: dict[int, Answered] = {}

    @property
    def _fleet(self) -> bytes:
        return self._documents.fleet

    # Set-up.

    def advance(self, newest_round: int | None) -> None:
        """Answer the newest call, and take its attempt as far as what has arrived allows."""
        epochs = [int(topic.split("/")[1]) for topic in self._post.seen if topic.endswith("/call")]
        if not epochs:
            # A call is cleared as soon as its set-up has failed; who lied, the slow still want to know.
            if self._attempts and (last := self._attempts[max(self._attempts)]).key is not None:
                self._on_complaints(max(self._attempts), last)
            return
        epoch = max(epochs)
        if epoch not in self._attempts:
            if self._attempts and epoch < max(self._attempts):
                return
            self._on_call(epoch, newest_round)
        attempt = self._attempts[epoch]
        if attempt.key is None:
            self._on_list(epoch, attempt)
        if attempt.key is not None:
            self._on_complaints(epoch, attempt)
            if attempt.ready is None and not attempt.judged:
                self._on_keys(epoch, attempt)

    def _on_call(self, epoch: int, newest_round: int | None) -> None:
        call = self._documents.from_coordinator(self._post.seen[f"committee/{epoch}/call"], "call").fields
        policy, now = self._documents.named["policy"].fields, self._clock()
        require(call["epoch"] == epoch, "a call under another epoch's topic")
        require(not self._attempts or epoch <= max(self._attempts) + FURTHEST, "an epoch too far above")
        require(call["committee"] == self._documents.named["committee"].hash, "a call over another committee document")
        require(
            call["f"] == policy["recoveries"] and 1 <= call["rounds"] <= policy["epoch_rounds"], "f or R of the call"
        )
        require(now < call["not_after"] <= now + policy["epoch_age"], "age of the call")
        require(newest_round is None or call["first"] <= newest_round + FURTHEST, "a first round too far above")
        require(self._index in self._documents.candidates, "no candidate")
        nonce = secrets.token_bytes(32)
        seal = {h: secrets.token_bytes(32) for h in self._documents.candidates if h != self._index}
        root, manifest = self._documents.pair
        card = make(
            "card",
            self._fleet,
            {
                "epoch": epoch,
                "committee": call["committee"],
                "seal": b"".join(sodium.crypto_scalarmult_base(secret) for secret in seal.values()),
                "anchor": chain(nonce, call["rounds"]),
                "root": root,
                "manifest": manifest,
            },
            self._identity,
        )
        self._attempts[epoch] = Attempt(call, nonce, seal, card)
        self._post.publish(f"committee/{epoch}/card/{self._index}", card.raw, retain=True)
        self._say({"event": "card", "epoch": epoch})

    def _on_list(self, epoch: int, attempt: Attempt) -> None:
        """Check the cards that the list names, and deal to their owners."""
        payload = self._post.value(f"committee/{epoch}/list")
        if payload is None:
            return
        listed = self._documents.from_coordinator(payload, "list")
        rows = {int.from_bytes(row[:4], "little"): row[4:] for row in slices(listed.fields["cards"], 36)}
        members = sorted(rows)
        require(listed.fields["epoch"] == epoch and len(rows) * 36 == len(listed.fields["cards"]), "a bad list")
        require(listed.fields["cards"] == b"".join(u32(h) + rows[h] for h in members), "a list that does not ascend")
        policy = self._documents.named["policy"].fields
        require(policy["committee_min"] <= len(rows) <= 32 and self._index in rows, "too few in the list, or not we")
        payloads = {h: self._post.value(f"committee/{epoch}/card/{h}") for h in members}
        if not all(payloads.values()):
            return
        for h in members:
            card = self._documents.from_candidate(payloads[h] or b"", "card", h)
            require(card.hash == rows[h], f"the list's card of {h} is another")
            keys = slices(card.fields["seal"], 32)
            require(
                card.fields["epoch"] == epoch and card.fields["committee"] == attempt.call["committee"], "a bad card"
            )
            require(
                len(set(keys)) == len(keys) == len(self._documents.candidates) - 1, "not one sealing key a candidate"
            )
            attempt.cards[h] = card
        require(attempt.cards[self._index].hash == attempt.card.hash, "our card is not ours")
        attempt.list_hash, attempt.members = listed.hash, members
        self._deal(epoch, attempt)

    def _seal_key(self, attempt: Attempt, owner: int, dealer: int) -> bytes:
        """The sealing key that `owner`'s card holds for `dealer`."""
        others = [h for h in self._documents.candidates if h != owner]
        return slices(attempt.cards[owner].fields["seal"], 32)[others.index(dealer)]

    def _deal(self, epoch: int, attempt: Attempt) -> None:
        call = attempt.call
        attempt.polynomials = coefficients(self._vault_secret, attempt.list_hash, call["rounds"], attempt.threshold)
        key = make(
            "key",
            self._fleet,
            {
                "epoch": epoch,
                "list": attempt.list_hash,
                **{name: call[name] for name in ("first", "rounds", "not_after")},
                "points": b"".join(times_base(a) for polynomial in attempt.polynomials for a in polynomial),
            },
            self._identity,
        )
        attempt.key = key
        self._post.publish_chunks(
            f"committee/{epoch}/key/{self._index}", chunked(key.raw, self._fleet, self._chunk), retain=True
        )
        for x, to in enumerate(attempt.members, start=1):
            if to == self._index:
                attempt.shares[to] = [share_at(polynomial, x) for polynomial in attempt.polynomials]
                continue
            shares = b"".join(scalar_bytes(self._share(polynomial, x, to)) for polynomial in attempt.polynomials)
            content = key.hash + u32(self._index) + u32(to) + shares
            fields = {
                "epoch": epoch,
                "list": attempt.list_hash,
                "key": key.hash,
                "to": to,
                "box": sealed(content, self._seal_key(attempt, to, self._index)),
            }
            box = make("box", self._fleet, fields, self._identity)
            self._post.publish(f"committee/{epoch}/share/{self._index}/{to}", box.raw, retain=True)
        self._say({"event": "dealt", "epoch": epoch, "members": attempt.members})

    def _share(self, polynomial: list[int], x: int, _to: int) -> int:
        """An honest dealer's share is what its polynomial gives."""
        return share_at(polynomial, x)

    def _on_keys(self, epoch: int, attempt: Attempt) -> None:
        """Check every key and our box of it; sign the transcript that they make."""
        payloads = {h: self._post.whole(f"committee/{epoch}/key/{h}", LARGEST_KEY) for h in attempt.members}
        others = [h for h in attempt.members if h != self._index]
        boxes = {h: self._post.value(f"committee/{epoch}/share/{h}/{self._index}") for h in others}
        if not all(payloads.values()) or not all(boxes.values()):
            return
        keys = {h: self._documents.from_candidate(payloads[h] or b"", "key", h) for h in attempt.members}
        assert attempt.key is not None
        require(keys[self._index].hash == attempt.key.hash, "our key is not ours")
        rounds, t = attempt.call["rounds"], attempt.threshold
        everything: list[bytes] = []
        for h in attempt.members:
            fields = keys[h].fields
            same = all(fields[name] == attempt.call[name] for name in ("epoch", "first", "rounds", "not_after"))
            require(same and fields["list"] == attempt.list_hash, f"the key of {h} is of another attempt")
            require(len(fields["points"]) == 32 * rounds * t, f"the key of {h} has not t points a round")
            everything += slices(fields["points"], 32)
        for point in everything:
            check_point(point)
        require(len(set(everything)) == len(everything), "two equal points")
        for h in others:
            attempt.shares[h] = self._opened_box(epoch, attempt, h, keys[h], boxes[h] or b"")
        points = {h: slices(keys[h].fields["points"], 32) for h in attempt.members}
        leaves = [leaf(epoch, k, (points[h][k * t] for h in attempt.members)) for k in range(rounds)]
        root, manifest = max((card.fields["root"], card.fields["manifest"]) for card in attempt.cards.values())
        require(self._documents.pair >= (root, manifest), "stale-fleet: a card knows a newer manifest")
        fields = {name: attempt.call[name] for name in ("epoch", "committee", "first", "rounds", "f", "not_after")}
        fields |= {
            "members": b"".join(map(u32, attempt.members)),
            "keys": b"".join(keys[h].hash for h in attempt.members),
            "leaves": b"".join(leaves),
            "root": root,
            "manifest": manifest,
        }
        attempt.ready = make("transcript", self._fleet, fields, self._identity)
        attempt.seal.clear()
        self._post.publish(f"committee/{epoch}/ready/{self._index}", attempt.ready.raw, retain=True)
        self._say({"event": "ready", "epoch": epoch})

    def _opened_box(self, epoch: int, attempt: Attempt, dealer: int, key: Frame, payload: bytes) -> list[int]:
        box = self._documents.from_candidate(payload, "box", dealer).fields
        require(
            box["epoch"] == epoch and box["list"] == attempt.list_hash, f"the box of {dealer} is of another attempt"
        )
        require(box["key"] == key.hash and box["to"] == self._index, f"the box of {dealer} is not for us")
        try:
            return attempt.shares_in(box["box"], attempt.seal[dealer], key, dealer, self._index)
        except Refused:
            self._complain(epoch, payload, attempt.seal[dealer])
            raise

    def _complain(self, epoch: int, box: bytes, secret: bytes) -> None:
        """Show everybody a signed box, and the secret that opens it."""
        complaint = make("complaint", self._fleet, {"epoch": epoch, "box": box, "secret": secret}, self._identity)
        self._post.publish(f"committee/{epoch}/complaint/{self._index}", complaint.raw, retain=True)
        self._say({"event": "complaint", "epoch": epoch})

    def _on_complaints(self, epoch: int, attempt: Attempt) -> None:
        """Say of each complaint who is wrong: the dealer or the complainer."""
        for h in attempt.members:
            payload = self._post.value(f"committee/{epoch}/complaint/{h}")
            if payload is None or h in attempt.judged:
                continue
            complaint = self._documents.from_candidate(payload, "complaint", h).fields
            dealer = parse(complaint["box"], self._fleet, "box").fields["from"]
            require(dealer in attempt.members, "a complaint of nobody")
            raw_key = self._post.whole(f"committee/{epoch}/key/{dealer}", LARGEST_KEY)
            if raw_key is None:
                return
            key = self._documents.from_candidate(raw_key, "key", dealer)
            box = self._documents.from_candidate(complaint["box"], "box", dealer).fields
            ours = (box["epoch"], box["list"], box["key"]) == (epoch, attempt.list_hash, key.hash)
            require(ours and complaint["epoch"] == epoch, "a complaint over another attempt")
            liar = h
            if box["to"] == h and sodium.crypto_scalarmult_base(complaint["secret"]) == self._seal_key(
                attempt, h, dealer
            ):
                try:
                    attempt.shares_in(box["box"], complaint["secret"], key, dealer, h)
                except Refused:
                    liar = dealer
            attempt.judged[h] = liar
            self._say({"event": "judged", "epoch": epoch, "complainer": h, "dealer": dealer, "liar": liar})

    # A round.

    def _attempt_of(self, plan: Frame) -> Attempt:
        """The attempt whose transcript the plan names; we must be ready over it."""
        attempt = self._attempts.get(plan.fields["epoch"])
        require(attempt is not None and attempt.ready is not None, "a plan of an epoch that we are not ready for")
        assert attempt is not None
        assert attempt.ready is not None
        require(attempt.ready.hash == plan.fields["transcript"], "a plan of another transcript")
        return attempt

    def on_survivors(self, payload: bytes, plan: Frame) -> None:
        """Check the set, record it, answer with the mask sum over exactly its entries."""
        survivors, fields = self._documents.from_coordinator(payload, "survivors"), plan.fields
        require(survivors.fields["plan"] == plan.hash, "survivors of another plan")
        attempt, number = self._attempt_of(plan), fields["round"]
        before = self._answered.get(number)
        require(before is None or before.set_hash == survivors.hash, "another set for this round")
        if before is None:
            before = Answered(survivors.hash, self._mask_sum(attempt, plan, survivors))
            self._answered[number] = before
        box = sealed(before.frame, self._documents.coordinator["seal"])
        shard = self._index % self._documents.named["policy"].fields["shards"]
        self._post.publish_chunks(f"up/{shard}/{self._index}/masksum/{number}", chunked(box, self._fleet, self._chunk))
        self._say({"event": "mask-sum", "round": number})

    def _mask_sum(self, attempt: Attempt, plan: Frame, survivors: Frame) -> bytes:
        entries = slices(survivors.fields["entries"], ENTRY)
        policy, fields = self._documents.named["policy"].fields, plan.fields
        require(policy["smallest_survivor_set"] <= len(entries) <= policy["largest_survivor_set"], "size of the set")
        indices = [int.from_bytes(entry[:4], "little") for entry in entries]
        require(indices == sorted(set(indices)), "the set does not ascend")
        roster = roster_rows(self._documents.named["roster"])
        for index, entry in zip(indices, entries, strict=True):
            y, upload, signature = entry[4:36], entry[36:68], entry[68:]
            require(index in roster and bool(roster[index].roles & PARTICIPANT), f"{index} is no participant")
            message = claim_bytes(self._fleet, fields["roster"], plan.hash, fields["round"], index, y, upload)
            require(signature_holds(signature, message, roster[index].key), f"{index} did not sign this")
            check_point(y)
        secret = attempt.polynomials[fields["round"] - attempt.call["first"]][0]
        total = self._distorted(mask_sum(secret, self._index, plan, survivors))
        root, manifest = self._documents.pair
        body = {
            "plan": plan.hash,
            "set": survivors.hash,
            "group": 0,
            "part": bytes(32),
            "sum": total.packed,
            "root": root,
            "manifest": manifest,
        }
        return make("masksum", self._fleet, body, self._identity).raw

    def _distorted(self, total: Vector) -> Vector:
        """An honest member's mask sum is what it is."""
        return total

    def on_request(self, payload: bytes, plan: Frame) -> None:
        """Send our share of a lost member's scalar, for at most f members a round."""
        request, number = self._documents.from_coordinator(payload, "request").fields, plan.fields["round"]
        attempt, lost = self._attempt_of(plan), request["lost"]
        if number not in self._answered:
            raise Refused("a recovery before any survivor set")
        answered = self._answered[number]
        require(request["plan"] == plan.hash and request["set"] == answered.set_hash, "a recovery of another set")
        require(lost != self._index and lost in attempt.members, "a recovery of nobody")
        require(len(answered.helped | {lost}) <= attempt.call["f"], "more recoveries than f")
        answered.helped.add(lost)
        k = number - attempt.call["first"]
        body = {
            "plan": plan.hash,
            "set": answered.set_hash,
            "lost": lost,
            "share": scalar_bytes(attempt.shares[lost][k]),
        }
        share = make("share", self._fleet, body, self._identity)
        shard = self._index % self._documents.named["policy"].fields["shards"]
        box = sealed(share.raw, self._documents.coordinator["seal"])
        self._post.publish(f"up/{shard}/{self._index}/share/{number}.{lost}/0", box)
        self._say({"event": "share", "round": number, "lost": lost})
