"""A second writing of a device: participant, and committee member if its certificate says so.

It keeps nothing on disk and its training is a stub (the protocol says nothing of how a delta is found); everything that
another party can see of it follows the specification. One thread; after each message it does whatever can be done now.
"""

import queue
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from second_committee import LARGEST_SET, SecondMember, check_blame, check_transcript, members_of
from second_documents import MEMBER, PARTICIPANT, Documents
from second_layers import shared, version_zero
from second_link import Bundle, Event, Journal, Link, Post
from second_sums import (
    Contribution,
    Floats,
    adam_step,
    drawn,
    encoded,
    mask,
    mask_seed,
    model_hash,
    next_version,
    padded,
    picked,
    signed_body,
    step_for,
    times_base,
    vector_length,
)
from second_wire import (
    LARGEST,
    Fields,
    Frame,
    Refused,
    chunk_hash,
    claim,
    digest,
    make,
    parse,
    prefix,
    require,
    sealed,
    slices,
    upload_hash,
)

ASK_AGAIN = 5.0
"""Seconds after which a header without a receipt is sent again."""


def any_training(_flat: Floats, coords: int) -> Contribution:
    """A delta from nowhere: small, and different in every coordinate."""
    delta = (0.002 * np.sin(np.arange(coords) + 1.0)).astype(np.float32)
    return Contribution(delta, examples=40, training_loss=21.5)


class SecondDevice:
    """One device on the broker, from its bundle.

    Args:
        port: the broker's.
        hold: rounds in which it does not upload before `release`.
        chunk: bytes a slice of what it cuts.
        decline: the reason with which it declines, by round.
        member: how it is a member, to try one that lies.
        by_snapshot: whether it takes the newest snapshot instead of replaying deltas.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        port: int,
        journal: Journal,
        hold: tuple[int, ...] = (),
        chunk: int = 256,
        training: Callable[[Floats, int], Contribution] = any_training,
        decline: dict[int, int] | None = None,
        member: type[SecondMember] = SecondMember,
        by_snapshot: bool = False,
    ) -> None:
        self.bundle = Bundle.load(directory)
        self._name, self._journal, self._held, self._chunk, self._training = name, journal, set(hold), chunk, training
        self._decline, self._by_snapshot = dict(decline or {}), by_snapshot
        self._documents = Documents(self.bundle.fleet, self.bundle.frame("root.1"), self.bundle.root_hash)
        own = parse(self.bundle.frame("certificate"), self.bundle.fleet, "certificate").fields["cert"]
        self._roles, self._profile = own["roles"], own["profile"]
        require(own["key"] == self.bundle.identity.public and own["index"] == self.bundle.index, "not our certificate")
        self._names = {"committee", "policy", "model", "profile"} | ({"roster"} if self._roles & MEMBER else set())
        me = self.bundle.index
        below = ["root/2", "manifest", "date", "plan", "result/+", f"down/{me}/#"]
        below += ["committee/+/call"] if self._roles & MEMBER else []
        self._link = Link(self.bundle, port, [f"{prefix(self.bundle.fleet)}/{topic}" for topic in below])
        self._post = Post(self._link, self.bundle.fleet)
        self._member = member(self._documents, self.bundle.identity, self._post, self._say, self._now, chunk)
        self._vault_secret = secrets.token_bytes(32)
        self.plan: Frame | None = None
        self.newest_round: int | None = None
        self.version = self._highest = self._back = 0
        self.state: Floats | None = None
        self.coords = 0
        self._upload: list[bytes] = []
        self._upload_hash = b""
        self._accepted = False
        self._asked, self._asking = 0.0, False
        self._down: list[tuple[str, bytes]] = []
        self._refused: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _say(self, event: Event) -> None:
        self._journal.say(self._name, event)

    @staticmethod
    def _now() -> int:
        return int(time.time())

    def release(self, number: int) -> None:
        """Let it upload in that round."""
        self._held.discard(number)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)
        self._link.close()

    # The loop.

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                topic, payload = self._link.inbox.get(timeout=0.1)
            except queue.Empty:
                pass
            else:
                self._try("taking", lambda t=topic, p=payload: self._arrived(t, p))  # type: ignore[misc]
            self._advance()

    def _try(self, what: str, step: Callable[[], None]) -> None:
        """Do a step; say once why it was refused."""
        try:
            step()
        except Refused as error:
            if f"{what}: {error}" not in self._refused:
                self._refused.add(f"{what}: {error}")
                self._say({"event": "refused", "what": what, "why": str(error)})
        except Exception as error:
            self._say({"event": "broken", "what": what, "why": repr(error)})
            raise

    def _arrived(self, topic: str, payload: bytes) -> None:
        below = self._post.take(topic, payload)
        if below.startswith("down/"):
            base = below.rpartition("/")[0]
            whole = self._post.whole(base, LARGEST_SET, ask=False)
            if whole is not None:
                self._down.append((base.split("/")[2], whole))

    def _advance(self) -> None:
        self._try("documents", self._fetch_documents)
        if not self._documents.complete(self._names):
            return
        if self._roles & MEMBER:
            self._try("set-up", lambda: self._member.advance(self.newest_round))
        self._try("result", self._follow)
        self._try("plan", self._look_at_plan)
        if self._roles & PARTICIPANT:
            self._try("upload", self._take_part)
        waiting, self._down = self._down, []
        for kind, payload in waiting:
            self._try(kind, lambda k=kind, p=payload: self._on_down(k, p))  # type: ignore[misc]

    def _fetch_documents(self) -> None:
        for topic, take in (
            ("root/2", self._documents.take_root),
            ("manifest", self._documents.take_manifest),
            ("date", self._documents.take_date),
        ):
            if topic in self._post.seen:
                take(self._post.seen[topic])
        for doc in self._documents.missing(self._names):
            payload = self._post.whole(f"doc/{doc['name']}/{doc['version']}", doc["length"])
            if payload is not None:
                self._documents.take(doc, payload)

    # The model.

    def _follow(self) -> None:
        """Replay the deltas of results, one version after the other."""
        model = self._documents.named["model"].fields
        if self.state is None:
            flat = version_zero(shared(model), model["init"])
            require(model_hash(flat) == model["zero"], "version 0 has another hash than the model spec says")
            self.state, self.coords = flat, len(flat)
            self._say({"event": "version", "version": 0, "hash": model_hash(flat).hex()})
        results = []
        for topic, payload in list(self._post.seen.items()):
            if topic.startswith("result/"):
                result = self._documents.from_coordinator(payload, "result").fields
                require(topic == f"result/{result['round']}", "a result under another round's topic")
                results.append(result)
        back = max((result for result in results if result["outcome"] == 3), key=lambda r: r["round"], default=None)
        if back is not None and back["round"] > self._back:
            self._go_back(back)
            return
        for result in sorted(results, key=lambda result: result["round"]):
            self.newest_round = max(self.newest_round or 0, result["round"])
            if back is not None and result["round"] < back["round"] and result["version"] > back["version"]:
                # It leads to a version that was left.
                continue
            if result["outcome"] == 0 and self._by_snapshot and result["version"] > self.version:
                self._jump(result)
            elif result["outcome"] == 0 and result["base"] == self.version < result["version"]:
                self._replay(result)

    def _go_back(self, result: Fields) -> None:
        """Follow a rollback, if it is within the policy's bound of the highest version ever known."""
        assert self.state is not None
        self._highest = max(self._highest, self.version, result["base"])
        allowed = self._documents.named["policy"].fields["rollback_versions"]
        require(self._highest - allowed <= result["version"] < result["base"], "a rollback that the policy forbids")
        if self.version > result["version"]:
            payload = self._post.whole(f"model/{result['version']}/snapshot", 12 * self.coords)
            if payload is None:
                return
            self._take_snapshot(payload, result)
        self._back, self.newest_round = result["round"], max(self.newest_round or 0, result["round"])
        self._say({"event": "back", "version": self.version, "hash": model_hash(self.state).hex()})

    def _jump(self, result: Fields) -> None:
        payload = self._post.whole(f"model/{result['version']}/snapshot", 12 * self.coords)
        if payload is None:
            return
        self._take_snapshot(payload, result)
        self._say({"event": "snapshot", "version": self.version, "hash": result["version_hash"].hex()})

    def _take_snapshot(self, payload: bytes, result: Fields) -> None:
        require(len(payload) in (4 * self.coords, 12 * self.coords), "a snapshot of another length")
        state = np.frombuffer(payload, "<f4").astype(np.float32)
        require(model_hash(state) == result["version_hash"], "the snapshot has another model hash")
        self.state, self.version = state, result["version"]

    def _replay(self, result: Fields) -> None:
        assert self.state is not None
        require(model_hash(self.state) == result["base_hash"], "the result's base is not our model")
        payload = self._post.whole(f"model/{result['version']}/delta", 2 * padded(self.coords) + 512)
        if payload is None:
            return
        frame = self._documents.from_coordinator(payload, "delta")
        delta = frame.fields
        require(frame.hash == result["delta"] and delta["version"] == result["version"], "not the result's delta")
        require(delta["plan"] == result["plan"] and delta["bits"] == 16, "a delta of another plan")
        body = signed_body(delta["body"], self.coords)
        if delta["adam"]:
            u = next_version(np.zeros(self.coords, np.float32), body, delta["step"], delta["weight"], 1.0)
            state = adam_step(self.state, self.coords, u, delta["rate"], delta["momentum"], delta["adam"])
        else:
            state = next_version(self.state[: self.coords], body, delta["step"], delta["weight"], delta["rate"])
        require(model_hash(state) == result["version_hash"], "the replay gives another model hash")
        self.state, self.version = state, result["version"]
        included = result["included"]
        me = self.bundle.index
        self._say(
            {
                "event": "version",
                "version": self.version,
                "hash": model_hash(state).hex(),
                "round": result["round"],
                "included": me // 8 < len(included) and bool(included[me // 8] >> me % 8 & 1),
            }
        )

    # The plan.

    def _look_at_plan(self) -> None:
        payload = self._post.seen.get("plan")
        if payload is None:
            return
        frame = self._documents.from_coordinator(payload, "plan")
        if self.newest_round is not None and frame.fields["round"] <= self.newest_round:
            return
        raw = self._post.whole(f"committee/{frame.fields['epoch']}/transcript", LARGEST)
        if raw is None or self._now() > frame.fields["closes"]:
            return
        transcript = parse(raw, self.bundle.fleet, "transcript")
        require(transcript.hash == frame.fields["transcript"], "the plan names another transcript")
        require(transcript.fields["epoch"] == frame.fields["epoch"], "the plan names another epoch")
        check_transcript(self._documents, transcript, frame.fields)
        self._check_plan(frame.fields)
        self.plan, self.newest_round = frame, frame.fields["round"]
        self._members = members_of(transcript.fields)
        self._upload, self._accepted = [], False
        self._say({"event": "plan", "round": self.newest_round, "members": self._members})

    def _check_plan(self, plan: Fields) -> None:
        manifest = self._documents.manifest
        assert manifest is not None
        hashes = {doc["name"]: doc["hash"] for doc in manifest.fields["docs"]}
        policy = self._documents.named["policy"].fields
        require(self._documents.valid_at(self._now()), "stale-fleet")
        for name in ("model", "policy", "roster"):
            require(plan[name] == hashes[name], f"the plan names another {name}")
        require(plan["model"] in policy["models"], "a model that the policy does not allow")
        profiles = {one["name"]: one for one in self._documents.named["profile"].fields["profiles"]}
        require(plan["model"] in profiles[self._profile]["models"], "a model that our firmware profile does not pin")
        require(plan["kind"] == 0 and plan["codec"] == 0 and plan["tail"] == 0, "a kind of round that we cannot do")
        require(plan["grouped"] == 0 and plan["noise"] == 0.0 and policy["noise_floor"] == 0.0, "groups or noise")
        require(plan["bits"] == 16 and plan["keep"] == 1.0, "not the plain codec's bits")
        require(0 < plan["clip"] <= policy["clip"], "clip above the policy's")
        require(
            plan["step"] == step_for(plan["clip"], policy["largest_survivor_set"]), "another step than the formula's"
        )
        require(self.state is not None and plan["coords"] == self.coords, "another number of coordinates")

    # The upload.

    def _take_part(self) -> None:
        plan = self.plan
        if plan is None or plan.fields["round"] in self._held or self._accepted:
            return
        now, fields = self._now(), plan.fields
        if not fields["opens"] <= now < fields["closes"] or fields["base"] != self.version:
            return
        if not picked(plan.hash, self.bundle.index, fields["sample"]):
            return
        if fields["round"] in self._decline:
            self._send_decline(plan, self._decline.pop(fields["round"]))
            self._held.add(fields["round"])
            return
        if not self._upload:
            assert self.state is not None
            require(model_hash(self.state) == fields["base_hash"], "the plan's base is not our model")
            given = self._training(self.state[: self.coords], fields["coords"])
            self._upload_hash, self._upload = self.make_upload(plan, given)
            self._asked = time.monotonic()
            self.send_upload(fields["round"], self._upload)
            self._say({"event": "upload", "round": fields["round"], "chunks": len(self._upload)})
        elif time.monotonic() - self._asked > ASK_AGAIN:
            self._asked, self._asking = time.monotonic(), True
            self._post.publish(f"{self._upload_topic(fields['round'])}/0", self._upload[0])

    def _send_decline(self, plan: Frame, reason: int) -> None:
        decline = make("decline", self.bundle.fleet, {"plan": plan.hash, "reason": reason}, self.bundle.identity)
        shard = self.bundle.index % self._documents.named["policy"].fields["shards"]
        box = sealed(decline.raw, self._documents.coordinator["seal"])
        self._post.publish(f"up/{shard}/{self.bundle.index}/decline/{plan.fields['round']}/0", box)
        self._say({"event": "declined", "round": plan.fields["round"]})

    def _upload_topic(self, number: int) -> str:
        shard = self.bundle.index % self._documents.named["policy"].fields["shards"]
        return f"up/{shard}/{self.bundle.index}/upload/{number}"

    def send_upload(self, number: int, chunks: list[bytes]) -> None:
        self._post.publish_chunks(self._upload_topic(number), chunks)

    def make_upload(self, plan: Frame, given: Contribution) -> tuple[bytes, list[bytes]]:
        """Upload hash and chunks of a masked upload; the first chunk is the header."""
        fields, policy = plan.fields, self._documents.named["policy"].fields
        words = np.frombuffer(secrets.token_bytes(8 * fields["coords"]), "<u8").astype(np.uint64)
        vector = encoded(given, fields["clip"], policy["largest_survivor_set"], digest("chks", plan.hash), words)
        residues = digest("body", vector.packed)
        secret = drawn(self._vault_secret, secrets.token_bytes(32), plan.hash, residues)
        y, m, me = times_base(secret), padded(fields["coords"]), self.bundle.index
        for h, point in zip(self._members, slices(fields["points"], 32), strict=True):
            seed = mask_seed(secret, point, self.bundle.fleet, plan.hash, fields["round"], me, h, y, point)
            vector = vector.plus(mask(seed, m))
        data = vector.packed
        assert len(data) == vector_length(m)
        pieces = slices(data, self._chunk)
        hashes = b"".join(map(chunk_hash, pieces))
        whole = upload_hash(len(data), hashes)
        header = {
            "round": fields["round"],
            "y": y,
            "length": len(data),
            "size": self._chunk,
            "hashes": hashes,
            "sig": claim(
                self.bundle.identity,
                self.bundle.fleet,
                fields["roster"],
                plan.hash,
                fields["round"],
                y,
                whole,
            ),
        }
        return whole, [make("header", self.bundle.fleet, header).raw, *pieces]

    # Messages to this device.

    def _on_down(self, kind: str, payload: bytes) -> None:
        if kind == "receipt":
            self._on_receipt(self._documents.from_coordinator(payload, "receipt").fields)
        elif kind == "survivors":
            require(self.plan is not None, "survivors without a plan")
            assert self.plan is not None
            self._member.on_survivors(payload, self.plan)
        elif kind == "request":
            require(self.plan is not None, "a recovery without a plan")
            assert self.plan is not None
            self._member.on_request(payload, self.plan)
        elif kind == "blame":
            blame = self._documents.from_coordinator(payload, "blame").fields
            require(self.plan is not None, "a blame without a plan")
            assert self.plan is not None
            check_blame(self._documents, blame, self.plan, self._members)
            self._say({"event": "blame", "lost": blame["lost"]})
        else:
            raise Refused(f"a message of kind {kind}")

    def _on_receipt(self, receipt: Fields) -> None:
        said = {name: receipt[name] for name in ("round", "state", "reason")}
        self._say({"event": "receipt", "upload": receipt["upload"].hex(), **said})
        if receipt["upload"] != self._upload_hash:
            return
        if receipt["state"] == 0:
            self._accepted = True
        elif receipt["state"] == 2 and self._asking:
            # Without the question it names chunks that are still on their way.
            self._asking = False
            for j in range(len(self._upload) - 1):
                if j // 8 < len(receipt["missing"]) and receipt["missing"][j // 8] >> j % 8 & 1:
                    self._post.publish(f"{self._upload_topic(receipt['round'])}/{j + 1}", self._upload[j + 1])
