"""What must hold after every event of a simulated fleet: at each commit and before each message that leaves.

Nothing is said that is not durable, nothing is said twice, no member goes over its recoveries, no secret outlives what
its member has verified of the round's end, no sum is wrong, and blame names liars alone.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from liars import Liars
from memory_broker import Sent
from opened_numbers import retained_sums
from witness import Witness
from world import World

from coordinator.audit import BLAME
from coordinator.round import LAST, OPEN, _Open
from coordinator.statistics import OPENED, Opened
from coordinator.uploads import SUM, _Record
from edge_agent.device import SEEN, Seen
from edge_agent.live_model import RECORD
from edge_agent.live_model import _Record as _LiveRecord
from edge_agent.member import ANSWER, Answer
from edge_agent.opened_sums import RECORD as SUMS
from edge_agent.opened_sums import _Kept
from edge_agent.participant import UPLOAD, Upload
from edge_agent.restoration import DAY
from edge_agent.sheets import Attempt
from hushfleet.actions import RETAINED, Erase, Note, Publish, Save
from hushfleet.codec import PLAIN_BITS, lanes
from hushfleet.evidence import judge_evidence
from hushfleet.mqtt.chunks import HEADER_MARK
from hushfleet.mqtt.topics import Parsed
from hushfleet.secagg.residues import Vector, add_into
from hushfleet.secagg.sealing import unseal
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import Frame, indices, read
from hushfleet.wire.round import ACCEPTED, ROLLBACK, STATISTICS, Header, MaskSum, Plan, Receipt, Sums, Survivors


class Guard:
    """Watches one world from within; AssertionError at the first event after which something does not hold.

    Attributes:
        witness: what it has seen and heard.
    """

    def __init__(self, world: World, liars: Liars, recoveries: int) -> None:
        self.world, self.liars = world, liars
        self.witness = Witness(world, liars)
        self._recoveries = recoveries
        self._helped: dict[tuple[int, int], set[int]] = defaultdict(set)
        self._uploads: dict[int, int] = {}
        self._seen: dict[int, int] = defaultdict(int)
        self._newest: dict[int, int] = defaultdict(int)
        self._described: dict[tuple[int, bytes], float] = {}
        self._changed: dict[int, set[str]] = {}
        self._trace = sha256()
        world.committed, world.leaves = self._committed, self._leaves

    def trace(self) -> str:
        """The hash of everything that was said, and when."""
        return self._trace.hexdigest()

    def put_back(self, index: int) -> None:
        """A device's records are an earlier copy: what it knows begins there."""
        self._seen[index] = self._newest[index] = 0
        saved = self.world.records[index].get(UPLOAD)
        if saved is not None:
            self._uploads[index] = Upload.from_body(saved).round
        for key, described in self._described.items():
            if key[0] == index:
                # From here its own clock counts, whatever it said before.
                self._described[key] = min(described, self.world.clock(index))

    def _judge(self) -> None:
        for found in self.witness.wrong.values():
            assert not found, found[0]

    # What is durable.

    def _committed(self, index: int, actions: Sequence[Any]) -> None:
        keys = self._changed[index] = {action.key for action in actions if isinstance(action, Save | Erase)}
        if index == 0:
            self._coordinator_committed(keys)
            self._check_judgements(actions)
        if index and UPLOAD in keys:
            self._check_upload(index, actions)
        if index and any(key in (SEEN, ANSWER) or key.startswith(("sheet/", "setup/")) for key in keys):
            self._check_erasure(index)
        if index and RECORD in self.world.records[index].data and RECORD in keys:
            live = _LiveRecord.from_body(self.world.records[index].data[RECORD])
            self.witness.see_model(index, live.version, live.hash)
            # One that a rollback left with nothing walks from version 0, and works with none of what is on the way.
            if (live.version, live.hash) == self.world.device(index).live._known():
                self._check_way_back(index, live.version)
            self._judge()
        if index and SEEN in keys:
            self._check_left(index, Seen.from_body(self.world.records[index].data[SEEN]))
        if index and SUMS in keys:
            self._check_kept(index, _Kept.from_body(self.world.records[index].data[SUMS]))

    def _check_way_back(self, index: int, version: int) -> None:
        """Nobody's model goes further back from the highest it ever was than the policy allows."""
        self._newest[index] = max(self._newest[index], version)
        allowed = read(self.world.keys.documents["policy"], Policy).rollback_versions
        newest = self._newest[index]
        assert version >= newest - allowed, f"device {index} goes back from {newest} to {version}"

    def _coordinator_committed(self, keys: set[str]) -> None:
        records = self.world.records[0]
        if OPEN in keys:
            saved = records.get(OPEN)
            if saved is None:
                left = [key for prefix in ("masksum/", "share/", "upload/", SUM) for key, _ in records.scan(prefix)]
                assert not left, f"the round is over, and the coordinator keeps {left}"
            elif opened := _Open.from_body(saved).set:
                plan = read(Frame.from_bytes(_Open.from_body(saved).plan), Plan)
                survivors = read(Frame.from_bytes(opened, len(opened)), Survivors).survivors()
                self.witness.frozen[plan.round] = {survivor.index for survivor in survivors}
        for key in keys:
            if key.startswith(BLAME):
                self._check_blame(records.data[key])
            if key.startswith(OPENED) and key in records.data:
                self._check_opened(Opened.from_body(records.data[key]))

    def _check_opened(self, opened: Opened) -> None:
        """What the coordinator keeps of a statistics round it publishes in the same event, but what too few told."""
        data = retained_sums(self.world, opened.round)
        assert data is not None, f"the sums of round {opened.round} are kept, and not published"
        sums, plan = read(Frame.from_bytes(data, len(data)), Sums), self.witness.plans[opened.round]
        told = self.witness.numbers.without_few(np.frombuffer(opened.sums, "<i8")).tobytes()
        kept = (opened.devices, opened.top, told, opened.base)
        assert kept == (sums.devices, sums.top, sums.sums, plan.base), f"other sums of round {opened.round} are kept"

    def _check_blame(self, evidence: bytes) -> None:
        verdict = judge_evidence(evidence, self.world.keys.fleet, self.world.keys.root.hash(self.world.keys.fleet))
        assert (verdict.round, verdict.member) in self.liars.wrong, f"member {verdict.member} was blamed falsely"
        # Its mask sum was replaced by the true one.
        self.liars.shifts.pop((verdict.round, verdict.member), None)

    def _check_judgements(self, actions: Sequence[Any]) -> None:
        """Whoever is found to have lied in a set-up did."""
        for action in actions:
            if isinstance(action, Note) and action.event == "setup-failed":
                for found in re.findall(r"member (\d+) lied", str(action.fields["why"])):
                    lie = self.liars.lies.get(int(found))
                    told = set(lie.kinds) if lie else set()
                    assert told & {"wrong-box", "false-complaint"}, f"{action.fields['why']}, and it told {told}"

    def _check_upload(self, index: int, actions: Sequence[Any]) -> None:
        """A participant drops its upload as accepted only if just that one is."""
        saved = self.world.records[index].get(UPLOAD)
        if saved is not None:
            self._uploads[index] = Upload.from_body(saved).round
            self._check_described(index, self.witness.plans[self._uploads[index]])
            return
        number = self._uploads[index]
        for action in actions:
            if isinstance(action, Note) and action.event == "accepted":
                accepted = index in self.witness.accepted[number] and action.fields["round"] == number
                assert accepted, f"device {index} takes its upload of round {number} for accepted"

    def _check_described(self, index: int, plan: Plan) -> None:
        """A device describes itself once a base, and again a day later by its clock, or by one that was set back."""
        if plan.kind != STATISTICS:
            return
        now, key = self.world.clock(index), (index, plan.base_hash)
        before = self._described.get(key, float("inf"))
        assert now < before or now > before + DAY - 1, f"device {index} describes itself twice on version {plan.base}"
        self._described[key] = now

    def _check_kept(self, index: int, kept: _Kept) -> None:
        """A device keeps what was published for the round, as of its result's version; or none, since a rollback."""
        sums, result = self.witness.numbers.published.get(kept.round), self.witness.results.get(kept.round)
        if not kept.body:
            left = result and (result.outcome, result.version) == (ROLLBACK, kept.version)
            assert left, f"device {index} keeps no sums because of round {kept.round}, which left no version"
            return
        published = sums is not None and kept.body == sums.to_body()
        assert published, f"device {index} keeps other sums of round {kept.round} than were published"
        version = result.version if result else None
        assert version == kept.version, f"device {index} keeps sums of round {kept.round} for another version"

    def check(self) -> None:
        """At the end, when everyone knows of every rollback: no device keeps sums over a version that one left."""
        self.witness.check()
        for index in self.world.keys.participants():
            saved = self.world.records[index].get(SUMS)
            kept = _Kept.from_body(saved) if saved else None
            known = kept is None or not kept.body or kept.round not in self.witness.numbers.left
            assert known, f"device {index} keeps sums over a version that a rollback left"

    def _check_left(self, index: int, seen: Seen) -> None:
        """Who knows of a rollback keeps no sums over a version that it left."""
        saved, result = self.world.records[index].get(SUMS), self.witness.results.get(seen.round)
        if saved is None or result is None or result.outcome != ROLLBACK or not seen.ended():
            return
        kept = _Kept.from_body(saved)
        left = kept.body and kept.round < result.round and kept.version > result.version
        assert not left, f"device {index} keeps sums over version {kept.version} after the rollback to {result.version}"

    def _check_erasure(self, index: int) -> None:
        """No secret of a round outlives what a member has verified of its end, no sealing key its readiness."""
        records = self.world.records[index]
        saved = records.get(SEEN)
        seen = Seen.from_body(saved) if saved else Seen()
        assert seen.round >= self._seen[index], (
            f"device {index} goes back from round {self._seen[index]} to {seen.round}"
        )
        self._seen[index] = seen.round
        ended = seen.round if seen.ended() else seen.round - 1
        alive = [key for key, _ in records.scan("sheet/") if int(key.rpartition("/")[2]) <= ended]
        assert not alive, f"member {index} has seen the end of round {ended} and keeps {alive}"
        answered = records.get(ANSWER)
        if answered is not None:
            answer = Answer.from_body(answered)
            assert answer.round > ended or not answer.sum, f"member {index} keeps its answer to round {answer.round}"
        for key, value in records.scan("setup/"):
            attempt = Attempt.from_body(value)
            assert not attempt.ready or not (attempt.secrets or attempt.own), f"member {index} is ready and keeps {key}"

    # What leaves.

    def _leaves(self, index: int, publish: Publish) -> None:
        now, topic, payload = self.world.now, publish.topic, publish.payload
        self._trace.update(f"{now} {index} {topic} {publish.retain} {len(payload)} ".encode() + payload)
        at = self.witness.topics.parse(topic)
        self._check_durable(index, at, publish)
        if at.kind == "up" and at.name == "share" and at.part is not None:
            helped = self._helped[index, at.round_number]
            helped.add(at.part)
            assert len(helped) <= self._recoveries, f"member {index} gave shares of {helped} in round {at.round_number}"
        if at.kind == "up" and at.name == "masksum" and self.liars.singles and not payload.startswith(HEADER_MARK):
            self._check_set(index, at, payload)
        self.witness.see(Sent(now, index, topic, payload, publish.retain))
        self._judge()

    def _check_set(self, index: int, at: Parsed, sealed: bytes) -> None:
        """No member cancels the masks of one device alone."""
        secret = self.world.keys.credentials[0].seal_secret
        assert secret is not None
        if at.chunk == 0:
            answer = read(Frame.from_bytes(unseal(sealed, secret), len(sealed)), MaskSum)
            assert answer.set not in self.liars.singles, f"member {index} opened one device's upload"

    def _check_durable(self, index: int, at: Parsed, publish: Publish) -> None:
        """Whatever leaves is in the records already, so that the machine says the same again after any crash."""
        records, payload = self.world.records[index].data, publish.payload
        what = f"machine {index} says what it has not saved: {publish.topic}"
        if publish.retain:
            # What an event replaces or takes back may go out once more before, in the same event.
            key = RETAINED + publish.topic
            assert records.get(key, b"") == payload or key in self._changed[index], what
        match at.kind, at.name:
            case "plan", _ if payload:
                last = int.from_bytes(records.get(LAST, b""), "little")
                assert last >= read(Frame.from_bytes(payload), Plan).round, what
            case "sums", _ if payload:
                assert f"{OPENED}{at.round_number:020}" in records, what
            case "up", "upload":
                upload = Upload.from_body(records[UPLOAD]) if UPLOAD in records else None
                assert upload is not None, what
                assert upload.round == at.round_number, what
                assert payload == upload.header if at.chunk == 0 else payload in upload.data, what
            case "up", "masksum":
                answer = self._answer(index, at, what)
                assert payload.startswith(HEADER_MARK) or payload in answer.sum, what
            case "up", "share":
                assert at.part in indices(self._answer(index, at, what).recovered), what
            case "down", "survivors":
                opened = _Open.from_body(records[OPEN]).set if OPEN in records else b""
                assert payload.startswith(HEADER_MARK) or payload in opened, what
            case "down", "receipt":
                # The event that accepts an upload may end its round as well, for want of others.
                receipt = read(Frame.from_bytes(payload), Receipt)
                if receipt.state == ACCEPTED and OPEN in records:
                    self._check_sum(at.device, receipt.upload, what)

    def _answer(self, index: int, at: Parsed, what: str) -> Answer:
        saved = self.world.records[index].get(ANSWER)
        assert saved is not None, what
        answer = Answer.from_body(saved)
        assert answer.round == at.round_number, what
        return answer

    def _check_sum(self, device: int, upload: bytes, what: str) -> None:
        """An upload that is acknowledged is marked as accepted, and the sum on the disk is that of all marked so."""
        records = self.world.records[0]
        accepted: dict[int, bytes] = {}
        for key, value in records.scan("upload/"):
            if key.endswith("/header") and (record := _Record.from_body(value)).accepted:
                header = Header.from_body(Frame.from_bytes(record.header).body)
                accepted[int(key.split("/")[1])] = header.upload_hash()
        assert accepted.get(device) == upload, what
        plan = read(Frame.from_bytes(_Open.from_body(records.data[OPEN]).plan), Plan)
        total = Vector.zeros(plan.coords, PLAIN_BITS, lanes(plan.tail))
        for index in accepted:
            chunks = [value for key, value in records.scan(f"upload/{index:010}/") if not key.endswith("/header")]
            add_into(total, Vector.from_bytes(b"".join(chunks), PLAIN_BITS, plan.coords, lanes(plan.tail)))
        saved = records.get(SUM)
        whole = total.body.tobytes() + total.tail.tobytes()
        assert saved == whole, f"the sum on the disk is not that of {set(accepted)}"
