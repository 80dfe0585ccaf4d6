"""Reads off what a fleet says whether anything happened that must never happen, however badly the machines fared.

Device i contributes e_i, at a height that tells the round: a wrong, doubled, lost or invented upload shows in the sum.
Every message is judged as it comes; what was found wrong stands in `wrong` until somebody asks.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from memory_broker import Sent
from numpy.typing import NDArray
from opened_numbers import OpenedNumbers, spread
from world import World, height

from edge_agent.device import Device
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.server import model_hash
from hushfleet.mqtt.topics import Parsed, Topics
from hushfleet.wire.documents import ModelSpec, Policy
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import ACCEPTED, APPLIED, ROLLBACK, STATISTICS, VOID, Header, Plan, Receipt, Result

GRACE = 30.0
"""Seconds by which a round may end after its plan's last moment: downtimes and ticks."""
ONCE = ("card", "list", "key", "ready", "share", "transcript", "result", "model", "sums")
"""Retained kinds that may leave in one form only; each is signed, so a second form would be a second word."""
TWICE, SUMS, RECEIPTS, DEADLINES = "twice", "sums", "receipts", "deadlines"


class Lies(Protocol):
    """What liars did to the rounds."""

    spoilt: dict[int, set[int]]
    wrong: set[tuple[int, int]]
    shifts: dict[tuple[int, int], NDArray[np.float64]]


class Honest:
    """Nobody lies."""

    def __init__(self) -> None:
        self.spoilt: dict[int, set[int]] = {}
        self.wrong: set[tuple[int, int]] = set()
        self.shifts: dict[tuple[int, int], NDArray[np.float64]] = {}


class Witness:
    """What one fleet's traffic says.

    Attributes:
        plans, results: by round.
        versions: hash of every model version that led to the newest.
        left: version and hash of those that a rollback has left.
        wrong: what must not have happened, by sort.
        excused: until when the coordinator was down or had no right clock, disk or broker: its rounds may be late.
        accepted: by round, the participants that were told so.
        numbers: what statistics rounds opened.
        frozen: by round, whose uploads are in the survivor set, where it was seen.
    """

    def __init__(self, world: World, lies: Lies | None = None) -> None:
        self.world, self.lies = world, lies or Honest()
        self.topics = Topics(world.keys.fleet)
        self.plans: dict[int, Plan] = {}
        self.results: dict[int, Result] = {}
        self.wrong: dict[str, list[str]] = defaultdict(list)
        self.excused = float("-inf")
        self.frozen: dict[int, set[int]] = {}
        model = read(world.keys.documents["model"], ModelSpec)
        self._flat, self._version = initial_flat(model.shared, model.init), 0
        self.versions: dict[int, bytes] = {0: model_hash(self._flat)}
        self.left: set[tuple[int, bytes]] = set()
        self._flats, self._highest = {0: self._flat}, 0
        self._said: dict[tuple[object, ...], bytes] = {}
        self._sent_by: dict[int, set[int]] = defaultdict(set)
        self.accepted: dict[int, set[int]] = defaultdict(set)
        self.numbers = OpenedNumbers(world)
        self._announced: dict[int, float] = {}
        self._plan_hashes: dict[int, bytes] = {}
        for sent in world.broker.log:
            self.see(sent)

    def check(self) -> None:
        """AssertionError, with the seed, if anything happened that must not."""
        self.check_models()
        self._check_unfinished()
        self._check_numbers()
        for sort in tuple(self.wrong):
            self._check(sort, f"seed {self.world.seed}")

    def check_sums(self, seed: str) -> None:
        """Every version is the one before plus exactly the mean of those included; every device has one of them."""
        self.check_models()
        self._check(SUMS, seed)

    def _check(self, sort: str, seed: str) -> None:
        assert not self.wrong[sort], f"{self.wrong[sort][0]}; {seed}"

    def check_models(self) -> None:
        """Every device has one of the versions there were."""
        for index, node in self.world.nodes.items():
            if isinstance(node, Device) and node.live.hash:
                self.see_model(index, node.live.version, node.live.hash)

    def see_model(self, index: int, version: int, version_hash: bytes) -> None:
        """Judge the model that a device takes for the newest."""
        if self.versions.get(version) != version_hash and (version, version_hash) not in self.left:
            self.wrong[SUMS].append(f"device {index} has another model {version}")

    # Messages.

    def see(self, sent: Sent) -> None:
        """Judge one message."""
        at, payload = self.topics.parse(sent.topic), sent.payload
        if not payload:
            return
        subject = self._subject(at, payload)
        if subject is not None and self._said.setdefault(subject, payload) != payload:
            self.wrong[TWICE].append(f"two different messages as {subject}")
        if at.kind == "plan":
            self._see_plan(Frame.from_bytes(payload), sent.time)
        elif at.kind == "result":
            self._see_result(Frame.from_bytes(payload), sent.time)
        elif at.kind == "sums":
            if self.numbers.see_sums(at, payload):
                self._judge_numbers(at.round_number)
        elif (at.kind, at.name, at.chunk) == ("up", "upload", 0):
            self._sent_by[read(Frame.from_bytes(payload), Header).round].add(at.device)
        elif (at.kind, at.name) == ("down", "receipt"):
            receipt = read(Frame.from_bytes(payload), Receipt)
            if receipt.state == ACCEPTED:
                self.accepted[receipt.round].add(at.device)

    def _subject(self, at: Parsed, payload: bytes) -> tuple[object, ...] | None:
        """What a message speaks about, if there may be only one form of it."""
        if at.kind == "plan":
            return (at.kind, read(Frame.from_bytes(payload), Plan).round)
        if at.kind in ONCE:
            return (at.kind, at.device, at.to, at.epoch, at.version, at.name, at.round_number, at.chunk)
        if at.kind == "up" and at.name in ("upload", "masksum"):
            return (at.name, at.device, at.round_number, at.chunk)
        if at.kind == "down" and at.name == "survivors":
            return (at.name, at.round_number, at.chunk)
        return None

    def _see_plan(self, frame: Frame, time: float) -> None:
        plan = read(frame, Plan)
        self.plans[plan.round] = plan
        self._plan_hashes[plan.round] = frame.hash(self.world.keys.fleet)
        self._announced.setdefault(plan.round, time)

    def _late(self, number: int, time: float) -> bool:
        """Whether a round that is under way at that time should have ended."""
        plan = self.plans[number]
        return time > max(self._announced[number], self.excused) + plan.until - plan.opens + GRACE

    def _see_result(self, frame: Frame, time: float) -> None:
        """Judge a round's result; one that its coordinator did not sign, or of another plan, moves nobody."""
        result, keys = read(frame, Result), self.world.keys
        number = result.round
        signed = frame.signed_by(0, keys.credentials[0].cert.key, keys.fleet)
        if number in self.results or not signed or result.plan != self._plan_hashes.get(number, result.plan):
            return
        self.results[number] = result
        if number in self.plans and self._late(number, time):
            self.wrong[DEADLINES].append(f"round {number} ended too late")
        if (result.base, result.base_hash) != (self._version, self.versions[self._version]):
            self.wrong[SUMS].append(f"round {number} is not based on the newest version")
        if result.outcome == APPLIED and number in self.plans and self.plans[number].kind == STATISTICS:
            self._see_numbers(result)
        elif result.outcome == APPLIED:
            self._see_sum(result)
        elif result.outcome == ROLLBACK:
            self._see_rollback(result)
        elif result.included:
            self.wrong[SUMS].append(f"round {number} names survivors without a sum")
        elif result.outcome == VOID and not self._may_be_void(number):
            self.wrong[SUMS].append(f"round {number} is void, but nobody lied")

    def _see_numbers(self, result: Result) -> None:
        """Sums were opened: the model stays, and they are those of the numbers of just the devices it names."""
        if result.moves():
            self.wrong[SUMS].append(f"the statistics of round {result.round} moved the model")
        self.numbers.see_result(result, self._see_included(result))
        self._judge_numbers(result.round)

    def _judge_numbers(self, number: int) -> None:
        found = self.numbers.wrong(self.plans[number], self._shifts(number)) if number in self.plans else None
        if found is not None:
            self.wrong[SUMS].append(found)

    def _check_numbers(self) -> None:
        for number in self.numbers.unpublished():
            self.wrong[SUMS].append(f"the sums that round {number} names never left")
        self.wrong[SUMS] += self.numbers.mistold()

    def _see_rollback(self, result: Result) -> None:
        """The model went back: to a version that led to the newest, as far as the policy allows, without a sum."""
        version, allowed = result.version, read(self.world.keys.documents["policy"], Policy).rollback_versions
        if not self._highest - allowed <= version < self._version or result.included:
            self.wrong[SUMS].append(f"round {result.round} goes back from {self._version} to {version}")
            return
        if result.version_hash != self.versions[version]:
            self.wrong[SUMS].append(f"round {result.round} goes back to another model {version}")
            return
        for number in range(version + 1, self._version + 1):
            self.left.add((number, self.versions.pop(number)))
        self._flat, self._version = self._flats[version], version
        self.numbers.leave(version)
        # What a version is called by may be said of another one now.
        gone = [subject for subject in self._said if subject[0] == "model" and int(str(subject[4])) > version]
        for subject in gone:
            del self._said[subject]

    def _may_be_void(self, number: int) -> bool:
        """Whether somebody spoilt the round's sum."""
        spoilt = self.lies.spoilt.get(number, set()) & self.frozen.get(number, self._sent_by[number])
        return bool(spoilt) or any(about == number for about, _ in self.lies.wrong)

    def _see_sum(self, result: Result) -> None:
        """A sum was applied: it is exactly that of the updates it names, each of which was sent and none forgotten."""
        number, included = result.round, self._see_included(result)
        for update in self._updates(number, included):
            flat = self._flat + (update / len(included)).astype(np.float32)
            if model_hash(flat) == result.version_hash and result.version == self._version + 1:
                self._flat, self._version = flat, result.version
                self.versions[result.version], self._flats[result.version] = result.version_hash, flat
                self._highest = max(self._highest, result.version)
                return
        self.wrong[SUMS].append(f"round {number}: a wrong sum was applied")
        # Whatever it was, what follows is judged by it: one wrong sum is told once.
        self._version, self.versions[result.version] = result.version, result.version_hash
        self._flats[result.version], self._highest = self._flat, max(self._highest, result.version)

    def _see_included(self, result: Result) -> list[int]:
        """A sum was opened: of two uploads at least, each of which was sent and none forgotten."""
        number, keys = result.round, self.world.keys.credentials
        included = [index for index in keys if result.includes(index)]
        if len(included) < 2:
            self.wrong[SUMS].append(f"round {number} opened {included}")
        if not set(included) <= self._sent_by[number]:
            self.wrong[RECEIPTS].append(f"round {number}: {set(included) - self._sent_by[number]} never sent")
        if not self.accepted[number] <= set(included):
            self.wrong[RECEIPTS].append(f"round {number}: accepted, then lost: {self.accepted[number]}")
        if self.lies.spoilt.get(number, set()) & set(included):
            self.wrong[SUMS].append(f"round {number} was applied, with an upload that spoils every sum")
        return included

    def _updates(self, number: int, included: Iterable[int]) -> Iterable[NDArray[np.float64]]:
        """What the sum of the updates may be: what was contributed, and all that members may have shifted it by."""
        total = np.zeros(len(self._flat))
        for index in included:
            contributed = self.world.contributed.get((index, number))
            if contributed is None:
                total[index] += height(number)
            else:
                total += contributed
        for shift in spread(self._shifts(number)):
            yield total + shift

    def _shifts(self, number: int) -> list[NDArray[np.float64]]:
        return [shift for (about, _), shift in self.lies.shifts.items() if about == number]

    def _check_unfinished(self) -> None:
        for number in self.plans:
            if number not in self.results and self._late(number, self.world.now):
                self.wrong[DEADLINES].append(f"round {number} never ended")
