"""A second writing of a coordinator: documents, one set-up, and as many rounds as it is told, one step after the other.

It keeps nothing on disk. Each step pumps the connection until what it waits for is there, or a deadline is past.
"""

import queue
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nacl import bindings as sodium
from second_committee import LARGEST_KEY, mask_sum
from second_documents import PARTICIPANT, Documents, roster_rows
from second_layers import shared, version_zero
from second_link import Bundle, Event, Journal, Link, Post
from second_sums import (
    Floats,
    Opened,
    Vector,
    check_point,
    committed_at,
    interpolated,
    leaf,
    model_hash,
    next_version,
    nothing,
    opened,
    padded,
    picked,
    scalar,
    step_for,
    times_base,
    unpacked,
    vector_length,
)
from second_wire import (
    Fields,
    Frame,
    Refused,
    chunked,
    claim_bytes,
    digest,
    joined,
    make,
    parse,
    pieces_of,
    prefix,
    require,
    signature_holds,
    slices,
    u32,
    unsealed,
    upload_hash,
)

NAMES = {"committee", "policy", "model", "profile", "roster"}
LEARNING = {"steps": 3, "batch": 8, "rate": 0.1, "momentum": 0.0, "proximal": 0.0}


@dataclass
class Upload:
    """One device's upload of the round, as far as it came."""

    header: Fields
    pieces: list[tuple[bytes, int]]
    hash: bytes
    have: dict[int, bytes] = field(default_factory=dict)
    vector: Vector | None = None


@dataclass
class Committee:
    """A committee whose transcript is complete."""

    epoch: int
    call: Fields
    members: list[int]
    keys: dict[int, Frame]
    transcript: Frame

    @property
    def threshold(self) -> int:
        return len(self.members) - int(self.call["f"])

    def commitments(self, h: int, k: int) -> list[bytes]:
        """A_{h,k,0…t−1}."""
        return slices(self.keys[h].fields["points"], 32)[k * self.threshold : (k + 1) * self.threshold]


@dataclass
class Round:
    """What has arrived of a round."""

    plan: Frame
    uploads: dict[int, Upload] = field(default_factory=dict)
    survivors: Frame | None = None
    mask_sums: dict[int, Vector] = field(default_factory=dict)
    shares: dict[int, dict[int, int]] = field(default_factory=dict)
    first_chunks: list[float] = field(default_factory=list)
    declined: dict[int, int] = field(default_factory=dict)
    lose: set[tuple[int, int]] = field(default_factory=set)

    @property
    def number(self) -> int:
        return int(self.plan.fields["round"])

    @property
    def accepted(self) -> list[int]:
        return sorted(index for index, upload in self.uploads.items() if upload.vector is not None)


class SecondCoordinator:
    """The coordinator of one fleet, from its bundle and the owners' documents."""

    def __init__(self, directory: Path, documents: Path, port: int, journal: Journal, chunk: int = 256) -> None:
        self.bundle = Bundle.load(directory)
        self._journal, self._fleet, self._chunk = journal, self.bundle.fleet, chunk
        self._seal = bytes.fromhex((directory / "seal.key").read_text())
        self.documents = Documents(self._fleet, (documents / "root.1").read_bytes(), self.bundle.root_hash)
        self._read_documents(documents)
        require(sodium.crypto_scalarmult_base(self._seal) == self.documents.coordinator["seal"], "not our sealing key")
        model = self.documents.named["model"].fields
        self.version = 0
        self._before: dict[int, Floats] = {}
        self.flat: Floats = version_zero(shared(model), model["init"])
        require(model_hash(self.flat) == model["zero"], "version 0 has another hash than the model spec says")
        base = prefix(self._fleet)
        self._link = Link(self.bundle, port, [f"{base}/up/{shard}/#" for shard in range(self._policy["shards"])])
        self._post = Post(self._link, self._fleet)
        self._round: Round | None = None
        self._publish_documents(documents)

    def renew(self, documents: Path) -> None:
        """Take and publish what the owners have signed since."""
        self._read_documents(documents)
        self._publish_documents(documents)

    def _read_documents(self, directory: Path) -> None:
        self.documents.take_manifest((directory / "manifest").read_bytes())
        for doc in self.documents.missing(NAMES):
            self.documents.take(doc, (directory / doc["name"]).read_bytes())

    @property
    def _policy(self) -> Fields:
        return self.documents.named["policy"].fields

    def close(self) -> None:
        self._link.close()

    def _say(self, event: Event) -> None:
        self._journal.say("second-coordinator", event)

    def _publish_documents(self, directory: Path) -> None:
        for doc in self.documents.manifest.fields["docs"] if self.documents.manifest else []:
            chunks = chunked((directory / doc["name"]).read_bytes(), self._fleet, self._chunk)
            self._post.publish_chunks(f"doc/{doc['name']}/{doc['version']}", chunks, retain=True)
        for path in (directory / "cert").iterdir():
            self._post.publish(f"cert/{path.name}", path.read_bytes(), retain=True)
        for name, topic in (("root.1", "root/1"), ("manifest", "manifest"), ("date", "date")):
            self._post.publish(topic, (directory / name).read_bytes(), retain=True)

    def until(self, right: Callable[[], bool], seconds: float, for_what: str) -> None:
        """Take what arrives until something holds.

        Raises:
            AssertionError: it did not in time.
        """
        deadline = time.monotonic() + seconds
        while not right():
            left = deadline - time.monotonic()
            if left <= 0:
                said = "\n".join(f"{who}: {event}" for who, event in self._journal.events[-40:])
                raise AssertionError(f"no {for_what} within {seconds} s; the last that was said:\n{said}")
            try:
                topic, payload = self._link.inbox.get(timeout=left)
            except queue.Empty:
                continue
            try:
                self._arrived(self._post.take(topic, payload))
            except Refused as error:
                self._say({"event": "refused", "topic": topic, "why": str(error)})

    # Set-up.

    def set_up(self, epoch: int, first: int, rounds: int, seconds: float, without: tuple[int, ...] = ()) -> Committee:
        """Call every candidate, and run the errands until all but those left out are ready over one transcript."""
        now, candidates = int(time.time()), [h for h in self.documents.candidates if h not in without]
        call = make(
            "call",
            self._fleet,
            {
                "epoch": epoch,
                "committee": self.documents.named["committee"].hash,
                "f": self._policy["recoveries"],
                "first": first,
                "rounds": rounds,
                "not_after": now + min(self._policy["epoch_age"], 3600),
                "cards_by": now + 20,
                "keys_by": now + 40,
                "ready_by": now + 60,
            },
            self.bundle.identity,
        )
        base = f"committee/{epoch}"
        self._post.publish(f"{base}/call", call.raw, retain=True)
        cards = self._from_each(candidates, "card", lambda h: self._post.value(f"{base}/card/{h}"), seconds)
        listed = make(
            "list",
            self._fleet,
            {"epoch": epoch, "cards": b"".join(u32(h) + cards[h].hash for h in candidates)},
            self.bundle.identity,
        )
        self._post.publish(f"{base}/list", listed.raw, retain=True)
        keys = self._from_each(candidates, "key", lambda h: self._post.whole(f"{base}/key/{h}", LARGEST_KEY), seconds)
        ready = self._from_each(candidates, "transcript", lambda h: self._post.value(f"{base}/ready/{h}"), seconds)
        joint = self._joined(ready, {h: key.hash for h, key in keys.items()})
        committee = Committee(epoch, call.fields, candidates, keys, joint)
        for k in range(rounds):
            points = [committee.commitments(h, k)[0] for h in candidates]
            require(slices(joint.fields["leaves"], 32)[k] == leaf(epoch, k, points), "a leaf that we compute otherwise")
        self._post.publish_chunks(f"{base}/transcript", chunked(joint.raw, self._fleet, self._chunk), retain=True)
        self._say({"event": "epoch-ready", "epoch": epoch, "members": candidates})
        return committee

    def _from_each(
        self, members: list[int], kind: str, find: Callable[[int], bytes | None], seconds: float
    ) -> dict[int, Frame]:
        """One verified message of that kind from each member."""
        found: dict[int, bytes] = {}

        def all_there() -> bool:
            found.update({h: payload for h in members if (payload := find(h)) is not None})
            return len(found) == len(members)

        self.until(all_there, seconds, f"{kind} from each of {members}")
        return {h: self.documents.from_candidate(found[h], kind, h) for h in members}

    def _joined(self, ready: dict[int, Frame], keys: dict[int, bytes]) -> Frame:
        """Frames of equal bodies made one, with every signature."""
        bodies = {frame.body for frame in ready.values()}
        require(len(bodies) == 1, "members are ready over different transcripts")
        one = next(iter(ready.values()))
        require(one.fields["keys"] == b"".join(keys[h] for h in sorted(keys)), "a transcript over other keys")
        signatures = tuple(pair for h in sorted(ready) for pair in ready[h].signatures)
        return Frame(one.kind, one.fleet, one.body, signatures, one.fields)

    # A round.

    def announce(self, committee: Committee, number: int, clip: float | None = None, opens_in: int = 0) -> Round:
        """Publish the plan of a round on the newest version.

        Args:
            clip: instead of the policy's.
            opens_in: seconds until it opens.
        """
        return self._begin(self._plan(committee, number, clip or self._policy["clip"], opens_in, 2**32))

    def announce_to(self, committee: Committee, number: int, how_many: int) -> tuple[Round, list[int]]:
        """Publish a plan whose sample holds exactly so many participants; who they are."""
        people = roster_rows(self.documents.named["roster"]).values()
        participants = [person.index for person in people if person.roles & PARTICIPANT]
        sample = 2**32 * how_many // len(participants)
        while True:
            plan = self._plan(committee, number, self._policy["clip"], 0, sample)
            chosen = [index for index in participants if picked(plan.hash, index, sample)]
            if len(chosen) == how_many:
                return self._begin(plan), chosen

    def _begin(self, plan: Frame) -> Round:
        self._round = Round(plan)
        self._post.publish("plan", plan.raw, retain=True)
        self._say({"event": "plan", "round": self._round.number})
        return self._round

    def _plan(self, committee: Committee, number: int, clip: float, opens_in: int, sample: int) -> Frame:
        opens, policy, coords = int(time.time()) + opens_in, self._policy, len(self.flat)
        k = number - committee.call["first"]
        hashes = {name: self.documents.named[name].hash for name in NAMES}
        return make(
            "plan",
            self._fleet,
            {
                "round": number,
                "kind": 0,
                "model": hashes["model"],
                "base": self.version,
                "base_hash": model_hash(self.flat),
                "roster": hashes["roster"],
                "policy": hashes["policy"],
                "epoch": committee.epoch,
                "transcript": committee.transcript.hash,
                "points": b"".join(committee.commitments(h, k)[0] for h in committee.members),
                "opens": opens,
                "closes": opens + 60,
                "until": opens + 120,
                "sample": sample,
                "grouped": 0,
                "codec": 0,
                "bits": 16,
                "coords": coords,
                "keep": 1.0,
                "clip": clip,
                "step": step_for(clip, policy["largest_survivor_set"]),
                "seed": secrets.token_bytes(32),
                "noise": 0.0,
                "tail": 0,
                **LEARNING,
            },
            self.bundle.identity,
        )

    def _arrived(self, below: str) -> None:
        """Something under `up/{shard}/{device}/{kind}/{id}/{chunk}`; the rest is looked up when it is needed."""
        parts, current = below.split("/"), self._round
        if parts[0] != "up" or current is None:
            return
        require(len(parts) == 6, "a strange topic")
        _, _, device, kind, name, chunk = parts
        if kind == "upload":
            if name == str(current.number):
                self._on_upload(current, int(device), int(chunk), self._post.seen[below])
            return
        payload = self._post.whole(below.rpartition("/")[0], vector_length(padded(len(self.flat))) + 512, ask=False)
        if payload is None:
            return
        require(kind in ("masksum", "share", "decline"), f"a message of kind {kind}")
        frame = parse(unsealed(payload, self._seal), self._fleet, kind)
        person = roster_rows(self.documents.named["roster"])[int(device)]
        require(frame.holds(person.index, person.key), f"a {kind} not by {device}")
        if frame.fields["plan"] != current.plan.hash:
            return
        if kind == "decline":
            current.declined[person.index] = frame.fields["reason"]
            self._say({"event": "declined", "device": person.index, "reason": frame.fields["reason"]})
        elif kind == "masksum":
            self._on_mask_sum(current, person.index, name, frame.fields)
        else:
            self._on_share(current, person.index, name, frame.fields)

    def _on_upload(self, current: Round, device: int, chunk: int, payload: bytes) -> None:
        if chunk == 0:
            header = parse(payload, self._fleet, "header").fields
            if device not in current.uploads:
                self._on_header(current, device, header)
            self._receipt(current, device, 2 if current.uploads[device].vector is None else 0)
        elif (device, chunk) in current.lose:
            current.lose.discard((device, chunk))
            self._say({"event": "lost", "device": device, "chunk": chunk})
        elif device in current.uploads:
            current.uploads[device].have[chunk - 1] = payload
        if device in current.uploads:
            self._perhaps_complete(current, device)

    def _on_header(self, current: Round, device: int, header: Fields) -> None:
        plan, length = current.plan.fields, vector_length(padded(len(self.flat)))
        require(header["round"] == plan["round"] and header["length"] == length, "a header of another round or length")
        people = roster_rows(self.documents.named["roster"])
        require(device in people and bool(people[device].roles & PARTICIPANT), f"{device} is no participant")
        check_point(header["y"])
        whole = upload_hash(length, header["hashes"])
        message = claim_bytes(self._fleet, plan["roster"], current.plan.hash, plan["round"], device, header["y"], whole)
        require(signature_holds(header["sig"], message, people[device].key), f"the claim of {device}")
        current.first_chunks.append(time.time())
        current.uploads[device] = Upload(header, pieces_of(header, length), whole)
        self._say({"event": "header", "device": device, "chunks": len(current.uploads[device].pieces)})

    def _perhaps_complete(self, current: Round, device: int) -> None:
        upload = current.uploads[device]
        raw = joined(upload.pieces, upload.have)
        if raw is not None and upload.vector is None:
            upload.vector = unpacked(raw, padded(len(self.flat)))
            self._say({"event": "accepted", "device": device})
            self._receipt(current, device, 0)

    def _receipt(self, current: Round, device: int, state: int) -> None:
        upload = current.uploads[device]
        missing = bytearray(-(-len(upload.pieces) // 8) if state == 2 else 0)
        if state == 2:
            for at in range(len(upload.pieces)):
                if at not in upload.have:
                    missing[at // 8] |= 1 << at % 8
        fields = {
            "round": current.number,
            "upload": upload.hash,
            "state": state,
            "reason": 0,
            "missing": bytes(missing),
        }
        self.send(device, "receipt", str(current.number), make("receipt", self._fleet, fields, self.bundle.identity))

    def send(self, device: int, kind: str, name: str, frame: Frame) -> None:
        self._post.publish_chunks(f"down/{device}/{kind}/{name}", chunked(frame.raw, self._fleet, self._chunk))

    def freeze(self, committee: Committee, current: Round) -> None:
        """Freeze the accepted uploads as the survivor set, and show it to the committee."""
        current.survivors = self.survivors(current, self.entries(current))
        for h in committee.members:
            self.send(h, "survivors", str(current.number), current.survivors)

    @staticmethod
    def entries(current: Round) -> list[bytes]:
        """One entry for each accepted upload."""
        uploads = [(index, current.uploads[index]) for index in current.accepted]
        return [u32(index) + one.header["y"] + one.hash + one.header["sig"] for index, one in uploads]

    def survivors(self, current: Round, entries: list[bytes]) -> Frame:
        fields = {"plan": current.plan.hash, "entries": b"".join(entries)}
        return make("survivors", self._fleet, fields, self.bundle.identity)

    def request(self, current: Round, survivors: Frame, lost: int) -> Frame:
        fields = {"plan": current.plan.hash, "set": survivors.hash, "lost": lost}
        return make("request", self._fleet, fields, self.bundle.identity)

    def _on_mask_sum(self, current: Round, h: int, name: str, fields: Fields) -> None:
        require(
            current.survivors is not None and fields["set"] == current.survivors.hash, "a mask sum over another set"
        )
        require(name == str(current.number) and fields["group"] == 0 and fields["part"] == bytes(32), "a grouped sum")
        require((fields["root"], fields["manifest"]) == self.documents.pair, "another pair than the one published")
        current.mask_sums[h] = unpacked(fields["sum"], padded(len(self.flat)))
        self._say({"event": "mask-sum", "member": h})

    def recover(self, committee: Committee, current: Round, lost: int, seconds: float) -> Vector:
        """A member's mask sum from the others' shares; also the audit of one that answered."""
        assert current.survivors is not None
        request = self.request(current, current.survivors, lost)
        for h in committee.members:
            if h != lost:
                self.send(h, "request", f"{current.number}.{lost}", request)
        k = current.number - committee.call["first"]
        commitments = committee.commitments(lost, k)
        shares = current.shares.setdefault(lost, {})
        self.until(lambda: len(shares) >= committee.threshold, seconds, f"shares of {lost}")
        by_position = {committee.members.index(h) + 1: share for h, share in shares.items()}
        for x, share in by_position.items():
            require(times_base(share) == committed_at(commitments, x), "a share against its commitments")
        secret = interpolated(dict(sorted(by_position.items())[: committee.threshold]))
        require(times_base(secret) == commitments[0], "the interpolated scalar is not the member's")
        total = mask_sum(secret, lost, current.plan, current.survivors)
        self._say({"event": "recovered", "member": lost, "from": sorted(shares)})
        return total

    def _on_share(self, current: Round, h: int, name: str, fields: Fields) -> None:
        require(current.survivors is not None and fields["set"] == current.survivors.hash, "a share over another set")
        require(name == f"{current.number}.{fields['lost']}", "a share under another name")
        current.shares.setdefault(fields["lost"], {})[h] = scalar(fields["share"])

    def open(self, current: Round, mask_sums: dict[int, Vector]) -> Opened:
        """Σ uploads − Σ mask sums, checked."""
        total = nothing(padded(len(self.flat)))
        for index in current.accepted:
            vector = current.uploads[index].vector
            assert vector is not None
            total = total.plus(vector)
        for vector in mask_sums.values():
            total = total.minus(vector)
        plan = current.plan
        return opened(
            total, len(current.accepted), len(self.flat), self._policy, plan.fields, digest("chks", plan.hash)
        )

    def apply(self, current: Round, sums: Opened) -> None:
        """Make the next version; publish its delta and the result."""
        plan, m = current.plan.fields, padded(len(self.flat))
        before, weight = model_hash(self.flat), sums.lanes["weight"]
        self._before[self.version] = self.flat
        self.flat = next_version(self.flat, sums.body, plan["step"], weight, 1.0)
        self.version += 1
        body = np.concatenate([sums.body, np.zeros(m - len(sums.body), np.int64)])
        packed = Vector((body % 2**16).astype(np.uint16), np.zeros(0, np.uint64)).packed
        delta = make(
            "delta",
            self._fleet,
            {
                "version": self.version,
                "plan": current.plan.hash,
                "bits": 16,
                "body": packed,
                "step": plan["step"],
                "weight": weight,
                "rate": 1.0,
                "codec": 0,
                "momentum": 0.0,
                "adam": [],
            },
            self.bundle.identity,
        )
        snapshot = self.flat.astype("<f4").tobytes()
        for kind, payload in (("delta", delta.raw), ("snapshot", snapshot)):
            chunks = chunked(payload, self._fleet, self._chunk)
            self._post.publish_chunks(f"model/{self.version}/{kind}", chunks, retain=True)
        self._end(
            current,
            {
                "outcome": 0,
                "reason": 0,
                "base": self.version - 1,
                "base_hash": before,
                "delta": delta.hash,
                "included": bitmap(current.accepted),
                "metrics": self._metrics(sums, plan["step"]),
            },
        )

    def abort(self, current: Round) -> None:
        """End a round without a sum: too few."""
        metrics = {
            "examples": 0,
            "training_loss": 0.0,
            "evaluated": 0,
            "evaluation_loss": 0.0,
            "correct": 0,
            "norm": 0.0,
        }
        self._end(
            current,
            {
                "outcome": 1,
                "reason": 1,
                "base": self.version,
                "base_hash": model_hash(self.flat),
                "delta": bytes(32),
                "included": b"",
                "metrics": metrics,
            },
        )

    def roll_back(self, number: int, version: int) -> None:
        """Take the model back by the result of a round without a plan; its snapshot is there before."""
        before, self.flat = (self.version, model_hash(self.flat)), self._before[version]
        self.version = version
        chunks = chunked(self.flat.astype("<f4").tobytes(), self._fleet, self._chunk)
        self._post.publish_chunks(f"model/{version}/snapshot", chunks, retain=True)
        fields = {
            "plan": bytes(32),
            "round": number,
            "outcome": 3,
            "reason": 6,
            "base": before[0],
            "base_hash": before[1],
            "version": version,
            "version_hash": model_hash(self.flat),
            "delta": bytes(32),
            "included": b"",
            "step": 1.0,
            "metrics": dict.fromkeys(("examples", "evaluated", "correct"), 0)
            | dict.fromkeys(("training_loss", "evaluation_loss", "norm"), 0.0),
        }
        result = make("result", self._fleet, fields, self.bundle.identity)
        self._post.publish(f"result/{number}", result.raw, retain=True)

    def _end(self, current: Round, fields: Fields) -> None:
        fields = {
            "plan": current.plan.hash,
            "round": current.number,
            "version": self.version,
            "version_hash": model_hash(self.flat),
            "step": current.plan.fields["step"],
            **fields,
        }
        result = make("result", self._fleet, fields, self.bundle.identity)
        self._post.publish(f"result/{current.number}", result.raw, retain=True)
        self._say({"event": "ended", "round": current.number, "version": self.version, "outcome": fields["outcome"]})

    @staticmethod
    def _metrics(sums: Opened, step: float) -> Fields:
        lanes = sums.lanes
        mean = sums.body.astype(np.float64) * step / (lanes["weight"] / 65536)
        return {
            "examples": lanes["examples"],
            "training_loss": lanes["training_loss"] / 65536 / max(1, lanes["examples"]),
            "evaluated": lanes["evaluated"],
            "evaluation_loss": lanes["evaluation_loss"] / 65536 / max(1, lanes["evaluated"]),
            "correct": lanes["correct"],
            "norm": float(np.sqrt(np.sum(mean * mean))),
        }


def bitmap(indices: list[int]) -> bytes:
    """Bit i, the least significant first, for index i; the last byte is not 0."""
    bits = bytearray(max(indices) // 8 + 1)
    for index in indices:
        bits[index // 8] |= 1 << index % 8
    return bytes(bits)
