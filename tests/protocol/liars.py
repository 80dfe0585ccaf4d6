"""Machines that lie with valid signatures: honest roles of which one thing is changed, and what that may do to a round.

Each lie is told for a round or an epoch, or it is not; that is drawn once, so that what is sent again is the same lie.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from nacl import bindings
from numpy.typing import NDArray
from opened_numbers import retained_sums
from signed_fleet import seeded
from world import World, one_hot

from edge_agent.device import Device
from edge_agent.participant import Upload
from edge_agent.sheets import RoundSheet
from hushfleet import ceremony
from hushfleet.actions import Publish
from hushfleet.codec import PLAIN_BITS, lanes
from hushfleet.hashing import digest
from hushfleet.mqtt.chunks import HEADER_MARK, cut
from hushfleet.mqtt.inbox import payloads
from hushfleet.mqtt.topics import Parsed, Topics
from hushfleet.secagg.group import ORDER
from hushfleet.secagg.residues import Vector
from hushfleet.secagg.sealing import seal
from hushfleet.statistics import Digits
from hushfleet.wire.committee import Box
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import APPLIED, STATISTICS, Header, MaskSum, Plan, Request, Result, Sums, Survivors, bitmap

PARTICIPANT_LIES = (
    "steers-update",
    "spoils-checksum",
    "random-vector",
    "bad-point",
    "garbage-chunks",
    "another-length",
    "another-claim",
    "two-uploads",
)
MEMBER_LIES = (
    "spoils-sum",
    "steers-sum",
    "two-sums",
    "wrong-share",
    "silent-in-rounds",
    "wrong-box",
    "false-complaint",
    "silent-in-setup",
)
COORDINATOR_LIES = ("sets", "second-plan", "old-transcript", "second-result", "wrong-included")
NUMBERS_LIES, SUMS_LIES = ("impossible-numbers",), ("other-sums",)
"""What participants and the coordinator tell besides where there are statistics rounds."""

BAD_POINTS = (
    b"\x01" + bytes(31),
    (2**255 - 20).to_bytes(32, "little"),
    bytes(32),
    b"\xff" * 32,
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
)
"""The identity, points of order two, four and eight, and no point at all."""
SHIFT = 5
"""Steps by which a member steers a coordinate of the sum."""


@dataclass(frozen=True)
class Lie:
    """What one machine lies about, and how often each lie is told: 0 to 1."""

    kinds: tuple[str, ...]
    rate: float


class Liars:
    """The liars of one fleet, and what they did to each round.

    Attributes:
        active: whether new lies are told.
        spoilt: by round, the participants whose uploads no sum can hold with.
        wrong: (round, member) for each mask sum that may not be the true one.
        shifts: by (round, member), what a steered mask sum adds to the sum of the updates.
        singles: hashes of survivor sets of one device.
    """

    def __init__(self, world: World, lies: Mapping[int, Lie]) -> None:
        self.world, self.lies, self.active = world, dict(lies), True
        self.spoilt: dict[int, set[int]] = defaultdict(set)
        self.wrong: set[tuple[int, int]] = set()
        self.shifts: dict[tuple[int, int], NDArray[np.float64]] = {}
        self.singles: set[bytes] = set()
        self._topics = Topics(world.keys.fleet)
        self._decided: dict[tuple[object, ...], bool] = {}
        self._second_masked: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self._second: dict[tuple[int, int], Upload] = {}
        self._other_sum: dict[tuple[int, int], MaskSum] = {}
        self._first_plan: Plan | None = None
        self._sets_shown = 0
        self._honest_numbers = world.numbers
        world.tamper, world.update, world.numbers = self._tamper, self._update, self._numbers

    def tells(self, index: int, kind: str, *occasion: object) -> bool:
        """Whether a machine tells that lie on that occasion: decided once."""
        lie = self.lies.get(index)
        if lie is None or kind not in lie.kinds:
            return False
        key = (index, kind, *occasion)
        if key not in self._decided:
            self._decided[key] = self.active and self._chance(index, "tells", kind, *occasion).random() < lie.rate
        return self._decided[key]

    def _chance(self, *occasion: object) -> random.Random:
        return random.Random(repr((self.world.seed, "liars", occasion)))

    def make(self, index: int) -> None:
        """Turn a role that has just been built into a liar."""
        node = self.world.nodes[index]
        if index in self.lies and isinstance(node, Device):
            _wrap(node.participant, "_masked", partial(self._masked, index))
            _wrap(node.participant, "_signed", partial(self._signed, index))
            _wrap(node.member, "_mask_sum", partial(self._mask_sum, index))
            _wrap(node.dealer, "_get_ready", partial(self._get_ready, index))
            _wrap(node.member._sheets, "of_round", partial(self._of_round, index))

    # Participants.

    def _update(self, index: int, plan: Plan) -> NDArray[np.float32]:
        """Another update than the device's own, within what clipping allows: no check can see it, and none should."""
        delta = one_hot(index, plan)
        if self.tells(index, "steers-update", plan.round):
            chance = self._chance(index, "steers", plan.round)
            for _ in range(4):
                delta[chance.randrange(plan.coords)] = chance.randint(-256, 256) / 256
        return delta

    def _numbers(self, index: int, plan: Plan) -> NDArray[np.float64]:
        """Numbers of which each is in its range, and shares do not add up to their whole."""
        numbers = self._honest_numbers(index, plan)
        if self.tells(index, "impossible-numbers", plan.round):
            self.spoilt[plan.round].add(index)
            return np.ones_like(numbers)
        return numbers

    def _masked(self, index: int, honest: Callable[..., Any], verified: Any, *arguments: Any) -> tuple[bytes, bytes]:
        number = verified.plan.round
        if self.tells(index, "two-uploads", number):
            # Both lie alike, so that it does not matter which of them is taken.
            second = honest(verified, deepcopy(arguments[0]))
            self._second_masked[index, number] = self._spoil(index, number, *second)
        return self._spoil(index, number, *honest(verified, *arguments))

    def _spoil(self, index: int, number: int, y_point: bytes, data: bytes) -> tuple[bytes, bytes]:
        chance = self._chance(index, "masked", number)
        if self.tells(index, "spoils-checksum", number):
            self.spoilt[number].add(index)
            lane = (int.from_bytes(data[-8:], "little") + chance.randint(1, 2**63)) % 2**64
            data = data[:-8] + lane.to_bytes(8, "little")
        if self.tells(index, "random-vector", number):
            self.spoilt[number].add(index)
            data = chance.randbytes(len(data))
        if self.tells(index, "bad-point", number):
            y_point = chance.choice(BAD_POINTS)
        if self.tells(index, "another-length", number):
            data = data[: -chance.choice((1, 8, 300))] if chance.random() < 0.5 else data + bytes(chance.choice((1, 8)))
        return y_point, data

    def _signed(self, index: int, honest: Callable[..., Upload], verified: Any, y_point: bytes, data: bytes) -> Upload:
        plan: Plan = verified.plan
        if self.tells(index, "another-claim", plan.round):
            other = self._chance(index, "claim", plan.round).choice(
                (
                    replace(verified, hash=digest("body", verified.hash)),
                    replace(verified, plan=replace(plan, round=plan.round + 1)),
                    replace(verified, plan=replace(plan, roster=bytes(32))),
                )
            )
            upload = honest(other, y_point, data)
            header = Header.from_body(Frame.from_bytes(upload.header).body)
            frame = Frame(Header.KIND, replace(header, round=plan.round).to_body())
            return replace(upload, plan=verified.hash, round=plan.round, header=frame.to_bytes())
        if self.tells(index, "two-uploads", plan.round):
            self._second[index, plan.round] = honest(verified, *self._second_masked[index, plan.round])
        return honest(verified, y_point, data)

    def _uploads(self, index: int, at: Parsed, publish: Publish) -> Iterable[Publish]:
        if at.chunk and self.tells(index, "garbage-chunks", at.round_number):
            garbage = self._chance(index, "garbage", at.round_number, at.chunk).randbytes(len(publish.payload))
            yield replace(publish, payload=garbage)
            return
        second = self._second.get((index, at.round_number))
        if second is None or at.chunk:
            yield publish
            return
        head = publish.topic.removesuffix("0")
        others = [
            Publish(publish.topic, second.header),
            *(Publish(f"{head}{chunk}", piece) for chunk, piece in enumerate(cut(second.data, second.size), start=1)),
        ]
        first = self._chance(index, "order", at.round_number).random() < 0.5
        yield from [*others, publish] if first else [publish, *others]

    # Members.

    def _mask_sum(self, index: int, honest: Callable[..., MaskSum], verified: Any, *arguments: Any) -> MaskSum:
        answer, number = honest(verified, *arguments), verified.plan.round
        plan: Plan = verified.plan
        vector = Vector.from_bytes(answer.sum, PLAIN_BITS, plan.coords, lanes(plan.tail))
        chance = self._chance(index, "sum", number)
        place = chance.randrange(plan.coords)
        if self.tells(index, "two-sums", number):
            self.wrong.add((number, index))
            vector.body[place] ^= np.uint16(chance.randint(1, 65535))
            self._other_sum[index, number] = replace(answer, sum=vector.to_bytes(PLAIN_BITS))
            return answer
        if self.tells(index, "spoils-sum", number):
            self.wrong.add((number, index))
            vector.body[place] ^= np.uint16(chance.randint(1, 65535))
        if self.tells(index, "steers-sum", number):
            self.wrong.add((number, index))
            _steer(vector, place, verified.hash)
            self.shifts[number, index] = self._shift(plan, place)
        return replace(answer, sum=vector.to_bytes(PLAIN_BITS))

    def _shift(self, plan: Plan, place: int) -> NDArray[np.float64]:
        """What a steered coordinate adds to the sum of the updates, or to that of the numbers in units of 1/top."""
        if plan.kind != STATISTICS:
            shift = np.zeros(plan.coords)
            shift[place] = SHIFT / 256
            return shift
        digits = Digits.of(read(self.world.keys.documents["policy"], Policy).largest_survivor_set)
        shift = np.zeros(plan.coords // digits.count)
        shift[place // digits.count] = SHIFT * digits.base ** (place % digits.count)
        return shift

    def _of_round(self, index: int, honest: Callable[..., RoundSheet | None], epoch: int, number: int) -> Any:
        """A member's secrets, of which the shares of others are wrong when it lies."""
        sheet = honest(epoch, number)
        if sheet is None or not self.tells(index, "wrong-share", number):
            return sheet
        wrong = [
            (int.from_bytes(sheet.shares[at : at + 32], "little") % (ORDER - 1) + 1).to_bytes(32, "little")
            for at in range(0, len(sheet.shares), 32)
        ]
        return replace(sheet, shares=b"".join(wrong))

    def _sums(self, index: int, at: Parsed, publish: Publish) -> Iterable[Publish]:
        if self.tells(index, "silent-in-rounds", at.round_number):
            return
        other = self._other_sum.get((index, at.round_number)) if at.name == "masksum" and not at.chunk else None
        if other is None:
            yield publish
            return
        credentials = self.world.keys.credentials
        frame = credentials[index].identity().frame(other, self.world.keys.fleet).to_bytes()
        sealed = seal(frame, credentials[0].cert.seal, seeded((self.world.seed, index, at.round_number)))
        lie = replace(publish, payload=sealed)
        first = self._chance(index, "order", at.round_number).random() < 0.5
        yield from (lie, publish) if first else (publish, lie)

    def _get_ready(self, index: int, honest: Callable[..., Any], call: Any, list_hash: bytes, *rest: Any) -> Any:
        """Complain about a dealer whose box is right."""
        dealer = self.world.device(index).dealer
        attempt = rest[0]
        if dealer._boxes and self.tells(index, "false-complaint", call.epoch):
            victim = self._chance(index, "victim", call.epoch).choice(sorted(dealer._boxes))
            return dealer._complain(call, dealer._boxes[victim][0], attempt.secret_for(victim))
        return honest(call, list_hash, *rest)

    def _setup(self, index: int, at: Parsed, publish: Publish) -> Iterable[Publish]:
        if publish.payload and self.tells(index, "silent-in-setup", at.epoch):
            silent_from = self._chance(index, "silent", at.epoch).randrange(4)
            if ("card", "key", "share", "ready").index(at.kind) >= silent_from:
                return
        if publish.payload and at.kind == "share" and self.tells(index, "wrong-box", at.epoch, at.to):
            yield replace(publish, payload=self._wrong_box(index, at, publish.payload))
            return
        yield publish

    def _wrong_box(self, index: int, at: Parsed, payload: bytes) -> bytes:
        """A box whose shares are of other polynomials, or whose header is of another pair."""
        dealer, keys = self.world.device(index).dealer, self.world.keys
        if at.to not in dealer._cards:
            return payload
        box = read(Frame.from_bytes(payload), Box)
        chance, draw = self._chance(index, "box", at.epoch, at.to), seeded((self.world.seed, index, at.epoch, at.to))
        rounds = len(dealer._sheets.attempts[at.epoch].own) // 32 or 1
        shares = b"".join(chance.randrange(1, ORDER).to_bytes(32, "little") for _ in range(rounds))
        header = ceremony.box_header(box.key, index, at.to if chance.random() < 0.7 else index)
        public = ceremony.seal_key_for(dealer._cards[at.to][1], index, sorted(keys.members()))
        return (
            keys.credentials[index]
            .identity()
            .frame(replace(box, box=seal(header + shares, public, draw)), keys.fleet)
            .to_bytes()
        )

    # The coordinator.

    def _coordinator(self, at: Parsed, publish: Publish) -> Iterable[Publish]:
        if not publish.payload:
            yield publish
            return
        if at.kind == "sums" and self.tells(0, "other-sums", at.round_number):
            yield replace(publish, payload=self._other_sums(at.round_number)[at.chunk])
            return
        lies: list[Publish] = []
        if at.kind == "down" and at.name == "survivors" and at.chunk == 0 and self.tells(0, "sets", at.round_number):
            if not publish.payload.startswith(HEADER_MARK) and self._sets_shown < 200:
                self._sets_shown += 1
                yield from self._sets(publish)
                return
        elif at.kind == "plan":
            lies = self._plans(publish)
        elif at.kind == "result":
            lies = self._results(publish)
        chance = self._chance("order", publish.topic, len(publish.payload))
        before = chance.random() < 0.5
        if not before:
            yield publish
        for lie in lies:
            for device in sorted(self.world.keys.credentials)[1:]:
                if chance.random() < 0.4:
                    self.world.deliver(device, lie.topic, lie.payload, False)
        if before:
            yield publish

    def _frame(self, table: Any) -> bytes:
        return self.world.keys.credentials[0].identity().frame(table, self.world.keys.fleet).to_bytes()

    def _sets(self, publish: Publish) -> Iterable[Publish]:
        """A set of one first, another set after, and shares asked of every member."""
        frame = Frame.from_bytes(publish.payload, len(publish.payload))
        shown = read(frame, Survivors)
        single = Frame.from_bytes(self._frame(replace(shown, entries=shown.entries[:132])))
        self.singles.add(single.hash(self.world.keys.fleet))
        yield replace(publish, payload=single.to_bytes())
        yield publish
        if len(shown.entries) > 132 * 2:
            yield replace(publish, payload=self._frame(replace(shown, entries=shown.entries[132:])))
        for lost in self.world.keys.members():
            request = Request(0, shown.plan, frame.hash(self.world.keys.fleet), lost)
            topic = publish.topic.replace("/survivors/", "/request/")
            yield replace(publish, topic=topic, payload=self._frame(request))

    def _other_sums(self, number: int) -> list[bytes]:
        """Sums of the same round and form, half as large: not those that its result names."""
        data = retained_sums(self.world, number)
        assert data is not None
        sums = read(Frame.from_bytes(data, len(data)), Sums)
        half = np.frombuffer(sums.sums, "<u8") // 2
        return payloads(self._frame(replace(sums, sums=half.tobytes())), self.world.chunk)

    def _plans(self, publish: Publish) -> list[Publish]:
        """A second plan for the round, or one that names the transcript of an epoch that is over."""
        plan = read(Frame.from_bytes(publish.payload), Plan)
        first = self._first_plan = self._first_plan or plan
        others = []
        if self.tells(0, "second-plan", plan.round):
            others.append(replace(plan, seed=digest("body", plan.seed)))
        if self.tells(0, "old-transcript", plan.round) and first.epoch != plan.epoch:
            others.append(replace(plan, epoch=first.epoch, transcript=first.transcript, points=first.points))
            others.append(replace(plan, transcript=first.transcript, points=first.points))
        return [replace(publish, payload=self._frame(other)) for other in others]

    def _results(self, publish: Publish) -> list[Publish]:
        """A second result for the round: another model, or other survivors."""
        result = read(Frame.from_bytes(publish.payload), Result)
        others = []
        if result.outcome == APPLIED and self.tells(0, "second-result", result.round):
            others.append(replace(result, version_hash=digest("body", result.version_hash)))
        if result.outcome == APPLIED and self.tells(0, "wrong-included", result.round):
            others.append(replace(result, included=bitmap(sorted(self.world.keys.credentials)[1:])))
        return [replace(publish, payload=self._frame(other)) for other in others]

    def _tamper(self, sender: int, publish: Publish) -> Iterable[Publish]:
        if sender not in self.lies:
            return [publish]
        at = self._topics.parse(publish.topic)
        if sender == 0:
            return list(self._coordinator(at, publish))
        if at.kind == "up" and at.name == "upload":
            return list(self._uploads(sender, at, publish))
        if at.kind == "up" and at.name in ("masksum", "share"):
            return list(self._sums(sender, at, publish))
        if at.kind in ("card", "key", "share", "ready"):
            return list(self._setup(sender, at, publish))
        return [publish]


def _wrap(owner: Any, name: str, lie: Callable[..., Any]) -> None:
    """Put a lie in a method's place; it is handed the honest one first."""
    setattr(owner, name, partial(lie, getattr(owner, name)))


def _steer(vector: Vector, place: int, plan_hash: bytes) -> None:
    """Shift one coordinate of the opened sum, and the checksum lane to match."""
    words = bindings.randombytes_buf_deterministic(
        8 * (len(vector.body) + len(vector.tail) - 1), digest("chks", plan_hash)
    )
    weight = np.frombuffer(words, "<u8")[place] | np.uint64(1)
    with np.errstate(over="ignore"):
        vector.body[place] -= np.uint16(SHIFT)
        vector.tail[-1] -= weight * np.uint64(SHIFT)
